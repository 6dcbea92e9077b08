"""`mrbench data`: look at a data set before training on it, or make it ready."""

import typer

from mrbench.cli.common import ConfigDir, Overrides, compose
from mrbench.cli.data_check import check_command
from mrbench.cli.data_convert import convert_command
from mrbench.cli.data_counts import add_row, counts_table
from mrbench.cli.data_distill import distill_command
from mrbench.cli.data_prepare import prepare_command
from mrbench.cli.data_sample import SPLITS, sample_command

app = typer.Typer(help="Look at a data set: what it holds, whether it is sound; make it ready.", no_args_is_help=True)


@app.command("show")
def show(overrides: Overrides = None, config_dir: ConfigDir = None) -> None:
    """Classes and counts of both splits. Broken annotations are left out and counted.

    Example: mrbench data show data=coco_folder data.root=../coco2017
    """
    from rich.console import Console

    from mrbench.data.sources import open_split
    from mrbench.data.summary import summarise

    config = compose(overrides, config_dir)
    config.data.on_error = "skip"
    datasets = {split: open_split(config.data, split) for split in SPLITS}
    summaries = {split: summarise(dataset, config.evaluation.areas) for split, dataset in datasets.items()}
    table = counts_table(summaries, config.evaluation.areas)
    add_row(table, "broken annotations", [len(d.problems) for d in datasets.values()])
    categories = datasets["train"].categories
    add_row(table, "classes", [len(d.categories) for d in datasets.values()])
    if categories == datasets["val"].categories:
        for label, category in enumerate(categories):
            add_row(table, f"  {category.id} {category.name}", [s.per_class[label] for s in summaries.values()])
    console = Console()
    for split, dataset in datasets.items():
        console.print(f"{split}: {dataset.annotation_file}, images in {dataset.image_folder}", soft_wrap=True)
    console.print(table)


app.command("check")(check_command)
app.command("sample")(sample_command)
app.command("prepare")(prepare_command)
app.command("convert")(convert_command)
app.command("distill")(distill_command)
