"""`mrbench sweep --until-decided`: a study that grows by a seed at a time, in the arms that are not decided."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mrbench.cli.sweep_actions import PLAIN
from mrbench.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from mrbench.report.sequential import Outcome
    from mrbench.study.plan import Plan
    from mrbench.study.study import Study

Start = Callable[["Plan", dict[str, int]], int]


@dataclass(frozen=True)
class Design:
    """What is fixed before the first look: the seeds that every arm begins with, and the most seeds of an arm."""

    first: Sequence[int]
    most: int

    def seeds(self) -> list[int]:
        """All seeds that an arm may have, in the order in which they are added."""
        given = sorted(self.first)
        return [*given, *range(given[-1] + 1, given[-1] + 1 + self.most - len(given))]

    def as_record(self) -> dict[str, int]:
        return {"first": len(self.first), "most": self.most}

    def check(self, folder: Path, name: str) -> None:
        """Raises UserError where the most are fewer than the first, and where the study was begun with another
        design: one that is changed after a look keeps no promise."""
        from mrbench.study.record import read_study, study_file

        if self.most < len(self.first):
            raise UserError(
                f"--max-seeds {self.most}: the study begins with {len(self.first)} seeds", "Give at least as many."
            )
        before = read_study(folder, name).until if study_file(folder, name).exists() else None
        if before not in (None, self.as_record()):
            raise UserError(
                f"{name} began with {before['first']} seeds and --max-seeds {before['most']}",
                "Decisions hold for the design that was begun with; go on with that, or choose another --name.",
            )


def check_options(until_decided: bool, max_seeds: int | None, others: Mapping[str, bool]) -> int:
    """The most seeds an arm. Raises UserError where one of the two options lacks the other, or for an option that
    has no meaning while a study grows."""
    if not until_decided or max_seeds is None:
        raise UserError(
            "--until-decided and --max-seeds belong together",
            "The most seeds are fixed beforehand: with them decisions keep their 5 %.",
        )
    for option, given in others.items():
        if given:
            raise UserError(f"{option} and --until-decided do not go together", "Leave one of them out.")
    return max_seeds


def sweep_until(
    folder: Path,
    study: "Study",
    extra: Sequence[str],
    design: Design,
    config_dir: Path | None,
    start: Start,
    console: "Console",
) -> int:
    """Runs the design's first seeds, looks, and adds a seed to open arms and the baseline until none is open or they
    have the most. `start` brings a plan to its end and returns the exit code, which becomes this function's.

    An arm with a run that failed gets no more seeds. Raises UserError as `Design.check`.
    """
    from mrbench.study.plan import make_plan

    design.check(folder, study.name)
    seeds = design.seeds()
    arms, worst = study.arms, 0
    for n in range(len(design.first), design.most + 1):
        code = start(make_plan(replace(study, arms=arms), extra, seeds[:n], config_dir), design.as_record())
        worst = max(worst, code)
        if code not in (0, 1):
            return code
        outcome, failed = _look(folder, study.name)
        for name, (word, taken) in outcome.decided.items():
            console.print(f"decided: {name} is {word}, with {taken} seeds", **PLAIN)
        growing = [name for name in outcome.open if name not in failed]
        if study.baseline in failed or not growing:
            break
        if n < design.most:
            console.print(f"open with {n} seeds: {', '.join(growing)}", **PLAIN)
        else:
            console.print(f"not decided with {n} seeds: {', '.join(outcome.open)}", **PLAIN)
        arms = tuple(arm for arm in study.arms if arm.name in growing or arm.name == study.baseline)
    return worst


def _look(folder: Path, name: str) -> "tuple[Outcome, set[str]]":
    """The decisions by the study's first metric, as the report makes them, and the arms with runs without a result."""
    from mrbench.report import build, collect, images, prior

    study = collect.load_study(folder, name)
    outcome = build.looks(study, study.metrics[0], images.Sampler(study), prior.choose(study))
    assert outcome is not None, "the record says how the study grows"
    return outcome, {run.arm for run in study.runs if run.state != "completed"}
