"""The chart of accuracy against what is paid for it."""

from matplotlib.figure import Figure

from mrbench.report import words
from mrbench.report.build import Answer, Report
from mrbench.report.charts import BLUE, FAINT, INK, arm_label, styled
from mrbench.report.cost import costs


def figures(report: Report) -> dict[str, tuple[Figure, str]]:
    """Those that have something to show, by the name of their file, with a caption."""
    found = {}
    for answer in report.answers:
        name = answer.metric.replace("/", "-")
        if figure := against_speed(report, answer):
            caption = (
                f"{words.metric_name(answer.metric)} against training speed. Filled: no other shown beats it in both."
            )
            found[f"speed-{name}"] = (figure, caption)
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
            ax.annotate(arm_label(name), (speed, mean), (5, 4), textcoords="offset points", fontsize=8, color=FAINT)
        ax.set_xlabel("images/s in training")
        ax.set_ylabel(words.metric_name(answer.metric))
        ax.grid()
        ax.set_axisbelow(True)
        ax.margins(0.18)
    return figure
