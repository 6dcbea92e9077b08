"""From a study to its runs: every arm composed with every seed before anything starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mrbench.config.composer import Composer
from mrbench.config.identity import run_id
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.study.study import Study


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study. `overrides` are all that differ from the default: base, arm and seed; `command` is what
    runs it alone, without the leading `mrbench`."""

    arm: str
    seed: int
    overrides: tuple[str, ...]
    config: RunConfig
    run_id: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """A study's runs, arm by arm. Two arms may ask for the same run: it is done once and counts for both."""

    study: Study
    runs: tuple[PlannedRun, ...]

    def unique(self) -> dict[str, PlannedRun]:
        """run id -> the first planned run that asks for it; seeds first, so that a table fills evenly."""
        order = {seed: i for i, seed in enumerate(self.study.seeds)}
        found: dict[str, PlannedRun] = {}
        for run in sorted(self.runs, key=lambda r: order[r.seed]):
            found.setdefault(run.run_id, run)
        return found

    def families(self) -> dict[str, str]:
        """arm -> what its runs share whatever the seed: the run id that they would have with seed 0."""
        first = {run.arm: run.config for run in reversed(self.runs)}
        return {arm: run_id(replace(config, seed=0)) for arm, config in first.items()}


def told_same(families: Mapping[str, str]) -> list[str]:
    """A sentence for each set of arms of one family: they differ in nothing, and their runs are done once."""
    arms: dict[str, list[str]] = {}
    for arm, family in families.items():
        arms.setdefault(family, []).append(arm)
    return [f"Arms {', '.join(of[:-1])} and {of[-1]} are the same runs." for of in arms.values() if len(of) > 1]


def make_plan(
    study: Study,
    extra: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    config_dir: Path | None = None,
) -> Plan:
    """Composes all runs. Order of overrides: base, `extra` (the command line's), arm, seed; the later one holds.

    Raises UserError naming file, arm and what is wrong with it.
    """
    study = replace(study, base=study.base + tuple(extra), seeds=tuple(seeds or study.seeds))
    runs = []
    options = ("--config-dir", str(config_dir)) if config_dir else ()
    composer = Composer(config_dir)
    for arm in study.arms:
        for seed in study.seeds:
            overrides = (*study.base, *arm.overrides, f"seed={seed}")
            try:
                config = composer.compose(overrides)
                name = run_id(config)
            except UserError as error:
                raise UserError(f"{study.source}: arm {arm.name}: {error.what}", error.hint) from error
            runs.append(PlannedRun(arm.name, seed, overrides, config, name, ("train", *overrides, *options)))
    return Plan(study, tuple(runs))
