"""What a training logged, over its iterations: loss, learning rate and AP, an arm a line, over its seeds."""

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from mrbench.report import words
from mrbench.report.build import Report
from mrbench.report.charts import DASHES, PALETTE, Chart, arm_label, styled
from mrbench.report.collect import Arm

BAND_FROM = 2  # seeds
MOST_POINTS = 250  # of a line: more cannot be told apart, and make a page of megabytes

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Logged:
    """A quantity of metrics.jsonl: the kind of line that it stands on and its name there. `smooth`: by iteration it is
    too noisy to be read."""

    kind: str
    name: str
    title: str
    smooth: bool = False

    @property
    def caption(self) -> str:
        how = "mean over seeds; the band reaches from the lowest seed to the highest"
        return f"{self.title[0].upper()}{self.title[1:]} over iterations: {how}."

    @property
    def file(self) -> str:
        return f"curve-{self.name.replace('/', '-')}"


LOSS = Logged("train", "loss", "training loss", smooth=True)
RATE = Logged("train", "lr", "learning rate")


@dataclass(frozen=True)
class Line:
    """Iterations and at each the mean, the lowest and the highest over `seeds` seeds. Arms of equal values share it,
    as those of one schedule share their learning rate."""

    arms: tuple[str, ...]
    x: NDArray[np.integer]
    mean: Floats
    low: Floats
    high: Floats
    seeds: int

    def same_values(self, other: "Line") -> bool:
        return np.array_equal(self.x, other.x) and np.array_equal(self.mean, other.mean)


def quantities(report: Report) -> list[Logged]:
    """Loss and learning rate, and each metric of the report."""
    metrics = [answer.metric for answer in report.answers]
    return [LOSS, RATE, *(Logged("evaluation", metric, words.metric_name(metric)) for metric in metrics)]


def figures(report: Report) -> dict[str, Chart]:
    """All of them by the name of their file, with a caption; those that no run has two points of are left out."""
    found = {quantity.file: (curves(report, quantity), quantity.caption) for quantity in quantities(report)}
    return {name: Chart(figure, caption) for name, (figure, caption) in found.items() if figure is not None}


def curves(report: Report, quantity: Logged) -> Figure | None:
    """One quantity over iterations by arm. None where no run has two points of it."""
    lines: list[Line] = []
    for arm in report.study.arms:
        line = _line(arm, quantity)
        twin = next((i for i, other in enumerate(lines) if line and line.same_values(other)), None)
        if twin is not None:
            lines[twin] = replace(lines[twin], arms=(*lines[twin].arms, arm.name))
        elif line:
            lines.append(line)
    if not lines:
        return None
    with styled():
        labels = [arm_label(_label(line.arms), 26) for line in lines]
        columns = 2 if len(lines) > 3 else len(lines)
        legend = sum(0.16 + 0.13 * label.count("\n") for label in labels) / columns
        figure = Figure(figsize=(4.65, 2.7 + legend), layout="constrained")
        ax = figure.subplots()
        names = [arm.name for arm in report.study.arms]
        for line, label in zip(lines, labels, strict=True):
            place = names.index(line.arms[0])
            colour, dash = PALETTE[place % len(PALETTE)], DASHES[place % len(DASHES)]
            if line.seeds >= BAND_FROM:
                ax.fill_between(line.x, line.low, line.high, color=colour, alpha=0.16, linewidth=0)
            ax.plot(line.x, line.mean, color=colour, linestyle=dash, linewidth=1.6, label=label)
        ax.set_title(quantity.title)
        ax.set_xlabel("iteration")
        ax.grid(axis="y")
        ax.set_axisbelow(True)
        ax.margins(x=0.01)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        figure.legend(loc="outside lower center", ncols=columns, handlelength=2.6, columnspacing=1.4)
        if quantity is not LOSS:
            ax.set_ylim(bottom=0.0 if quantity is RATE else max(0.0, ax.get_ylim()[0]))
    return figure


def _label(arms: tuple[str, ...]) -> str:
    return (
        arms[0] if len(arms) == 1 else " and ".join(arms) if len(arms) == 2 else f"{arms[0]} and {len(arms) - 1} more"
    )


def _line(arm: Arm, quantity: Logged) -> Line | None:
    """Over the seeds at iterations that all have. None where no run has two points."""
    seeds = []
    for run in arm.runs:
        x, y = run.curve(quantity.kind, quantity.name)
        if len(x) > 1:
            seeds.append(dict(zip(x, _smooth(np.array(y)) if quantity.smooth else y, strict=True)))
    if not seeds:
        return None
    longest = max(max(seed) for seed in seeds)
    seeds = [seed for seed in seeds if max(seed) >= 0.5 * longest]  # a run that has just begun must not cut the rest
    common = sorted(set.intersection(*(set(seed) for seed in seeds)))
    if len(common) < 2:
        seeds = [max(seeds, key=len)]
        common = sorted(seeds[0])
    if len(common) > MOST_POINTS:
        common = [common[place] for place in np.linspace(0, len(common) - 1, MOST_POINTS).astype(int)]
    values = np.array([[seed[x] for x in common] for seed in seeds], dtype=float)
    return Line((arm.name,), np.array(common), values.mean(0), values.min(0), values.max(0), len(seeds))


def _smooth(y: Floats) -> Floats:
    """Running mean over a tenth of the points (fewer at the ends): single batches are noise."""
    half = len(y) // 20
    sums = np.concatenate([[0.0], np.cumsum(y)])
    index = np.arange(len(y))
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, len(y))
    return (sums[last] - sums[first]) / (last - first)
