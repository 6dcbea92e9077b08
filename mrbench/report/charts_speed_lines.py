"""Charts of benchmark records over a number: images per second by devices, memory by batch."""

from collections import defaultdict
from collections.abc import Sequence
from math import inf

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mrbench.bench.exporting import hardware_name
from mrbench.bench.record import Record
from mrbench.report.charts import DASHES, FAINT, PALETTE, arm_label
from mrbench.report.speed import PRECISIONS, Ours, group_name, measured

MARKERS = ("o", "s", "^", "D", "v", "P")
GIB = 2**30


def scaling(records: Sequence[Record]) -> Figure | None:
    """Images a second of N devices, with N times one as a dashed line."""
    lines: dict[str, dict[int, Ours]] = defaultdict(dict)
    # What one device does counts as measured in the same record as what several do.
    rows = measured(sorted(records, key=lambda record: -len({m.case.devices for m in record.measurements})))
    for row in rows:
        group = group_name(row.hardware, row.case, rows)
        name = f"{row.case.mode} {row.case.precision or ''}, batch {row.case.batch}, {group}"
        lines[name].setdefault(row.case.devices, row)
    lines = {name: points for name, points in lines.items() if len(points) > 1}
    if not lines:
        return None
    figure, ax = _axes("devices", "images per second", "How devices scale")
    held = ""
    for k, (name, points) in enumerate(lines.items()):
        counts = sorted(points)
        rates = [points[n].rate for n in counts]
        _line(ax, k, counts, rates, name)
        for n in counts:
            if interval := points[n].row.images_per_second.interval:  # type: ignore[union-attr]
                ax.plot([n, n], interval, color=PALETTE[k % len(PALETTE)], linewidth=1.3, solid_capstyle="butt")
                held = " (lines: 95 % intervals)"
        ideal = [rates[0] * n / counts[0] for n in counts]
        ax.plot(counts, ideal, color=FAINT, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1)
        ax.annotate(
            f"{100 * rates[-1] / ideal[-1]:.0f} %",
            (counts[-1], rates[-1]),
            (6, -3),
            textcoords="offset points",
            size=8,
        )
    ax.set_ylabel(f"images per second{held}")
    ax.set_xticks(sorted({n for points in lines.values() for n in points}))
    ax.margins(x=0.12)
    _below(figure, ax)
    return figure


def memory(records: Sequence[Record]) -> Figure | None:
    """Peak memory by batch, a line a precision: of the measured rows, and of what searches tried and fitted within
    their limit, a panel a limit."""
    panels: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    limits: dict[str, float] = {}
    rows = measured(records)
    for row in rows:
        peak = row.row.peak_memory.get("allocated", row.row.peak_memory.get("resident"))
        if peak is not None and row.case.devices == 1 and row.case.mode in ("train", "infer"):
            title = f"{row.case.mode}, {group_name(row.hardware, row.case, rows)}"
            panels[title][row.case.precision or ""][row.case.batch] = peak / GIB
    several = len({search.limit for record in records for search in record.searches}) > 1
    for record in records:
        for search in record.searches:
            group = group_name(hardware_name(record), search.case, rows)
            title = f"{search.case.mode}, {group}, search{', checkpointing' * search.checkpointing}"
            if several and search.limit is not None:
                title += f", {search.limit / GIB:.3g} GiB"
            for one in search.tries:
                if one.ended == "fits" and one.peak_memory is not None and one.peak_memory <= (search.limit or inf):
                    panels[title][search.case.precision or ""][one.batch] = one.peak_memory / GIB
            if search.limit is not None:
                limits[title] = search.limit / GIB
    shown = {title: lines for title, lines in panels.items() if any(len(points) > 1 for points in lines.values())}
    return _memory_panels(shown, limits) if shown else None


def _memory_panels(panels: dict[str, dict[str, dict[int, float]]], limits: dict[str, float]) -> Figure:
    columns = min(len(panels), 2)
    down = -(-len(panels) // columns)
    figure = Figure(figsize=(3.9 * columns + 0.4, 2.7 * down + 0.6), layout="constrained")
    axes = list(figure.subplots(down, columns, squeeze=False).flat)
    for ax in axes[len(panels) :]:
        ax.set_visible(False)
    used: dict[str, Line2D] = {}
    for ax, (title, lines) in zip(axes, panels.items(), strict=False):
        for precision, points in lines.items():
            batches, k = sorted(points), PRECISIONS.index(precision)
            used[precision] = _line(ax, k, batches, [points[n] for n in batches], precision)
        if title in limits:
            ax.axhline(limits[title], color=FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
            place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "size": 8}
            # on the left, where batches are small: on the right the line of a search ends at its limit
            ax.annotate(f"limit {limits[title]:.3g} GiB", (0, limits[title]), (4, -10), **place)
        ax.set_title(arm_label(title, 40), size=8.5)
        ax.set_xlabel("images a step")
        ax.set_ylabel("peak memory, GiB")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylim(0, 1.08 * ax.dataLim.y1)  # a margin of the data's own range may be next to nothing
        ax.grid()
        ax.set_axisbelow(True)
    figure.legend(handles=list(used.values()), loc="outside lower left", ncols=4, labelcolor=FAINT)
    return figure


def _axes(x: str, y: str, title: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    ax = figure.subplots()
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.set_title(title)
    ax.grid()
    ax.set_axisbelow(True)
    return figure, ax


def _line(ax: Axes, k: int, x: Sequence[float], y: Sequence[float], name: str) -> Line2D:
    colour = PALETTE[k % len(PALETTE)]
    dash, marker = DASHES[k // len(PALETTE) % len(DASHES)], MARKERS[k % len(MARKERS)]
    [line] = ax.plot(x, y, color=colour, linestyle=dash, marker=marker, markersize=4.5, linewidth=1.3, label=name)
    return line


def _below(figure: Figure, ax: Axes) -> None:
    ax.set_ylim(bottom=0)
    figure.legend(*ax.get_legend_handles_labels(), loc="outside lower left", ncols=1, labelcolor=FAINT)
