"""`mrbench weights`: look into files of weights, and write them for other programs."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mrbench.cli.common import Root, root_folder
from mrbench.errors import UserError

app = typer.Typer(help="Look into files of weights; write them for other programs.", no_args_is_help=True)

CONVENTION = """  INPUT.FORMAT BGR
  MODEL.PIXEL_MEAN and MODEL.PIXEL_STD: these, from last to first"""


class Target(StrEnum):
    """What a file can be written as."""

    safetensors = "safetensors"
    detectron2 = "detectron2"


@app.command("inspect")
def inspect_command(
    file: Annotated[Path, typer.Argument(help="Of mrbench, Detectron2, torchvision, Detectron or tensorpack.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor by our name.")] = False,
) -> None:
    """The format of a file, the settings that its weights were trained with, and what has no place.

    Example: mrbench weights inspect model_final_a3ec72.pkl
    """
    from rich.console import Console
    from rich.table import Table

    from mrbench.weights.files import inspect
    from mrbench.weights.fill import describe

    found = inspect(file)
    translated = found.translated()
    parameters = sum(tensor.numel() for tensor in found.tensors.values())
    typer.echo("\n".join(describe(found)))
    typer.echo(f"  {parameters:,} numbers" + (f", iteration {found.iteration}" if found.iteration else ""))
    for name in translated.unplaced:
        typer.echo(f"  no place: {name}")
    if tensors:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("tensor", "shape", "type"):
            table.add_column(column, overflow="fold")
        for name, tensor in translated.tensors.items():
            table.add_row(name, "x".join(map(str, tensor.shape)), str(tensor.dtype).removeprefix("torch."))
        Console().print(table)


@app.command("export")
def export_command(
    source: Annotated[str, typer.Argument(metavar="RUN|FILE", help="A run, or a file that `inspect` reads.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    to: Annotated[Target, typer.Option("--to", help="detectron2 writes .pkl, or .pth where OUT ends so.")] = (
        Target.safetensors
    ),
    root: Root = None,
) -> None:
    """Writes weights as safetensors, or in Detectron2's names.

    Example: mrbench weights export mask_rcnn_small-74bdd1 -o model.safetensors

    Example: mrbench weights export maskrcnn_resnet50_fpn.pth --to detectron2 -o model.pkl
    """
    from mrbench.weights.export import export_detectron2, export_safetensors
    from mrbench.weights.files import inspect
    from mrbench.weights.fill import overrides

    if Path(source).is_file():
        found = inspect(Path(source))
        settings = found.settings
    else:
        from mrbench.engine.evaluate import run_weights
        from mrbench.runs.record import find_run
        from mrbench.weights.fill import settings_of_config

        run = find_run(root_folder(root), source)
        found, settings = inspect(run_weights(run)), settings_of_config(run.config().model)
    state = found.translated()
    if state.unplaced:
        raise UserError(
            f"{found.path} has tensors that have no place here: {', '.join(state.unplaced[:5])}",
            f"mrbench weights inspect {found.path} shows all.",
        )
    if to is Target.detectron2:
        export_detectron2(state.tensors, out)
    else:
        export_safetensors(state.tensors, settings, out, found.categories)
    typer.echo(f"{out}: {len(state.tensors)} tensors. Their settings:")
    for line in overrides(settings):
        typer.echo(f"  {line}")
    if to is Target.detectron2:
        typer.echo(f"for Detectron2:\n{CONVENTION}")
