"""Charts of benchmark records: all of them, and those of bars: images per second, largest batch, parts of a step,
and the literature beside ours."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mrbench.bench.exporting import PARTS, hardware_name
from mrbench.bench.matrix import Case
from mrbench.bench.record import Record
from mrbench.report.charts import BLUE, FAINT, INK, PALETTE, Chart, arm_label, styled
from mrbench.report.charts_speed_lines import memory, scaling
from mrbench.report.speed import PRECISIONS, best, comparable, group_name, measured, published, typical

HATCHES = ("", "///", "...", "xxx")
PER_GPU = 0.62  # of a group's height that its bars take
PART_COLOURS = (FAINT, *PALETTE, INK, "#b8c0c8")

Bar = tuple[float, list[float] | None, str]  # value, its 95 % interval, a note
Bars = dict[str, dict[str, Bar]]  # group -> precision -> bar


def figures(records: Sequence[Record]) -> dict[str, Chart]:
    """Every chart that has something to show, by its file's name, with a description."""
    makers: dict[str, tuple[Callable[[Sequence[Record]], Figure | None], str]] = {
        "throughput": (
            throughput,
            "images per second by GPU and precision, with 95 % intervals where there are blocks enough",
        ),
        "largest_batch": (largest_batch, "the largest batch by GPU and precision"),
        "scaling": (scaling, "images per second against the number of devices"),
        "memory": (memory, "peak memory against the batch"),
        "split": (split, "where the time of a timed step goes, in the shares of the steps that were taken apart"),
        "published": (beside_published, "images per second and GPU, published and ours"),
    }
    found = {}
    with styled():
        for name, (make, description) in makers.items():
            figure = make(records)
            if figure is not None:
                found[name] = Chart(figure, description)
    return found


def throughput(records: Sequence[Record]) -> Figure | None:
    """The best batch of each GPU and precision, a panel a mode."""
    rows = best(measured(records))
    panels: dict[str, Bars] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        rate = row.row.images_per_second
        assert rate is not None
        precision = row.case.precision or ""
        panels[row.case.mode][group_name(row.hardware, row.case, rows)][precision] = (
            rate.mean,
            rate.interval,
            f"{_short(rate.mean)}  (batch {row.case.batch})",
        )
    held = " (lines: 95 % intervals)" if any(row.row.images_per_second.interval for row in rows) else ""  # type: ignore[union-attr]
    titles = {mode: f"{mode}: images per second, more is better{held}" for mode in panels}
    return _bars({titles[mode]: bars for mode, bars in panels.items()})


def largest_batch(records: Sequence[Record]) -> Figure | None:
    """What fits, by GPU and precision; with activation checkpointing apart."""
    bars: Bars = defaultdict(dict)
    every = measured(records)
    for record in records:
        for search in record.searches:
            if search.largest is not None:
                group = group_name(hardware_name(record), search.case, every)
                name = f"{search.case.mode}, {group}{', checkpointing' * search.checkpointing}"
                bars[name][search.case.precision or ""] = (search.largest, None, str(search.largest))
    return _bars({"images in the largest batch": bars}) if bars else None


def _bars(panels: dict[str, Bars]) -> Figure | None:
    """Panels below each other: horizontal bars by group, a bar a precision."""
    if not panels:
        return None
    heights = [sum(0.28 + 0.24 * len(of) for of in bars.values()) for bars in panels.values()]
    figure = Figure(figsize=(7.2, 0.6 + sum(heights) + 0.55 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[h + 0.1 for h in heights])[:, 0]
    used: set[str] = set()
    for ax, (title, bars) in zip(axes, panels.items(), strict=True):
        place, ticks = 0.0, []
        for of in bars.values():
            first = place
            for precision in sorted(of, key=lambda name: (*PRECISIONS, "").index(name)):
                value, interval, note = of[precision]
                used.add(precision)
                kind = PRECISIONS.index(precision) if precision else 0
                colour = PALETTE[kind] if precision else FAINT
                ax.barh(place, value, 0.86, color=colour, hatch=HATCHES[kind], edgecolor="white")
                if interval:
                    ax.plot(interval, [place, place], color=INK, linewidth=1.5, solid_capstyle="butt")
                end = interval[1] if interval else value
                ax.annotate(note, (end, place), (4, 0), textcoords="offset points", va="center", size=8)
                place += 1
            ticks.append((first + place - 1) / 2)
            place += 0.7
        ax.set_yticks(ticks, [arm_label(name, 30) for name in bars])
        ax.invert_yaxis()
        ax.set_title(title)
        ax.margins(x=0.2)
        ax.set_xlim(left=0)
        _plain(ax)
    keys = [Patch(facecolor=PALETTE[k], hatch=HATCHES[k], edgecolor="white", label=name) for k, name in _shown(used)]
    if keys:
        figure.legend(handles=keys, loc="outside lower left", ncols=4, labelcolor=FAINT)
    return figure


def _shown(used: set[str]) -> list[tuple[int, str]]:
    return [(k, name) for k, name in enumerate(PRECISIONS) if name in used]


def _plain(ax: Axes) -> None:
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="x")
    ax.set_axisbelow(True)


def split(records: Sequence[Record]) -> Figure | None:
    """The parts of a step as stacked bars, milliseconds an image. The steps that are taken apart are not the timed
    ones and can be slower: the bar is as long as the median of those, and shared out as these were.
    """
    rows = [row for row in best(measured(records)) if row.row.split is not None]
    if not rows:
        return None
    figure = Figure(figsize=(7.2, 1.5 + 0.42 * len(rows)), layout="constrained")
    ax = figure.subplots()
    seen: list[str] = []
    for y, row in enumerate(rows):
        found, timed, left = row.row.split, row.row.step_seconds, 0.0
        assert found is not None
        assert timed is not None
        scale = 1000 / row.case.batch * timed.median / found.step_seconds
        for part in (name for name in PARTS if found.parts.get(name)):
            width = scale * found.parts[part]
            k = PARTS.index(part)
            ax.barh(y, width, 0.7, left, color=PART_COLOURS[k], hatch=HATCHES[k % 4], edgecolor="white", linewidth=0.4)
            left += width
            seen += [part] * (part not in seen)
        ax.annotate(f"{left:.3g} ms", (left, y), (4, 0), textcoords="offset points", va="center", size=8)
    groups = [group_name(row.hardware, row.case, rows) for row in rows]
    cases = [f"{row.case.mode} {row.case.precision or ''}, batch {row.case.batch}" for row in rows]
    names = [f"{case}, {group}" for case, group in zip(cases, groups, strict=True)]
    ax.set_yticks(range(len(rows)), [arm_label(name, 34) for name in names])
    ax.invert_yaxis()
    ax.set_title("Where the time of a timed step goes: milliseconds an image")
    ax.margins(x=0.12)
    ax.set_xlim(left=0)
    _plain(ax)
    keys = [
        Patch(
            facecolor=PART_COLOURS[PARTS.index(part)],
            hatch=HATCHES[PARTS.index(part) % 4],
            edgecolor="white",
            label=part.replace("roi_heads", "RoI heads").replace("rpn", "RPN"),
        )
        for part in PARTS
        if part in seen
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=5, labelcolor=FAINT)
    return figure


def beside_published(records: Sequence[Record]) -> Figure | None:
    """Images a second and GPU: bars of the literature in grey, ours in blue, a panel a mode."""
    ours = comparable(records)
    modes = [mode for mode in ("train", "infer") if any(row.case.mode == mode for row in ours)]
    if not modes:
        return None
    panels = []
    for mode in modes:
        lines = [
            (row.rate, f"mrbench, {row.hardware}, {_words(row.case)}", True) for row in ours if row.case.mode == mode
        ]
        lines += [
            (row.per_gpu, f"{_publisher(row.source)}, {row.hardware}, {row.precision}, {row.when}", False)
            for row in typical(published(), ours)
            if row.mode == mode
        ]
        panels.append((mode, sorted(lines, reverse=True)))
    counts = [len(lines) for _, lines in panels]
    figure = Figure(figsize=(8.2, 0.9 + 0.23 * sum(counts) + 0.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=[n + 1 for n in counts])[:, 0]
    for ax, (mode, lines) in zip(axes, panels, strict=True):
        for y, (value, _, own) in enumerate(lines):
            colour = BLUE if own else "#b8c0c8"
            ax.barh(y, value, 0.72, color=colour, hatch="///" if own else "", edgecolor="white")
            ax.annotate(_short(value), (value, y), (4, 0), textcoords="offset points", va="center", size=8)
        ax.set_yticks(range(len(lines)), [textual for _, textual, _ in lines], size=7.5)
        ax.set_ylim(len(lines) - 0.4, -0.6)
        ax.set_title(f"R50-FPN, {mode}: images/s and GPU (protocols differ)")
        ax.margins(x=0.1)
        ax.set_xlim(left=0)
        _plain(ax)
    keys = [Patch(facecolor=BLUE, hatch="///", edgecolor="white", label="ours")]
    keys.append(Patch(facecolor="#b8c0c8", edgecolor="white", label="published"))
    figure.legend(handles=keys, loc="outside lower left", ncols=2, labelcolor=FAINT)
    return figure


def _words(case: Case) -> str:
    size = "x".join(map(str, case.image_size)) if case.image_size else "data set"
    return f"{replace(case, mode='', batch=case.batch).label.strip()}, {size}"


def _publisher(source: str) -> str:
    """The project, without its files."""
    names = {"lambdal": "Lambda", "mlcommons": "MLPerf", "detectron2": "Detectron2", "mmdetection": "MMDetection"}
    start = source.partition("/")[0]
    if start == "mlcommons":
        return f"MLPerf {source.partition('results_')[2].partition(' ')[0]}"
    return names.get(start, start.removesuffix(" README").removesuffix(" Section 4.4"))


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
