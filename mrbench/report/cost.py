"""What arms cost beside what they reach: speed, memory, training time, and which arms no other beats in both."""

from dataclasses import dataclass, replace

from mrbench.report.build import Report
from mrbench.report.collect import Arm
from mrbench.report.conditions import facts
from mrbench.report.run_record import RunRecord

# Facts of the environment on which speed and time depend.
SPEED_FACTS = ("CPU", "cores", "GPUs", "torch", "runtime.device", "runtime.devices", "runtime.threads")


@dataclass(frozen=True)
class Cost:
    """Means over an arm's completed runs, None where not on record. Memory in bytes, the highest; `device_hours` is
    wall clock times devices. `unbeaten`: no other arm is at least as good in accuracy and in cost and better in one;
    None where that cannot be said."""

    images_per_second: float | None
    peak_memory: int | None
    hours: float | None
    device_hours: float | None
    parameters: int | None
    energy: float | None  # joules that a run's GPUs took
    unbeaten: bool | None = None


def costs(report: Report) -> dict[str, Cost]:
    """Every arm's cost. Nothing is called unbeaten where arms ran on other hardware or software, or fewer than
    two arms have both an accuracy and a cost."""
    found = {arm.name: _cost(arm) for arm in report.study.arms}
    points = points_of(report, found)
    if mixed(report) or len(points) < 2:
        return found
    best = unbeaten(points)
    return {name: replace(cost, unbeaten=best.get(name)) for name, cost in found.items()}


def points_of(report: Report, found: dict[str, Cost]) -> dict[str, tuple[float, float]]:
    """Arm -> mean of the first metric, and effort, of the arms that have both: device hours, or seconds an image where
    an arm's time is not on record."""
    summaries = report.answers[0].summaries if report.answers else {}
    means = {name: summaries[name].mean for name in found if name in summaries}
    timed = all(found[name].device_hours is not None for name, mean in means.items() if mean is not None)
    points = {}
    for name, mean in means.items():
        cost = found[name]
        speed = 1 / cost.images_per_second if cost.images_per_second else None
        effort = cost.device_hours if timed else speed
        if mean is not None and effort is not None:
            points[name] = mean, effort
    return points


def unbeaten(points: dict[str, tuple[float, float]]) -> dict[str, bool]:
    """Whether no other point has a higher or equal accuracy and a lower or equal effort, and one of them better
    (Pareto's front)."""
    return {
        name: not any(other[0] >= point[0] and other[1] <= point[1] and other != point for other in points.values())
        for name, point in points.items()
    }


def mixed(report: Report) -> list[str]:
    """The facts that decide speed and are not the same for all runs with a result."""
    return [fact.name for fact in facts(report.study) if fact.name in SPEED_FACTS and fact.mixed]


def notes(report: Report) -> list[str]:
    """What to know before costs are compared."""
    lines = []
    if names := mixed(report):
        lines.append(
            f"Runs differ in {', '.join(names)}: their speed, memory and time say nothing about the arms, and none is "
            "marked as unbeaten."
        )
    elif any(cost.unbeaten for cost in costs(report).values()):
        metric = report.answers[0].metric.replace("/", " ")
        lines.append(f"Unbeaten: no other arm has both as high a mean {metric} and as low a cost (device time).")
    return lines


def _cost(arm: Arm) -> Cost:
    done = [run for run in arm.runs if run.state == "completed"]
    speed = _mean([run.images_per_second for run in done or arm.runs])
    memory = max((run.peak_memory for run in arm.runs if run.peak_memory is not None), default=None)
    device_hours = _mean([run.hours * _devices(run) if run.hours is not None else None for run in done])
    counts = {run.provenance.get("parameters") for run in done} - {None}
    parameters = counts.pop() if len(counts) == 1 else None
    energy = _mean([run.energy for run in done])
    return Cost(speed, memory, _mean([run.hours for run in done]), device_hours, parameters, energy)


def _devices(run: RunRecord) -> int:
    found = run.provenance.get("processes", run.config.get("runtime.devices", 1))
    return found if isinstance(found, int) and found > 0 else 1


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
