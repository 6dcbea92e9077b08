"""`mrbench data sample`: pictures of a data set with what is annotated in them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Overrides, compose
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.config.schema import DataConfig, RunConfig

SPLITS = ("train", "val")


def sample_command(
    overrides: Overrides = None,
    split: Annotated[str, typer.Option(help="train or val")] = "train",
    count: Annotated[int, typer.Option(min=1, help="How many pictures, evenly over the split.")] = 24,
    columns: Annotated[int, typer.Option(min=1)] = 6,
    side: Annotated[int, typer.Option(min=32, help="Pixels of a picture's long side.")] = 256,
    output: Annotated[Path, typer.Option("--output", "-o", help="The PNG to write.")] = Path("sample.png"),
    augmented: Annotated[
        bool, typer.Option("--augmented", help="The first pictures of a training, as its network sees them.")
    ] = False,
    config_dir: ConfigDir = None,
) -> None:
    """Writes a sheet of pictures with masks, boxes and class names drawn in.

    Colours tell the classes, and their shades the instances; in crowded pictures, and where there is one class only,
    they tell the instances. The name of an only class is the sheet's title.

    Example: mrbench data sample data=shapes --split val -o shapes.png
    Example: mrbench data sample augmentation=copy_paste augmentation.jitter_size=256 --augmented
    """
    if split not in SPLITS:
        raise UserError(f"There is no split {split!r}", "The splits are train and val.")
    config = compose(overrides, config_dir)
    config.data.on_error = "skip"
    if augmented:
        if split != "train":
            raise UserError("--augmented shows pictures of the train split only", "Leave --split away.")
        typer.echo(write_augmented(config, count, columns, side, output))
        return
    typer.echo(write_sheet(config.data, split, count, columns, side, output))


def write_sheet(data: "DataConfig", split: str, count: int, columns: int, side: int, output: Path) -> str:
    """Draws at most `count` pictures, evenly over the split, and says what was written. Raises UserError."""
    from mrbench.data.contact_sheet import contact_sheet
    from mrbench.data.sources import open_split
    from mrbench.runs.files import replacing

    dataset = open_split(data, split)
    count = min(count, len(dataset))
    indices = [i * len(dataset) // count for i in range(count)]
    sheet = contact_sheet(dataset, indices, min(columns, count), side)
    with replacing(output) as temporary:
        sheet.save(temporary, format="PNG")
    return f"{output}: {count} of {len(dataset):,} pictures of the {split} split"


def write_augmented(config: "RunConfig", count: int, columns: int, side: int, output: Path) -> str:
    """Draws the first `count` pictures of a training with `config`, and says what was written. Raises UserError."""
    from mrbench.data.contact_sheet import augmented_sheet
    from mrbench.data.sources import open_split
    from mrbench.runs.files import replacing

    sheet = augmented_sheet(open_split(config.data, "train"), config, count, min(columns, count), side)
    with replacing(output) as temporary:
        sheet.save(temporary, format="PNG")
    return f"{output}: the first {count} pictures of the training"
