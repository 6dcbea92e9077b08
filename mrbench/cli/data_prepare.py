"""`mrbench data prepare`: what of a public data set is there, and the archives unpacked."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.data.archives import Archive

NEXT = {
    "coco2017": "mrbench data check data=coco_2017 data.root={root}",
    "coco2014": "mrbench data check data=coco_2014 data.root={root}",
    "cityscapes": "mrbench data convert cityscapes {root}",
}


def prepare_command(
    name: Annotated[str, typer.Argument(metavar="coco2017|coco2014|cityscapes", help="The data set.")],
    root: Annotated[Path, typer.Argument(help="The folder with what was downloaded.")],
) -> None:
    """Says what is there and what is missing, verifies archives and unpacks them. Downloads nothing.

    Archives are looked for in the folder itself, compared with their published MD5, and left where they are. Exit
    code 1 where something that training needs is missing.

    Example: mrbench data prepare coco2017 /data/coco
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from mrbench.data.archives import DATASETS
    from mrbench.data.prepare import look, unpack

    if name not in DATASETS:
        raise UserError(
            f"There is no data set {name!r}", did_you_mean(name, DATASETS, f"Known: {', '.join(DATASETS)}.")
        )
    if not root.is_dir():
        raise UserError(f"{root} is not a folder", "Make it, and put the archives into it.")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    lacking: list[Archive] = []
    for archive in DATASETS[name]:
        state = look(archive, root)
        if state.state == "packed":
            total = 2 * (root / archive.name).stat().st_size
            quiet = not console.is_terminal
            with Progress(*columns, TimeRemainingColumn(), console=console, transient=True, disable=quiet) as progress:
                task = progress.add_task(archive.name, total=total)
                unpack(archive, root, lambda done, p=progress, t=task: p.advance(t, done))  # type: ignore[misc]
            checked = "MD5 right" if archive.md5 else "whole"
            typer.echo(f"{archive.name}: {checked}, unpacked")
        elif state.state == "present":
            typer.echo(f"{archive.name}: {_told(archive, state.counts)}")
        else:
            partly = f" ({_told(archive, state.counts)})" if any(state.counts) else ""
            purpose = f", only for {archive.purpose}" if archive.purpose else ""
            typer.echo(f"{archive.name}: missing{purpose}{partly}\n  {archive.where}")
            lacking += [] if archive.purpose else [archive]
    if lacking:
        typer.echo(f"\nDownload {', '.join(a.name for a in lacking)} into {root}, then give the same command again.")
        raise typer.Exit(1)
    typer.echo(f"\nNext: {NEXT[name].format(root=root)}")


def _told(archive: "Archive", counts: tuple[int, ...]) -> str:
    return ", ".join(
        f"{part.folder}/{part.pattern} {'there' if found >= part.count == 1 else f'{found:,} of {part.count:,}'}"
        for part, found in zip(archive.parts, counts, strict=True)
    )
