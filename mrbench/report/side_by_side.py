"""Single runs beside each other: every metric, and how far the choice of test images may have moved it.

The images are drawn anew (the same draws for all runs, so differences are paired over images) and AP is computed
again; intervals are the middle 95 % of the draws. What another seed would have done is not in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mrbench.errors import UserError
from mrbench.evaluation import bootstrap
from mrbench.runs.record import Run


@dataclass(frozen=True)
class Value:
    """A metric of a run, or a difference of two, in percent; the interval is None where nothing is known of it."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class SideBySide:
    """`metrics`: each run's value by name; `differences`: of each later run from the first. `images` were drawn
    `resamples` times; `problems` say where that could not be done."""

    runs: tuple[str, ...]
    metrics: dict[str, tuple[Value, ...]]
    differences: dict[str, tuple[Value, ...]]
    images: int
    resamples: int
    problems: tuple[str, ...]


def side_by_side(runs: Sequence[Run], resamples: int = bootstrap.RESAMPLES) -> SideBySide:
    """Raises UserError where a run has no evaluation, or its record is damaged."""
    recorded = [_recorded(run) for run in runs]
    problems: list[str] = []
    images: dict[str, int] = {}  # checksum -> how many: the first run's are those of all
    drawn = [_drawn(run, metrics, resamples, images, problems) for run, metrics in zip(runs, recorded, strict=True)]
    names = list(dict.fromkeys(name for metrics in recorded for name in metrics))
    return SideBySide(
        tuple(run.run_id for run in runs),
        {
            name: tuple(_value(m.get(name), d.get(name)) for m, d in zip(recorded, drawn, strict=True))
            for name in names
        },
        {name: tuple(_difference(recorded, drawn, name, i) for i in range(1, len(runs))) for name in names},
        next(iter(images.values()), 0),
        resamples if any(drawn) else 0,
        tuple(dict.fromkeys(problems)),
    )


def _recorded(run: Run) -> dict[str, float | None]:
    evaluation = run.evaluation()
    if evaluation is None:
        raise UserError(f"{run.run_id} has no evaluation yet", f"Train it to its end, or: mrbench eval {run.run_id}")
    return dict(evaluation["metrics"])


def _drawn(
    run: Run, metrics: Mapping[str, float | None], resamples: int, images: dict[str, int], problems: list[str]
) -> dict[str, np.ndarray]:
    """metric -> its value in each draw; nothing of a kind whose matches are not those of the evaluation."""
    found: dict[str, np.ndarray] = {}
    kinds = list(dict.fromkeys(name.partition("/")[0] for name in metrics if name.endswith("/AP")))
    try:
        all_drawn = bootstrap.of_run(run.matches_file, kinds, resamples) if resamples and kinds else {}
    except UserError as error:
        problems.append(f"no intervals for {run.run_id}: {error.what.splitlines()[0].rstrip('.')}")
        return {}
    for kind, drawn in all_drawn.items():
        recorded = metrics[f"{kind}/AP"]
        if recorded is None:
            continue
        if not abs(drawn.whole - recorded) < 1e-3:
            problems.append(f"no intervals for {run.run_id}: its matches.npz is not that of its evaluation.json")
            continue
        if not images:  # only now: matches that are not this run's do not say what the others should have seen
            images[drawn.images] = drawn.count
        if drawn.images in images:
            found |= {f"{kind}/{name}": scores for name, scores in drawn.scores.items()}
        else:
            problems.append(f"no intervals for {run.run_id}: it was evaluated on other images")
    return found


def _value(value: float | None, draws: np.ndarray | None) -> Value:
    if value is None or draws is None or not np.isfinite(draws).any():
        return Value(value)
    low, high = np.nanpercentile(draws, [2.5, 97.5])
    return Value(value, float(low), float(high))


def _difference(
    recorded: Sequence[Mapping[str, float | None]], drawn: Sequence[Mapping[str, np.ndarray]], name: str, i: int
) -> Value:
    one, other = recorded[0].get(name), recorded[i].get(name)
    if one is None or other is None:
        return Value(None)
    both = drawn[0].get(name), drawn[i].get(name)
    return _value(other - one, None if both[0] is None or both[1] is None else both[1] - both[0])
