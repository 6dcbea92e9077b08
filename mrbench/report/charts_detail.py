"""Charts of the breakdown: what errors cost, AP against the IoU threshold, the classes that changed most.

Looks and conventions are those of `charts.py`: filled where a change is decided, hollow where it is not.
"""

import re
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mrbench.report import words
from mrbench.report.build import Report
from mrbench.report.charts import (
    BLUE,
    DASHES,
    FAINT,
    INK,
    PALETTE,
    RULE,
    VERMILION,
    Chart,
    arm_label,
    signed_tick,
    styled,
)
from mrbench.report.collect import Arm
from mrbench.report.detail import ERRORS, Quantity, Section
from mrbench.report.detail_table import SHORT, classes_shown
from mrbench.report.statistics import BETTER, WORSE, Difference

COLUMNS = 2  # of panels: small enough for a phone
BANDS_UP_TO = 3  # arms: more would cover each other
CLASSES_OF = 6  # arms that have a chart of their classes; the table has all


def errors(report: Report, kind: str) -> Figure | None:
    """A panel for each category of error, a bar for each arm, with its change against the baseline. None without."""
    section = report.detail.section("errors", kind)
    if section is None:
        return None
    own = [item for item in section.quantities if item.name in ERRORS]
    arms = [arm.name for arm in report.study.arms]
    with styled():
        lines = sum(1 + 0.45 * arm_label(arm).count("\n") for arm in arms)
        rows = -(-len(own) // COLUMNS)
        figure = Figure(figsize=(1.7 + 1.75 * COLUMNS, 0.6 + rows * (0.55 + 0.3 * lines)), layout="constrained")
        axes = figure.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False).ravel()
        means = [found.mean or 0.0 for item in own for found in item.summaries.values()]
        top = max([*means, *(score for item in own for arm in report.study.arms for score in _seeds(arm, item))])
        for ax, item in zip(axes, own, strict=False):
            _error_panel(ax, report, item, top)
        for ax in axes[len(own) :]:
            ax.set_visible(False)
        for ax in axes[-COLUMNS:]:
            ax.set_xlabel(f"points of {kind} AP50")
        if report.challengers:
            figure.legend(
                handles=_error_keys(report), loc="outside lower left", ncols=3, columnspacing=1.2, labelcolor=FAINT
            )
    return figure


def _error_panel(ax: Axes, report: Report, item: Quantity, top: float) -> None:
    ax.set_title(f"{SHORT[item.name]}: {'place and class' if item.name == 'both' else item.name}")
    arms = report.study.arms
    for y, arm in enumerate(arms):
        found, change = item.summaries[arm.name], item.differences.get(arm.name)
        if found.mean is None:
            ax.text(0.02 * top, y, "no result", va="center", color=FAINT, size=8)
            continue
        colour, fill = _colours(change)
        hatch = "////" if fill == VERMILION else None  # for a print in grey
        edge = "white" if hatch else colour
        ax.barh(y, found.mean, 0.62, facecolor=fill, edgecolor=edge, linewidth=0 if hatch else 1.1, hatch=hatch)
        seeds = _seeds(arm, item)
        if len(seeds) > 1:
            ax.plot(seeds, [y] * len(seeds), "|", color=INK, markersize=5, markeredgewidth=0.9)
        text = words.number(found.mean, 1) if change is None else words.signed(change.mean, 1)
        ink = INK if fill != "white" else FAINT
        ax.text(max([found.mean, *seeds]) + 0.03 * top, y, text, va="center", size=8, color=ink)
    ax.set_yticks(range(len(arms)), [arm_label(arm.name) for arm in arms])
    ax.set_ylim(len(arms) - 0.4, -0.6)
    ax.set_xlim(0, 1.35 * top or 1.0)
    ax.tick_params(axis="y", length=0)
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def _seeds(arm: Arm, item: Quantity) -> list[float]:
    return list(arm.scores(item.metric).values())


def _colours(change: Difference | None) -> tuple[str, str]:
    """Of the edge and the inside of a bar."""
    if change is None:
        return FAINT, RULE
    colour = {BETTER: BLUE, WORSE: VERMILION}.get(change.decision)
    return (colour, colour) if colour else (FAINT, "white")


def _error_keys(report: Report) -> list[Patch | Line2D]:
    return [
        Patch(facecolor=RULE, edgecolor=FAINT, label=report.study.baseline),
        Patch(facecolor=BLUE, edgecolor=BLUE, label="costs less"),
        Patch(facecolor=VERMILION, edgecolor="white", linewidth=0, hatch="////", label="costs more"),
        Patch(facecolor="white", edgecolor=FAINT, label="undecided"),
        Line2D([], [], marker="|", color=INK, linewidth=0, markersize=6, label="one seed"),
    ]


def thresholds(report: Report, kind: str) -> Figure | None:
    """AP against the IoU threshold: levels, and changes against the baseline. None where no run has it."""
    section = report.detail.section("thresholds", kind)
    if section is None:
        return None
    with styled():
        panels = 2 if _has_changes(report, section) else 1
        labels = [arm_label(arm.name, 26) for arm in report.study.arms]
        columns = panels * (2 if max(map(len, labels)) <= 8 else 1)
        legend = sum(0.18 + 0.14 * label.count("\n") for label in labels) / columns + 0.1
        figure = Figure(figsize=(2.5 * panels if panels > 1 else 3.6, 2.4 + legend), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for place, arm in enumerate(report.study.arms):
            style = {"color": PALETTE[place % len(PALETTE)], "linestyle": DASHES[place % len(DASHES)]}
            levels = [(float(item.name), item.summaries[arm.name].mean) for item in section.quantities]
            _line(axes[0], levels, label=labels[place], **style)
            if panels == 2 and arm.name in report.challengers:
                _change_line(axes[1], report, section, arm.name, style)
        axes[0].set_title(f"{kind} AP")
        axes[0].set_ylim(bottom=0)
        if panels == 2:
            axes[1].set_title(f"less {report.study.baseline}")
            axes[1].axhline(0, color=INK, linewidth=0.9, zorder=1)
            axes[1].yaxis.set_major_formatter(FuncFormatter(signed_tick))
        for ax in axes:
            ax.set_xlabel("IoU threshold")
            ax.grid(axis="y")
            ax.set_axisbelow(True)
            ax.xaxis.set_major_locator(MaxNLocator(5))
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=columns, handlelength=2.6)
    return figure


def _has_changes(report: Report, section: Section) -> bool:
    return any(item.differences[arm].mean is not None for item in section.quantities for arm in report.challengers)


def _line(ax: Axes, points: list[tuple[float, float | None]], **style: Any) -> None:
    known = [(x, y) for x, y in points if y is not None]
    if known:
        ax.plot(*zip(*known, strict=True), linewidth=1.6, **style)


def _change_line(ax: Axes, report: Report, section: Section, arm: str, style: dict[str, Any]) -> None:
    found = [(float(item.name), item.differences[arm]) for item in section.quantities]
    _line(ax, [(x, difference.mean) for x, difference in found], **style)
    held = [(x, difference.interval) for x, difference in found if difference.interval]
    if held and len(report.challengers) <= BANDS_UP_TO:
        x = [place for place, _ in held]
        low, high = [i.low for _, i in held if i], [i.high for _, i in held if i]
        ax.fill_between(x, low, high, color=style["color"], alpha=0.13, linewidth=0)


def classes(report: Report, arm: str, kind: str) -> Figure | None:
    """The classes that changed most against the baseline, with their intervals. None where there are none."""
    shown = classes_shown(report, arm, kind)
    if not shown:
        return None
    with styled():
        figure = Figure(figsize=(4.65, 1.0 + 0.2 * len(shown)), layout="constrained")
        ax = figure.subplots()
        ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for y, item in enumerate(shown):
            _class_row(ax, y, item.differences[arm])
        ax.set_yticks(range(len(shown)), [arm_label(item.name, 24).replace("\n", " ") for item in shown])
        ax.set_ylim(len(shown) - 0.4, -0.6)
        ax.set_title(f"{kind} AP by class: {arm_label(arm, 30)}")
        ax.set_xlabel(f"points, against {report.study.baseline}")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_formatter(FuncFormatter(signed_tick))
        ax.grid(axis="x")
        ax.set_axisbelow(True)
    return figure


def _class_row(ax: Axes, y: int, found: Difference) -> None:
    colour = {BETTER: BLUE, WORSE: VERMILION}.get(found.decision, FAINT)
    marker = {BETTER: ">", WORSE: "<"}.get(found.decision, "o")
    if found.interval:
        ax.plot([found.interval.low, found.interval.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    if found.mean is None:
        return
    fill = "white" if marker == "o" else colour
    ax.plot(found.mean, y, marker, color=colour, markerfacecolor=fill, markersize=5.5, markeredgewidth=1.2, zorder=3)


def figures(report: Report) -> dict[str, Chart]:
    """All of them by the name of their file. Classes are those of the first arms."""
    kinds = list(dict.fromkeys(section.kind for section in report.detail.sections))
    base = report.study.baseline
    found: dict[str, tuple[Figure | None, str]] = {}
    for kind in kinds:
        caption = f"What each kind of error costs, in points of {kind} AP50: means over seeds. Filled: decided."
        found[f"errors-{kind}"] = (errors(report, kind), caption)
    for kind in kinds:
        bands = " Bands: 95 % intervals." if len(report.challengers) <= BANDS_UP_TO else ""
        caption = f"{kind} AP by IoU threshold: means over seeds.{bands}"
        found[f"thresholds-{kind}"] = (thresholds(report, kind), caption)
    for place, arm in enumerate(report.challengers[:CLASSES_OF], 1):
        for kind in kinds:
            name = f"classes-{kind}-{place}-{re.sub(r'[^A-Za-z0-9._]+', '_', arm)[:30]}"
            caption = f"{arm}: classes whose {kind} AP rose or fell most against {base}, with 95 % intervals."
            found[name] = (classes(report, arm, kind), caption)
    return {name: Chart(figure, caption) for name, (figure, caption) in found.items() if figure is not None}
