"""Where an arm differs: kinds of error, object sizes, IoU thresholds, classes; each against the baseline over seeds.

The numbers are the runs' own (evaluation.json; AP at IoU thresholds also from matches.npz), the statistics those of
the main table: paired over seeds, and over test images where matches allow it. Errors have no bootstrap over images.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mrbench.report import statistics
from mrbench.report.collect import Study
from mrbench.report.images import Sampler
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import BETTER, WORSE, Difference, Summary

ERRORS = ("classification", "localisation", "both", "duplicate", "background", "missed")
TOTALS = ("false_positive", "false_negative")
SIZES = {"APs": "small", "APm": "medium", "APl": "large"}
THRESHOLDS = tuple(f"{percent / 100:.2f}" for percent in range(50, 100, 5))
WITH_CLASSES = ("box", "mask", "keypoint")  # kinds of detections; proposals have neither classes nor errors
SECTIONS = ("errors", "sizes", "thresholds", "classes")
MOST_CHANGED = 10  # classes at either end


@dataclass(frozen=True)
class Quantity:
    """One number of every arm: the cost of an error, AP of a size, a threshold or a class. `metric` is what
    `RunRecord.score` knows it by; `differences` has every arm but the baseline."""

    name: str
    metric: str
    summaries: dict[str, Summary]
    differences: dict[str, Difference]


@dataclass(frozen=True)
class Section:
    """One of `SECTIONS` for boxes, masks or keypoints; at least one arm has each quantity."""

    name: str
    kind: str
    quantities: tuple[Quantity, ...]

    def changed(self, arm: str) -> tuple[list[Quantity], list[Quantity]]:
        """The quantities that fell and those that rose most against the baseline, at most `MOST_CHANGED` each, the
        largest change first. No quantity is in both; those without a difference are in none."""
        known = {item.name: mean for item in self.quantities if (mean := item.differences[arm].mean) is not None}
        ranked = sorted((item for item in self.quantities if item.name in known), key=lambda item: known[item.name])
        fell = [item for item in ranked if known[item.name] < 0][:MOST_CHANGED]
        rose = [item for item in reversed(ranked) if known[item.name] > 0][:MOST_CHANGED]
        return fell, rose


@dataclass(frozen=True)
class Gap:
    """These of the `evaluated` runs have no numbers of a section on record."""

    section: str
    kind: str
    runs: tuple[str, ...]
    evaluated: int


@dataclass(frozen=True)
class Detail:
    """The sections that have numbers, and what evaluated runs lack."""

    sections: tuple[Section, ...]
    missing: tuple[Gap, ...]

    def section(self, name: str, kind: str) -> Section | None:
        return next((found for found in self.sections if (found.name, found.kind) == (name, kind)), None)


def build(study: Study, sampler: Sampler) -> Detail:
    """The breakdown of the kinds (box, mask, keypoint) that the study's metrics name."""
    kinds = dict.fromkeys(metric.partition("/")[0] for metric in study.metrics)
    sections: list[Section] = []
    missing: list[Gap] = []
    for name in SECTIONS:
        for kind in kinds:
            names = _names(study, name, kind)
            found = [_quantity(study, title, metric, sampler) for title, metric in names.items()]
            known = [item for item in found if any(summary.n for summary in item.summaries.values())]
            if known:
                sections.append(Section(name, kind, _decided(known, costs=name == "errors")))
            missing += _missing(study, name, kind, list(names.values()))
    return Detail(tuple(sections), tuple(missing))


def _names(study: Study, section: str, kind: str) -> dict[str, str]:
    """Quantity -> the metric of a run that it is."""
    if section == "sizes":
        return {title: f"{kind}/{name}" for name, title in SIZES.items()}
    if kind not in WITH_CLASSES:
        return {}
    if section == "errors":
        return {name: f"{kind}/cost/{name}" for name in (*ERRORS, *TOTALS)} if kind != "keypoint" else {}
    if section == "thresholds":
        return {name: f"{kind}/AP@{name}" for name in THRESHOLDS}
    start = f"{kind}/AP/"
    found = dict.fromkeys(name for run in study.runs for name in run.details if name.startswith(start))
    return {name.removeprefix(start): name for name in found} if len(found) > 1 else {}


def _quantity(study: Study, title: str, metric: str, sampler: Sampler) -> Quantity:
    scores = {arm.name: arm.scores(metric) for arm in study.arms}
    noise = statistics.noise_of(scores)
    base = study.baseline
    return Quantity(
        title,
        metric,
        {
            name: statistics.summarise(own, noise, sampler.of_mean(metric, name, tuple(own)))
            for name, own in scores.items()
        },
        {
            name: statistics.compare(own, scores[base], noise, sampler.of_difference(metric, name, base))
            for name, own in scores.items()
            if name != base
        },
    )


def _decided(quantities: Sequence[Quantity], costs: bool) -> tuple[Quantity, ...]:
    """The quantities of a section decided together, arm by arm: of many classes some change a lot by chance. Of
    `costs` less is better."""
    found = {item.name: dict(item.differences) for item in quantities}
    nothing_else = statistics.noise_of({})
    turned = {BETTER: WORSE, WORSE: BETTER} if costs else {}
    for arm in quantities[0].differences:
        together = statistics.decide({item.name: item.differences[arm] for item in quantities}, nothing_else)
        for name, difference in together.items():
            found[name][arm] = replace(difference, decision=turned.get(difference.decision, difference.decision))
    return tuple(replace(item, differences=found[item.name]) for item in quantities)


def _missing(study: Study, section: str, kind: str, metrics: Sequence[str]) -> list[Gap]:
    """Which evaluated runs have none of the section's numbers."""
    if section == "sizes" or kind not in WITH_CLASSES or (section == "errors" and kind == "keypoint"):
        return []
    evaluated = [run for run in study.runs if run.state == "completed" and f"{kind}/AP" in run.metrics]
    without = [run for run in evaluated if not _has(run, section, kind, metrics)]
    if not without:
        return []
    return [Gap(section, kind, tuple(str(run.run_id) for run in without), len(evaluated))]


def _has(run: RunRecord, section: str, kind: str, metrics: Sequence[str]) -> bool:
    if section == "classes":
        return any(name.startswith(f"{kind}/AP/") for name in run.details)
    return any(run.score(metric) is not None for metric in metrics)
