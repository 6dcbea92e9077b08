"""The chart of accuracy against what is paid for it."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mrbench.report import words
from mrbench.report.build import Answer, Report
from mrbench.report.charts import BLUE, FAINT, INK, Chart, arm_label, styled
from mrbench.report.cost import costs

MARK, LETTER, LINE = 4.0, 4.9, 10.0  # points: half a mark, and a letter's width and a line's height of the names
STEPS = [step for far in range(0, 120, 2) for step in ((-far, far) if far else (0,))]

Box = tuple[float, float, float, float]


def figures(report: Report) -> dict[str, Chart]:
    """Those that have something to show, by the name of their file, with a caption."""
    found = {}
    for answer in report.answers:
        name = answer.metric.replace("/", "-")
        if figure := against_speed(report, answer):
            caption = (
                f"{words.metric_name(answer.metric)} against training speed. Filled: no other shown beats it in both."
            )
            found[f"speed-{name}"] = Chart(figure, caption)
    return found


def against_speed(report: Report, answer: Answer) -> Figure | None:
    """A point for each arm that has a result and a speed; None for fewer than two."""
    found = costs(report)
    points = [
        (arm.name, speed, mean)
        for arm in report.study.arms
        if (speed := found[arm.name].images_per_second) and (mean := answer.summaries[arm.name].mean) is not None
    ]
    if len(points) < 2:
        return None
    with styled():
        figure = Figure(figsize=(4.65, 3.1), layout="constrained")
        ax = figure.subplots()
        for name, speed, mean in points:
            colour = INK if name == report.study.baseline else BLUE
            filled = colour if found[name].unbeaten else "none"
            ax.plot(speed, mean, "D" if colour == INK else "o", color=colour, markerfacecolor=filled, markersize=6.5)
        ax.set_xlabel("images/s in training")
        ax.set_ylabel(words.metric_name(answer.metric))
        ax.grid()
        ax.set_axisbelow(True)
        ax.margins(0.18)
        _name(figure, ax, points)
    return figure


def _name(figure: Figure, ax: Axes, points: Sequence[tuple[str, float, float]]) -> None:
    """Writes each arm's name beside its point where nothing else stands; a thin line leads to one further off."""
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    places = [ax.transData.transform((x, y)) * scale for _, x, y in points]
    left, right = (edge * scale for edge in ax.bbox.intervalx)
    bottom, top = (edge * scale for edge in ax.bbox.intervaly)
    taken = [(x - MARK, y - MARK, x + MARK, y + MARK) for x, y in places]
    for (name, x, y), (at_x, at_y) in sorted(zip(points, places, strict=True), key=lambda item: -item[1][1]):
        text = arm_label(name)
        lines = text.split("\n")
        width, height = LETTER * max(map(len, lines)), LINE * len(lines)
        start = at_x + MARK + 2 if at_x + MARK + 2 + width <= right else max(left, at_x - MARK - 2 - width)
        boxes = [(start, at_y + step - height / 2, start + width, at_y + step + height / 2) for step in STEPS]
        inside = [box for box in boxes if box[1] >= bottom and box[3] <= top]
        box = next((box for box in inside if not any(_overlap(box, other) for other in taken)), boxes[0])
        taken.append(box)
        offset = (start - at_x, (box[1] + box[3]) / 2 - at_y)
        far = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.5} if abs(offset[1]) > LINE else None
        ax.annotate(
            *(text, (x, y), offset),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=FAINT,
            arrowprops=far,
        )


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
