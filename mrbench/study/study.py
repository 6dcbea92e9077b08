"""What a study is: a question, a baseline, and the arms that are compared with it."""

from dataclasses import dataclass, field, replace

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

SCALES = ("small", "full")
METRICS = ("box/AP", "mask/AP")
_OF_BOXES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
# What evaluation.json has for all of a data set, by its kinds of results.
KNOWN_METRICS = (
    *(f"{kind}/{name}" for kind in ("box", "mask") for name in _OF_BOXES),
    *(f"keypoint/{name}" for name in ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")),
    *(f"proposal/{name}" for name in (f"AR{size}{limit}" for limit in (100, 1000) for size in ("", "s", "m", "l"))),
)


@dataclass(frozen=True)
class Arm:
    """One thing that is tried: what it overrides, the published row it answers to, and what to know about it.

    `at_scales`: scale -> overrides that it needs at that scale only, after `overrides`.
    """

    name: str
    overrides: tuple[str, ...] = ()
    published: str | None = None
    note: str = ""
    at_scales: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Scale:
    """The same question at another size: overrides after the study's base, and arms that are left out at this size."""

    base: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Study:
    """A question with its arms. `source` is what errors name: the file, or the command's grid."""

    name: str
    arms: tuple[Arm, ...]
    baseline: str
    title: str = ""
    question: str = ""
    base: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = METRICS
    scales: dict[str, Scale] = field(default_factory=dict)
    scale: str | None = None
    note: str = ""
    source: str = ""

    def at_scale(self, scale: str | None = None) -> "Study":
        """The study at one of its scales: `small` where none is asked for and the study has it.

        A scale has a record of its own (`norm-small`, `norm-full`), so that the two are never in one table. What was
        published belongs to the full scale, and only there do the arms name it. Raises UserError for a scale that the
        study does not have.
        """
        if self.scale is not None or (scale is None and not self.scales):
            return self
        chosen = scale or ("small" if "small" in self.scales else next(iter(self.scales)))
        if chosen not in self.scales:
            raise UserError(
                f"{self.source}: there is no scale '{chosen}'",
                did_you_mean(chosen, self.scales, "The study has one scale only: leave --scale out."),
            )
        at = self.scales[chosen]
        return replace(
            self,
            name=f"{self.name}-{chosen}",
            arms=tuple(_at(arm, chosen) for arm in self.arms if arm.name not in at.without),
            base=self.base + at.base,
            scale=chosen,
            note=" ".join(filter(None, (self.note, at.note))),
            scales={},
        )


def _at(arm: Arm, scale: str) -> Arm:
    return replace(
        arm,
        overrides=arm.overrides + arm.at_scales.get(scale, ()),
        published=arm.published if scale == "full" else None,
        at_scales={},
    )
