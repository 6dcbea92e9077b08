"""How often the report is wrong where the truth is known: groups drawn from the public runs of one recipe.

`python -m mrbench.report.calibration docs/images/calibration.png` draws the figure of docs/statistics.md.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np

from mrbench.evaluation.student import power
from mrbench.report.prior import METRICS, Prior, public_runs
from mrbench.report.statistics import OWN_SPREAD_FROM, Interval, compare, noise_of

SEEDS = (1, 2, 3, 5)
SHIFTS = (0.0, 0.2, 0.4)  # points of AP; 0: whatever is called a difference is a mistake
DRAWS = 4000  # standard error of a rate of 5 %: 0.3 points
SEED = 20211201


@dataclass(frozen=True)
class Rate:
    """How often two groups of `seeds` runs that truly differ by `shift` were called different, and how often theory
    says that they are (the power of the test; its level without a shift)."""

    seeds: int
    shift: float
    measured: float
    theory: float


def recipe_scores(metric: str) -> np.ndarray:
    """Final scores of the distinct runs of the recipe that has most of them: float64 [runs], percent."""
    runs = max(public_runs().values(), key=len)
    return np.array([getattr(run, METRICS[metric]) for run in runs])


def drawn(scores: np.ndarray, seeds: int, draws: int = DRAWS, seed: int = SEED) -> np.ndarray:
    """Two groups of runs without a run in common, many times: float64 [draws, 2, seeds]."""
    generator = np.random.default_rng(seed + seeds)
    order = generator.permuted(np.broadcast_to(np.arange(len(scores)), (draws, len(scores))), axis=1)
    return scores[order[:, : 2 * seeds]].reshape(draws, 2, seeds)


def rates(metric: str, seeds: int, prior: Prior, shifts: Sequence[float] = SHIFTS, draws: int = DRAWS) -> list[Rate]:
    """The report's decisions on drawn pairs of groups. A shift moves a difference and leaves its interval's width,
    so that one comparison a draw serves them all: called is what an interval that excludes 0 is."""
    scores, known = recipe_scores(metric), prior.spread(metric)
    means, widths = [], []
    for pair in drawn(scores, seeds, draws):
        first, second = ({i: float(score) for i, score in enumerate(group)} for group in pair)
        found = compare(first, second, noise_of({"first": first, "second": second}, known, fewest_seeds=1))
        means.append(found.mean)
        widths.append(found.interval.half_width if isinstance(found.interval, Interval) else np.inf)
    alone = seeds >= OWN_SPREAD_FROM or known is None
    df = (0 if alone or known is None else known.df) + seeds - 1
    error = float(scores.std(ddof=1)) * sqrt(2 / seeds)
    return [
        Rate(
            seeds,
            shift,
            float(np.mean(np.abs(np.array(means) + shift) > np.array(widths))),
            power(shift / error, df) if df else 0.0,
        )
        for shift in shifts
    ]


def draw(path: Path) -> None:
    """The figure: mistakes and found differences by number of seeds, counted, beside what theory promises."""
    import matplotlib
    from matplotlib.figure import Figure

    from mrbench.report import charts
    from mrbench.runs.files import replacing

    found = [[rates("box/AP", n, Prior(kind)) for n in SEEDS] for kind in ("public", "own")]
    places = np.arange(len(SEEDS))
    with matplotlib.rc_context(charts.STYLE):
        figure = Figure(figsize=(7.4, 3.3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.axhspan(3, 6, color=charts.RULE, linewidth=0)
        left.axhline(5, color=charts.FAINT, linewidth=0.9, linestyle=(0, (4, 3)))
        for by_seeds, colour, marker, label in (
            (found[0], charts.BLUE, "o", "public prior until 5 seeds"),
            (found[1], charts.VERMILION, "s", "own seeds alone"),
        ):
            shown = [i for i in places if by_seeds[i][0].theory > 0]
            measured = [100 * by_seeds[i][0].measured for i in shown]
            left.plot(shown, measured, marker, color=colour, markerfacecolor="none" if marker == "s" else colour)
            left.plot([], [], marker, color=colour, markerfacecolor="none" if marker == "s" else colour, label=label)
        left.set_ylim(0, 10)
        left.set_title("called different, no difference (%)")
        for place, (shift, colour, dash) in enumerate(
            ((0.2, charts.VERMILION, charts.DASHES[1]), (0.4, charts.BLUE, charts.DASHES[0])), start=1
        ):
            for by_seeds, marker, fill in ((found[0], "o", colour), (found[1], "s", "white")):
                shown = [i for i in places if by_seeds[i][0].theory > 0]
                theory = [100 * by_seeds[i][place].theory for i in shown]
                measured = [100 * by_seeds[i][place].measured for i in shown]
                right.plot(shown, theory, color=colour, linestyle=dash, linewidth=1.2, zorder=1)
                right.plot(shown, measured, marker, color=colour, markerfacecolor=fill, zorder=2)
            right.plot([], [], color=colour, linestyle=dash, label=f"{shift:g} AP, theory")
        right.plot([], [], "o", color=charts.FAINT, label="public prior")
        right.plot([], [], "s", color=charts.FAINT, markerfacecolor="white", label="own seeds alone")
        right.set_ylim(0, 104)
        right.set_title("true difference found (%)")
        for ax in (left, right):
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, columnspacing=1.2, handlelength=2.2)
        for ax in (left, right):
            ax.set_xticks(places, [str(n) for n in SEEDS])
            ax.set_xlim(-0.4, len(SEEDS) - 0.6)
            ax.set_xlabel("seeds in each of two groups")
            ax.grid(axis="y")
            ax.set_axisbelow(True)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=200)


if __name__ == "__main__":
    draw(Path(sys.argv[1]))
