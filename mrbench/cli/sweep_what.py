"""What the arguments of `mrbench sweep` mean: a study, a grid, or what is on disk."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.study.ablation import Study


def is_on_disk_only(folder: Path, what: list[str]) -> bool:
    """Whether a study or a run is meant that is known from the disk alone: a grid that was given a name, or a run."""
    from mrbench.launch.selection import names_run
    from mrbench.study.ablation import study_names
    from mrbench.study.record import study_file

    if len(what) != 1 or "=" in what[0] or what[0] in study_names() or Path(what[0]).suffix in (".yaml", ".yml"):
        return False
    return study_file(folder, what[0]).exists() or names_run(folder, what[0])


def study_of(
    what: list[str], name: str | None, scale: str | None, seeds: str | None
) -> "tuple[Study, tuple[str, ...]]":
    """The study that the arguments mean, and the overrides that hold for all its runs. Raises UserError."""
    from dataclasses import replace

    from mrbench.study.ablation import load_study
    from mrbench.study.grid import grid_study, only_fixed

    if not what:
        raise UserError(
            "What is to be swept?",
            "Give a study that `mrbench studies list` shows, an ablation file, or a grid: model.norm=gn,bn seed=0,1",
        )
    if name is not None and (not name or Path(name).name != name):
        raise UserError(f"--name {name}: not a name", "Use letters, digits, - and _.")
    if "=" in what[0]:
        if scale:
            raise UserError(
                "--scale is for ablation files", "A grid says itself what runs, as schedule.iterations=100."
            )
        if seeds and any(text.startswith("seed=") for text in what):
            raise UserError("Seeds are given twice, by seed= and --seeds", "Leave one of them out.")
        return grid_study(what, name), ()
    found = load_study(what[0])
    study = found.at_scale(scale)
    if found.scales and scale is None:
        others = " or ".join(s for s in found.scales if s != study.scale)
        typer.echo(
            f"At scale {study.scale}" + (f"; --scale {others} asks for the other." if others else "."), err=True
        )
    return replace(study, name=name or study.name), only_fixed(what[1:])
