"""`mrbench train`: one run, from its configuration to its AP."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Overrides, Root, compose, root_folder, run_ending, scaling
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.config.schema import RunConfig
    from mrbench.runs.record import Run


def train_command(
    overrides: Overrides = None,
    root: Root = None,
    config_dir: ConfigDir = None,
    cfg: Annotated[bool, typer.Option("--cfg", help="Print the configuration and the run's name, no more.")] = False,
) -> None:
    """Train a model and evaluate it.

    Without overrides: a small Mask R-CNN on the embedded data, about six minutes of one CPU core. A run is its
    configuration: one that was interrupted goes on where its newest checkpoint is, one that is complete is left as
    it is, and its result is shown. Everything about it lies in ROOT/runs/NAME. A mistake in what was asked for leaves
    no new run behind.

    Exit code 0: complete. 1: the run failed, and its status.json says why. 2: a mistake in what was asked for.
    143 or 130: stopped by SIGTERM or Ctrl-C; the same command goes on.

    Examples:

      mrbench train model.norm=bn seed=1

      mrbench train recipe=mask_rcnn_r50_fpn_1x data.root=/data/coco runtime.devices=8

      torchrun --nproc-per-node 8 -m mrbench train recipe=mask_rcnn_r50_fpn_1x data.root=/data/coco

      srun --ntasks-per-node 8 --nodes 2 mrbench train recipe=mask_rcnn_r50_fpn_1x data.root=/data/coco
    """
    try:
        _command(overrides, root, config_dir, cfg)
    except KeyboardInterrupt:
        typer.echo("stopped by SIGINT before anything was done.", err=True)
        raise typer.Exit(130) from None


def _command(overrides: Overrides, root: Root, config_dir: ConfigDir, cfg: bool) -> None:
    config = compose(overrides, config_dir)
    if cfg:
        from mrbench.config.compose import to_yaml
        from mrbench.config.identity import run_id

        rule = "".join(f"# {line}\n" for line in scaling(overrides, config_dir))
        typer.echo(f"# {run_id(config)}\n{rule}{to_yaml(config)}", nl=False)
        return
    from mrbench.config.identity import run_id
    from mrbench.config.layout import check_files
    from mrbench.runs.record import Run, open_run

    if Run(root_folder(root) / "runs" / run_id(config)).status().state != "completed":
        check_files([config])
    run = open_run(root_folder(root), config)
    if run.status().state == "completed":
        typer.echo(f"{run.run_id} is complete: nothing to do. It lies in {run.folder}")
        _show_result(run)
        return
    try:
        _train(run, config, scaling(overrides, config_dir))
    except KeyboardInterrupt:  # torch takes seconds to load; only then does training listen
        from mrbench.runs.state import newest_checkpoint

        saved = newest_checkpoint(run)
        goes_on = f"the same command goes on from iteration {saved}/{config.schedule.iterations}."
        begins = "the same command begins at iteration 1."
        typer.echo(f"stopped by SIGINT while it started up: {goes_on if saved else begins}", err=True)
        raise typer.Exit(130) from None


def _train(run: "Run", config: "RunConfig", notes: list[str]) -> None:
    from mrbench.engine.distributed import world_from_environment
    from mrbench.engine.train import train
    from mrbench.launch.record import read_job
    from mrbench.runs.remove import remove

    world = world_from_environment()
    main = world is None or world.main
    if main:
        typer.echo("\n".join([f"{run.run_id} in {run.folder}", *notes]))
    try:
        with run_ending(f"{run.status_file} has the details.", "the same command goes on from there."):
            train(run, config)
    except UserError:
        if main and run.status().attempt == 0 and read_job(run.folder) is None:  # new, and no sweep waits for it
            with suppress(UserError):  # the first error is the one to show
                remove(run)
        raise
    if main:
        _show_result(run)


def _show_result(run: "Run") -> None:
    from rich.console import Console
    from rich.table import Table

    evaluation = run.evaluation()
    if evaluation is None:
        return
    metrics = evaluation["metrics"]
    columns = ("AP", "AP50", "AP75", "APs", "APm", "APl")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    for kind in ("box", "mask"):
        if f"{kind}/AP" in metrics:
            values = [metrics.get(f"{kind}/{name}") for name in columns]
            table.add_row(kind, *("-" if value is None else f"{value:.2f}" for value in values))
    console = Console(highlight=False)
    if table.row_count:  # images without annotations give no numbers
        console.print(table)
    recall = [f"{name} {value:.2f}" for name, value in metrics.items() if name.startswith("proposal/AR1") and value]
    if recall:
        console.print(", ".join(recall))
    for note in evaluation["notes"]:
        console.print(note, markup=False)
    status = run.status()
    if status.images_per_second is not None and status.peak_memory is not None:
        speed = f"{status.images_per_second:.1f} images/s, {status.peak_memory / 2**20:.0f} MiB"
        console.print(f"{evaluation['images']} images; trained at {speed}", markup=False)
