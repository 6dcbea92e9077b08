"""`mrbench data`: look at a data set before training on it."""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Overrides, compose
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.data.coco import CocoDataset

app = typer.Typer(help="Look at a data set: what it holds, whether it is sound.", no_args_is_help=True)

SPLITS = ("train", "val")


@app.command("show")
def show(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Classes and counts of both splits. Broken annotations are left out and counted.

    Example: mrbench data show data=coco_folder data.root=../coco2017
    """
    from rich.console import Console
    from rich.table import Table

    from mrbench.data.sources import open_split
    from mrbench.data.summary import summarise

    config = compose(overrides, config_dir)
    config.data.on_error = "skip"
    datasets = {split: open_split(config.data, split) for split in SPLITS}
    summaries = [summarise(dataset, config.evaluation.areas) for dataset in datasets.values()]
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for split in SPLITS:
        table.add_column(split, justify="right")

    def row(name: str, values: list[object]) -> None:
        table.add_row(name, *(f"{v:,}" if isinstance(v, int) else str(v) for v in values))

    row("images", [s.images for s in summaries])
    row("  without annotations", [s.empty for s in summaries])
    row("  heights", ["-".join(map(str, s.image_heights)) for s in summaries])
    row("  widths", ["-".join(map(str, s.image_widths)) for s in summaries])
    row("instances", [s.instances for s in summaries])
    for place, name in enumerate(_size_names(config.evaluation.areas)):
        row(f"  {name}", [s.per_size[place] for s in summaries])
    row("crowd regions", [s.crowds for s in summaries])
    row("broken annotations", [len(d.problems) for d in datasets.values()])
    categories = datasets["train"].categories
    row("classes", [len(d.categories) for d in datasets.values()])
    if categories == datasets["val"].categories:
        for label, category in enumerate(categories):
            row(f"  {category.id} {category.name}", [s.per_class[label] for s in summaries])
    console = Console()
    for split, dataset in datasets.items():
        console.print(f"{split}: {dataset.annotation_file}, images in {dataset.image_folder}", soft_wrap=True)
    console.print(table)


@app.command("check")
def check(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Reads both splits and lists what is wrong with them; exit code 2 where something is.

    Looks at the files' form, ids, boxes, segmentations, and that every picture file is there; pictures are not
    decoded. Example: mrbench data check data=coco_folder data.root=../coco2017
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from mrbench.config.layout import data_root
    from mrbench.data.coco import describe_problems
    from mrbench.data.sources import check_same_categories, open_split

    config = compose(overrides, config_dir)
    config.data.on_error = "skip"
    if config.data.kind == "coco_folder":
        data_root(config.data)  # one message, not one a split
    datasets: dict[str, CocoDataset] = {}
    rows: list[tuple[str, str, str]] = []
    hints: list[str] = []
    for split in SPLITS:
        try:
            datasets[split] = open_split(config.data, split)
        except UserError as error:
            rows.append((split, "", error.what))
            hints.append(error.hint)
        else:
            problems = datasets[split].problems
            rows += [(split, str(p.annotation_id), p.reason) for p in problems]
            if problems:
                hints.append(describe_problems(problems)[1])
    if len(datasets) == len(SPLITS):
        try:
            check_same_categories(datasets["train"], datasets["val"])
        except UserError as error:
            rows.append(("both", "", error.what))
            hints.append(error.hint)
    for split, dataset in datasets.items():
        typer.echo(f"{split}: {len(dataset):,} images, {dataset.annotation_file}")
    if not rows:
        typer.echo("no problems found")
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("split", "annotation", "problem"):
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
    typer.echo(f"{len(rows):,} problem{'s' * (len(rows) > 1)}")
    for hint in dict.fromkeys(filter(None, hints)):
        typer.echo(hint)
    raise typer.Exit(2)


@app.command("sample")
def sample(
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train or val")] = "train",
    count: Annotated[int, typer.Option(min=1, help="How many pictures, evenly over the split.")] = 24,
    columns: Annotated[int, typer.Option(min=1)] = 6,
    side: Annotated[int, typer.Option(min=32, help="Pixels of a picture's long side.")] = 256,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("sample.png"),
    config_dir: ConfigDir = None,
) -> None:
    """Writes a sheet of pictures with masks, boxes and class names drawn in.

    Example: mrbench data sample data=shapes --split val -o shapes.png
    """
    from mrbench.data.contact_sheet import contact_sheet
    from mrbench.data.sources import open_split
    from mrbench.runs.files import replacing

    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}", "The splits are train and val.")
    config = compose(overrides, config_dir)
    config.data.on_error = "skip"
    dataset = open_split(config.data, split)
    count = min(count, len(dataset))
    indices = [i * len(dataset) // count for i in range(count)]
    sheet = contact_sheet(dataset, indices, min(columns, count), side)
    with replacing(output) as temporary:
        sheet.save(temporary, format="PNG")
    typer.echo(f"{output}: {count} of {len(dataset):,} pictures of the {split} split")


def _size_names(areas: list[float]) -> list[str]:
    """What the size classes between the limits `areas` (square pixels) are called."""
    sides = [f"{area**0.5:g}" for area in areas]
    limits = [
        "up to " + sides[0],
        *(f"{a} to {b}" for a, b in pairwise(sides)),
        f"over {sides[-1]}",
    ]
    names = ["small", "medium", "large"] if len(areas) == 2 else [""] * len(limits)
    return [f"{name} ({limit} px square)".strip() for name, limit in zip(names, limits, strict=True)]
