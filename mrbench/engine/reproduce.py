"""A completed run once more, from its record, and what came out the same."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mrbench.config.compose import changed_for_testing
from mrbench.config.identity import run_id
from mrbench.config.schema import RunConfig
from mrbench.engine import checkpoint
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.runs.comparison import Pair, compare_evaluations, compare_histories, compare_surroundings
from mrbench.runs.record import Run, open_run


@dataclass(frozen=True)
class SameWeights:
    """Of the final weights: SHA-256 of both files, and the largest difference of a weight, relative to the largest
    weight of its tensor; 0 where all are equal, and infinite where the networks are not the same."""

    sha256: tuple[str, str]
    difference: float


@dataclass(frozen=True)
class Reproduction:
    """Two runs of one configuration, number by number."""

    again: Run
    metrics: list[Pair]
    history: dict[int, list[Pair]]  # by iteration
    weights: SameWeights | None  # None where the record no longer has them
    surroundings: list[tuple[str, Any, Any]]  # name, then and now, of what is not the same

    @property
    def exact(self) -> bool:
        """Whether all numbers are equal to the last bit."""
        pairs = [*self.metrics, *(pair for line in self.history.values() for pair in line)]
        return all(pair.equal for pair in pairs) and (self.weights is None or self.weights.difference == 0)


def recorded_config(run: Run, overrides: Sequence[str] = ()) -> RunConfig:
    """How the run was carried out: its configuration, with as many processes and threads as its record names.

    `overrides` may change where and how it runs (`runtime.*`, `data.root`). Raises UserError where they would make
    another run of it.
    """
    config, provenance = run.config(), run.provenance()
    runtime = replace(
        config.runtime,
        devices=provenance.get("processes", config.runtime.devices),
        threads=provenance.get("threads", config.runtime.threads),
    )
    changed = changed_for_testing(replace(config, runtime=runtime), overrides)
    if run_id(changed) != run_id(config):
        raise UserError("That would be another run", "What can be changed: runtime.* and data.root.")
    return changed


def reproduce(run: Run, config: RunConfig, root: Path) -> Reproduction:
    """Carry out a completed run again under `root`, going on with what lies there, and compare.

    Raises UserError where the run is not complete or lies in `root` itself, and what `train` raises.
    """
    if run.status().state != "completed":
        raise UserError(
            f"{run.run_id} is not complete: there is nothing to compare with", "Train it to its end first."
        )
    again = Run(root / "runs" / run_id(config))
    if again.folder.resolve() == run.folder.resolve():
        raise UserError(f"{run.run_id} lies in {root} itself", "Name another folder.")
    again = open_run(root, config)
    train(again, config)
    return Reproduction(
        again,
        compare_evaluations(run, again),
        compare_histories(run, again),
        compare_weights(run, again),
        list(compare_surroundings(run, again)),
    )


def compare_weights(first: Run, second: Run) -> SameWeights | None:
    """None where one of them has no final weights."""
    paths = [run.checkpoint_dir / checkpoint.FINAL for run in (first, second)]
    if not all(checkpoint.verifies(path) for path in paths):
        return None
    one, other = (json.loads(path.with_suffix(".json").read_text())["sha256"] for path in paths)
    return SameWeights((one, other), 0.0 if one == other else _largest_difference(*paths))


def _largest_difference(first: Path, second: Path) -> float:
    a, b = (checkpoint.load(path)["model"] for path in (first, second))
    if {name: value.shape for name, value in a.items()} != {name: value.shape for name, value in b.items()}:
        return float("inf")
    largest = 0.0
    for name, value in a.items():
        if value.numel():
            scale = max(float(value.double().abs().max()), 1e-12)
            largest = max(largest, float((value.double() - b[name].double()).abs().max()) / scale)
    return largest
