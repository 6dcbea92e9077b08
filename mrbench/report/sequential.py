"""Decisions of a study that grew seed by seed until its arms were decided: all looks are made again, in their order.

What a sweep saw and what a report says are the same function of the scores and the design, so that looking often
costs what it must: every look has a level of its own (`spending`), and an arm is decided at the first look at which
its p is at or below it. Over several arms each has its share of the 5 %; what a decided arm leaves goes to the others
(Maurer & Bretz 2013, Multiple testing in group sequential trials using graphical approaches), which with one look is
Holm's correction.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mrbench.report.spending import levels
from mrbench.report.statistics import (
    BETTER,
    NOISE,
    TOO_FEW,
    WORSE,
    Difference,
    ImageNoise,
    Scores,
    Spread,
    compare,
    noise_of,
)

SPENT = 0.0425  # of the 5 %: t tests with few degrees of freedom take up to 1.17 times what is spent by the normal's


@dataclass(frozen=True)
class Design:
    """Looks at `first`, `first` + 1, ... `most` seeds an arm. Fixed before the first of them."""

    first: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.most:
            raise ValueError(f"looks go from {self.first} to {self.most} seeds")

    def level(self, seeds: int, arms: int) -> float:
        """The p at or below which an arm is decided at the look with `seeds` seeds, of `arms` that are open."""
        looks = tuple(n / self.most for n in range(self.first, self.most + 1))
        return levels(looks, SPENT / arms)[seeds - self.first]


@dataclass(frozen=True)
class Outcome:
    """`decided` has the arms with better or worse and the seeds that it took; `open` the others. `seeds`: how many the
    last look had; `final`: no other follows."""

    decided: dict[str, tuple[str, int]]
    open: tuple[str, ...]
    seeds: int
    final: bool


def look_back(
    scores: Scores,
    baseline: str,
    design: Design,
    prior: Spread | None = None,
    fewest_seeds: int = 2,
    images: Mapping[str, ImageNoise | None] | None = None,
) -> Outcome:
    """Every look that the scores allow. Seeds were added in ascending order; a look is that of the seeds up to then,
    of arms already decided too, since they tell how far seeds differ."""
    seeds = sorted({seed for arm in scores.values() for seed in arm})
    undecided = [arm for arm in scores if arm != baseline]
    decided: dict[str, tuple[str, int]] = {}
    seen = 0
    for n in range(design.first, min(design.most, len(seeds)) + 1):
        then = set(seeds[:n])
        part = {arm: {s: score for s, score in own.items() if s in then} for arm, own in scores.items()}
        noise = noise_of(part, prior, fewest_seeds)
        found = {arm: compare(part[arm], part[baseline], noise, (images or {}).get(arm)) for arm in undecided}
        seen = n
        while undecided and (passed := _passed(found, undecided, design.level(n, len(undecided)))):
            decided |= {arm: (found[arm].decision, n) for arm in passed}
            undecided = [arm for arm in undecided if arm not in passed]
    return Outcome(decided, tuple(undecided), seen, final=not undecided or seen >= design.most)


def _passed(found: Mapping[str, Difference], undecided: list[str], level: float) -> list[str]:
    return [
        arm
        for arm in undecided
        if (p := found[arm].p) is not None and p <= level and found[arm].decision in (BETTER, WORSE)
    ]


def decide(differences: Mapping[str, Difference], outcome: Outcome) -> dict[str, Difference]:
    """The differences with the words of the looks: an arm that is open is inside the noise once it has had them all,
    and has too few seeds before. There is no p corrected for looks and arms: `p_holm` is None."""
    words = {arm: word for arm, (word, _) in outcome.decided.items()}
    left = NOISE if outcome.final else TOO_FEW
    return {
        arm: replace(found, p_holm=None, decision=words.get(arm, left if found.interval else TOO_FEW))
        for arm, found in differences.items()
    }
