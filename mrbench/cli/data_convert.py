"""`mrbench data convert`: other data sets' annotations as COCO's JSON."""

from pathlib import Path
from typing import Annotated

import typer

from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

FORMATS = ("cityscapes", "voc")
SPLITS = ("train", "val")


def convert_command(
    kind: Annotated[str, typer.Argument(metavar="cityscapes|voc", help="What lies in the folder.")],
    root: Annotated[Path, typer.Argument(help="With leftImg8bit/ and gtFine/, or with JPEGImages/.")],
) -> None:
    """Writes annotations/instances_train.json and instances_val.json from pictures of instance numbers.

    Cityscapes: the 8 classes of its instance task, with label ids as category ids; groups that were not told apart
    become crowds. PASCAL VOC: 20 classes, from SegmentationObject and SegmentationClass.

    Example: mrbench data convert cityscapes ../cityscapes

    Then: mrbench data check data=cityscapes data.root=../cityscapes
    """
    from rich.console import Console
    from rich.progress import Progress

    if kind not in FORMATS:
        raise UserError(f"There is no format {kind!r}", did_you_mean(kind, FORMATS, "There are cityscapes and voc."))
    if not root.is_dir():
        raise UserError(f"{root} is not a folder")
    from mrbench.data.convert import convert_cityscapes, convert_voc

    convert = {"cityscapes": convert_cityscapes, "voc": convert_voc}[kind]
    console = Console(stderr=True)
    for split in SPLITS:
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            task = progress.add_task(split, total=None)
            path = convert(root, split, lambda p=progress, t=task: p.advance(t))  # type: ignore[misc]
        typer.echo(f"{path}")
