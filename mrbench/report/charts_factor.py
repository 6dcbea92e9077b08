"""AP against a setting that is a number: a line for each set of arms that differ in nothing else."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from matplotlib.transforms import ScaledTranslation

from mrbench.report import words
from mrbench.report.build import Answer, Report
from mrbench.report.charts import DASHES, PALETTE, VERMILION, Chart, arm_label, styled
from mrbench.report.factors import Factor, Series, factors

MARKERS = "oD^vPX"  # squares are published values
SPREAD = 4  # points between the lines at one value, whose intervals would cover each other
LOG_FROM = 8  # largest over smallest value
APART = 0.07  # of the axis, between two labels below it


def figures(report: Report) -> dict[str, Chart]:
    """One for each factor by the name of its file, with a caption."""
    found = {}
    for one in factors(report.study):
        caption = (
            f"AP against {one.title}: means over seeds with 95 % intervals. Lines join arms that differ in it alone."
        )
        if any(_answered(report, one)):
            found[f"factor-{one.key.replace('.', '-')}"] = Chart(factor(report, one), caption)
    return found


def _answered(report: Report, found: Factor) -> list[bool]:
    arms = [arm for line in found.series for _, arm in line.points]
    return [any(answer.summaries[arm].mean is not None for arm in arms) for answer in report.answers]


def factor(report: Report, found: Factor) -> Figure:
    """A panel a metric, with published values as squares where they are near enough to be shown."""
    with styled():
        labels = [arm_label(line.label, 34) for line in found.series]
        several = len(found.series) > 1
        legend = sum(0.17 + 0.13 * label.count("\n") for label in labels) if several else 0.1
        panels = len(report.answers)
        figure = Figure(figsize=(max(4.65, 2.75 * panels), 2.5 + legend), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        keys: dict[str, Line2D] = {}
        for ax, answer in zip(axes, report.answers, strict=True):
            for place, line in enumerate(found.series):
                if drawn := _draw_series(ax, answer, line, place, len(found.series)):
                    keys.setdefault(labels[place], drawn)
            if _published(ax, answer, found):
                keys["published"] = Line2D(
                    [], [], marker="s", color=VERMILION, markerfacecolor="none", linewidth=0, label="published"
                )
            ax.set_title(words.metric_name(answer.metric))
            ax.set_xlabel(arm_label(found.title, 30))
            ax.grid(axis="y")
            ax.set_axisbelow(True)
            _values_below(ax, sorted({value for line in found.series for value, _ in line.points}))
        shown = {label: handle for label, handle in keys.items() if label}
        if shown and (several or "published" in shown):
            figure.legend(list(shown.values()), list(shown), loc="outside lower left", handlelength=2.6)
    return figure


def _draw_series(ax: Axes, answer: Answer, line: Series, place: int, series: int) -> Line2D | None:
    found = [(value, answer.summaries[arm]) for value, arm in line.points]
    known = [(value, summary) for value, summary in found if summary.mean is not None]
    if not known:
        return None
    colour = PALETTE[place % len(PALETTE)]
    aside = ScaledTranslation(SPREAD * (place - (series - 1) / 2) / 72, 0, ax.figure.dpi_scale_trans)
    moved = ax.transData + aside
    style = {"linestyle": DASHES[place % len(DASHES)], "marker": MARKERS[place % len(MARKERS)]}
    x, y = [value for value, _ in known], [summary.mean for _, summary in known]
    drawn = ax.plot(x, np.array(y, float), color=colour, linewidth=1.6, markersize=5.5, **style)[0]
    held = [(value, summary.limits) for value, summary in known if summary.limits]
    bars = [ax.plot([x, x], limits, color=colour, linewidth=1.2)[0] for x, limits in held]
    for mark in (drawn, *bars):  # after drawing: the axes' limits do not see what is moved aside
        mark.set_transform(moved)
    return drawn


def _published(ax: Axes, answer: Answer, found: Factor) -> bool:
    """Whether any is drawn. One far from ours would press all the rest together."""
    low, high = ax.get_ylim()
    reach = max(high - low, 1.0) / 2
    points = [
        (value, answer.published[arm])
        for line in found.series
        for value, arm in line.points
        if arm in answer.published
    ]
    near = [(x, y) for x, y in points if low - reach < y < high + reach]
    for x, y in near:
        ax.plot(x, y, "s", color=VERMILION, markerfacecolor="none", markersize=6.5)
    return bool(near)


def _values_below(ax: Axes, values: list[float]) -> None:
    """The values that the arms have are the axis's marks; those that would overlap the one before are left out."""
    if values[0] > 0 and values[-1] / values[0] >= LOG_FROM:
        ax.set_xscale("log")
    ax.margins(x=0.08)
    low, high = ax.transData.transform([(values[0], 0), (values[-1], 0)])[:, 0] if len(values) > 1 else (0, 1)
    shown: list[float] = []
    last = -np.inf
    for value in values:
        at = (ax.transData.transform((value, 0))[0] - low) / max(high - low, 1e-9)
        if at - last >= APART * (1 + len(f"{value:,g}") / 3):
            shown.append(value)
            last = at
    ax.xaxis.set_major_locator(FixedLocator(shown))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}" if value < 1e4 else f"{value:,.0f}"))
