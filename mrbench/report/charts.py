"""The report's charts (matplotlib, drawn without a display): AP by arm, and differences; and what all charts share.

Colours are Okabe and Ito's, which the colour-blind tell apart; what a colour says is said by shape or filling too,
so that a print in grey can be read. Every function returns a figure; `Chart` holds it, `save` and `inline_svg` put
it out.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from mrbench.report import words
from mrbench.report.build import Answer, Report
from mrbench.report.statistics import BETTER, WORSE
from mrbench.runs.files import replacing, write_text

INK, FAINT, RULE = "#1b1f24", "#59636e", "#d8dee4"
BLUE, VERMILION = "#0072b2", "#d55e00"
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")  # Okabe & Ito, without yellow and black
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.3)), (0, (6, 1.5, 1, 1.5)))
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": FAINT,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 9,
    "grid.color": RULE,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "svg.fonttype": "none",  # text stays text: to be read aloud, searched, and drawn in the page's colours
    "svg.hashsalt": "mrbench",  # the same numbers give the same file
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
}


@contextmanager
def styled() -> Iterator[None]:
    with matplotlib.rc_context(STYLE):
        yield


@dataclass(frozen=True)
class Chart:
    """A figure with its caption. It is drawn as SVG once, however many files and pages have it."""

    figure: Figure
    caption: str

    @cached_property
    def svg(self) -> str:
        """A file of its own."""
        stream = io.StringIO()
        with styled():
            _lay_out(self.figure)
            self.figure.savefig(stream, format="svg", metadata={"Date": None})
        return stream.getvalue()


def arm_label(name: str, width: int = 22) -> str:
    """The name on several lines where it is long, broken after `_`, `-`, `=`, `/` or a space if it can be."""
    pieces = re.findall(r"[^_\-=/ ]*[_\-=/ ]|[^_\-=/ ]+$", name)
    lines = [""]
    for piece in pieces:
        if lines[-1] and len(lines[-1]) + len(piece) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(part for line in lines for part in textwrap.wrap(line, width, break_on_hyphens=False)) or name


def _rows(
    report: Report, arms: Sequence[str], answers: Sequence[Answer], row_height: float
) -> tuple[Figure, list[Axes]]:
    """A panel a metric, side by side, one line an arm from the top down; arm names once, at the left."""
    lines = sum(1 + 0.45 * arm_label(arm).count("\n") for arm in arms)
    figure = Figure(figsize=(1.7 + 2.95 * len(answers), 1.0 + row_height * lines), layout="constrained")
    axes = list(np.atleast_1d(figure.subplots(1, len(answers), sharey=True, squeeze=True)))
    for ax, answer in zip(axes, answers, strict=True):
        ax.set_title(words.metric_name(answer.metric))
        ax.set_yticks(range(len(arms)), [arm_label(arm) for arm in arms])
        ax.set_ylim(len(arms) - 0.4, -0.6)
        ax.tick_params(axis="y", length=0, pad=6)  # off a mark at 0
        ax.spines["left"].set_visible(False)
        ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        ax.grid(axis="x")
        ax.set_axisbelow(True)
    return figure, axes


def accuracy(report: Report, answers: Sequence[Answer] | None = None) -> Figure:
    """Score by arm: mean with its 95 % interval, every seed as a point, the baseline's mean as a line through all."""
    answers = report.answers if answers is None else answers
    with styled():
        arms = [arm.name for arm in report.study.arms]
        figure, axes = _rows(report, arms, answers, 0.4)
        for ax, answer in zip(axes, answers, strict=True):
            _accuracy_panel(ax, report, answer)
        keys = [Line2D([], [], marker="o", color=BLUE, linewidth=2, markersize=6.5, label="mean, 95 % interval")]
        keys.append(Line2D([], [], marker="|", color=BLUE, linewidth=0, markersize=6, label="one seed"))
        if any(line.get_marker() == "s" for ax in axes for line in ax.lines):
            keys.append(
                Line2D([], [], marker="s", color=VERMILION, markerfacecolor="none", linewidth=0, label="published")
            )
        figure.legend(handles=keys, loc="outside lower left", ncols=3, columnspacing=1.4, labelcolor=FAINT)
    return figure


def _accuracy_panel(ax: Axes, report: Report, answer: Answer) -> None:
    baseline = answer.summaries[report.study.baseline].mean
    if baseline is not None:
        ax.axvline(baseline, color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)), zorder=1)
    for y, arm in enumerate(report.study.arms):
        found = answer.summaries[arm.name]
        base = arm.name == report.study.baseline
        colour = INK if base else BLUE
        if found.mean is None:
            _no_result(ax, y)
            continue
        if found.limits:
            ax.plot(found.limits, [y, y], color=colour, linewidth=2, solid_capstyle="butt")
        ax.plot(found.mean, y, "D" if base else "o", color=colour, markersize=6.5, zorder=4, clip_on=False)
        seeds = list(arm.scores(answer.metric).values())
        if len(seeds) > 1:
            place = [y + 0.26] * len(seeds)
            ax.plot(seeds, place, "|", color=colour, markersize=5, markeredgewidth=1.1, clip_on=False)
    ax.margins(x=0.06)
    low, high = ax.get_xlim()
    if high - low < 1:  # an axis over tenths of a point would make noise look like news
        middle = max((low + high) / 2, 0.5)
        ax.set_xlim(middle - 0.5, middle + 0.5)
    near = [value for value in answer.published.values() if low - (high - low) / 2 < value < high + (high - low) / 2]
    for y, arm in enumerate(report.study.arms):
        if answer.published.get(arm.name) in near:  # one far away would press all the rest together
            ax.plot(answer.published[arm.name], y, "s", color=VERMILION, markerfacecolor="none", markersize=6.5)
    ax.set_xlim(left=max(ax.get_xlim()[0], 0.0))  # no score is negative


def _no_result(ax: Axes, y: int) -> None:
    clear = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    ax.text(0.02, y, "no result", transform=ax.get_yaxis_transform(), va="center", color=FAINT, size=8, bbox=clear)


def differences(report: Report, answers: Sequence[Answer] | None = None) -> Figure:
    """Forest plot: each arm less the baseline with its 95 % interval; filled where it is decided, hollow where not."""
    answers = report.answers if answers is None else answers
    with styled():
        figure, axes = _rows(report, report.challengers, answers, 0.44)
        for ax, answer in zip(axes, answers, strict=True):
            ax.axvline(0, color=INK, linewidth=0.9, zorder=1)
            for y, arm in enumerate(report.challengers):
                _difference_row(ax, y, answer, arm)
            low, high = ax.get_xlim()
            reach = max(abs(low), abs(high), 0.5)
            ax.set_xlim(min(low, -0.15 * reach), max(high, 0.15 * reach))
            ax.xaxis.set_major_formatter(FuncFormatter(signed_tick))
            ax.set_xlabel(f"points, against {textwrap.shorten(report.study.baseline, 24, placeholder='…')}")
    return figure


def signed_tick(value: float, _: int | None = None) -> str:
    text = f"{value:+g}".replace("-", "−")
    return "0" if value == 0 else text


def _difference_row(ax: Axes, y: int, answer: Answer, arm: str) -> None:
    found = answer.differences[arm]
    if found.mean is None:
        _no_result(ax, y)
        return
    decided = found.decision in (BETTER, WORSE)
    colour = {BETTER: BLUE, WORSE: VERMILION}.get(found.decision, FAINT)
    marker = {BETTER: ">", WORSE: "<"}.get(found.decision, "o")
    if found.interval:
        limits = [found.interval.low, found.interval.high]
        ax.plot(limits, [y, y], color=colour, linewidth=2, solid_capstyle="butt", zorder=2)
    fill = colour if decided else "white"
    ax.plot(found.mean, y, marker, color=colour, markerfacecolor=fill, markersize=7, markeredgewidth=1.4, zorder=3)
    ax.text(
        *(1.03, y, words.difference(found, answer.digits)),
        transform=ax.get_yaxis_transform(),
        va="center",
        size=8,
        color=INK if decided else FAINT,
    )


def save(chart: Chart, path: Path) -> None:
    """Writes `path` with the suffixes .svg and .png (200 dots an inch), each whole or not at all."""
    write_text(path.with_suffix(".svg"), chart.svg)
    with styled(), replacing(path.with_suffix(".png")) as temporary:
        chart.figure.savefig(temporary, format="png", dpi=200)


def _lay_out(figure: Figure) -> None:
    """Gives everything its place, for good: otherwise each file is laid out anew, which takes longer than drawing."""
    if figure.get_layout_engine() is not None:
        figure.draw_without_rendering()
        figure.set_layout_engine(None)


def inline_svg(chart: Chart, name: str, description: str) -> str:
    """The chart as an <svg> element for a page: ids of its own, colours from the page's variables, no links."""
    text = chart.svg[chart.svg.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\s(xmlns(:\w+)?|version)="[^"]*"', "", text)
    text = text.replace("xlink:href", "href")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    series = [(colour, f"series{place}") for place, colour in enumerate(PALETTE)]
    for colour, variable in ((INK, "ink"), (FAINT, "faint"), (RULE, "rule"), ("#ffffff", "paper"), *series):
        text = re.sub(rf"(fill|stroke): {colour}\b", rf"\1: var(--{variable})", text)
    text = re.sub(r"font: ([\d.]+px) [^;\"]+", r"font-size: \1", text)
    width, height = re.search(r'width="([\d.]+)pt"', text), re.search(r'height="([\d.]+)pt"', text)
    if width and height:
        text = text.replace(f" {width[0]}", "", 1).replace(f" {height[0]}", "", 1)
        text = text.replace("<svg", f'<svg style="max-width: {float(width[1]) * 1.333:.0f}px"', 1)
    label = description.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1).strip()
