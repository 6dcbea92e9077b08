"""`mrbench eval`: COCO's numbers for a run, for weights, or for any COCO results file."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mrbench.cli.common import ConfigDir, Root, compose, root_folder, run_config, run_ending
from mrbench.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

SHORT_KEYPOINT = ("AP", "AP50", "AP75", "APm", "APl", "AR", "AR50", "AR75", "ARm", "ARl")
SHORT_PROPOSAL = ("AR100", "ARs100", "ARm100", "ARl100", "AR1000", "ARs1000", "ARm1000", "ARl1000")
SHORT = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def eval_command(
    target: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN] [OVERRIDES]",
            help="A run's name, a beginning of it, or its folder, and what to change of its configuration. "
            "With --weights no run: key=value of the configuration.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A checkpoint, evaluated with the configuration of the overrides.")
    ] = None,
    annotations: Annotated[
        Path | None, typer.Option("--annotations", help="COCO ground truth (instances_*.json); no model is run.")
    ] = None,
    detections: Annotated[
        Path | None, typer.Option("--detections", help="COCO results file to compare with --annotations.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--kind", help="box, mask or keypoint; without it, what all entries of --detections have."),
    ] = None,
    areas: Annotated[
        str | None,
        typer.Option("--areas", help="With --annotations: limits of small and large in square pixels; or 1024,9216."),
    ] = None,
    max_detections: Annotated[
        int | None,
        typer.Option(
            "--max-detections", help="With --annotations: how many of an image and category count; 100 without it."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for detections, evaluation and matches, but not of a run as it is."),
    ] = None,
    per_category: Annotated[bool, typer.Option("--per-category", help="AP of every category as well.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with all digits, instead of a table.")] = False,
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """COCO's 12 numbers for boxes and masks and 10 for keypoints, in percent; '-' where there is no such ground truth.

    **A run**, with its own weights and data; its evaluation is written anew:

    Example: mrbench eval mask_rcnn_small-74bdd1

    **Tested in another way** than it was trained for (augmentation, data, evaluation, model.inference, precision);
    the run stays as it is, and --out keeps the result:

    Example: mrbench eval mask_rcnn_small-74bdd1 evaluation.tta.enabled=true --out flipped

    **Weights**, with any configuration:

    Example: mrbench eval --weights final.pt recipe=mask_rcnn_r50_fpn_1x data.root=/data/coco

    **In several processes**, with the same numbers: runtime.devices=8 among the overrides, or torchrun and srun:

    Example: torchrun --nproc-per-node 8 -m mrbench eval mask_rcnn_small-74bdd1

    Those of other projects are read as well (`mrbench weights inspect FILE` shows their settings).

    **A results file** of any program, without a model:

    Example: mrbench eval --annotations instances_val2017.json --detections results.json
    """
    if annotations is not None or detections is not None:
        if annotations is None or detections is None:
            raise UserError("--annotations and --detections belong together: give both.")
        if weights is not None or target or out:
            raise UserError(
                "--annotations and --detections run no model.", "Leave out the run or overrides, --weights and --out."
            )
        result = _evaluate_files(annotations, detections, kind, areas, max_detections)
    else:
        if kind or areas or max_detections is not None:
            raise UserError(
                "--kind, --areas and --max-detections go with --annotations and --detections.",
                "A model is evaluated as its configuration says: evaluation.areas, evaluation.max_detections.",
            )
        if weights is None and not target:
            raise UserError("Nothing to evaluate.", "Give a run, --weights, or --annotations and --detections.")
        with run_ending():
            if weights is not None:
                found = _evaluate_weights(weights, target or [], out, config_dir)
            else:
                found = _evaluate_run(target or [], out, root)
        if found is None:  # this is not the main one of several processes
            return
        result = found
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        _show(result, per_category)


def _evaluate_files(
    annotations: Path, detections: Path, kind: str | None, areas: str | None, max_detections: int | None
) -> dict[str, Any]:
    from dataclasses import asdict

    from mrbench.evaluation.coco import COCO_AREAS, evaluate

    try:
        limits = [float(value) for value in areas.split(",")] if areas else list(COCO_AREAS)
    except ValueError:
        raise UserError(f"--areas {areas} is not two numbers.", "For example --areas 1024,9216.") from None
    most = 100 if max_detections is None else max_detections
    result = evaluate(annotations, detections, (kind,) if kind else None, limits, most)
    return {
        "images": result.images,
        "metrics": result.metrics,
        "per_category": result.per_category,
        "per_threshold": result.per_threshold,
        "errors": {kind: asdict(analysis) for kind, analysis in result.errors.items()},
        "areas": limits,
        "max_detections": most,
        "notes": result.notes,
    }


def _evaluate_weights(
    weights: Path, overrides: list[str], out: Path | None, config_dir: Path | None
) -> dict[str, Any] | None:
    from tempfile import TemporaryDirectory

    from mrbench.runs.record import Run

    config = compose(overrides, config_dir)
    if not weights.is_file():
        raise UserError(f"There is no file {weights}.")
    from mrbench.engine.evaluate import evaluate_run

    with TemporaryDirectory() as folder:
        return evaluate_run(Run(out or Path(folder)), config, weights=weights)


def _evaluate_run(target: list[str], out: Path | None, root: Path | None) -> dict[str, Any] | None:
    from contextlib import nullcontext
    from tempfile import TemporaryDirectory

    from mrbench.runs.lock import run_lock
    from mrbench.runs.record import Run, find_run

    name, overrides = target[0], target[1:]
    if "=" in name or not all("=" in override for override in overrides):
        raise UserError(
            f"Give one run, then overrides, not {' '.join(target)}.",
            "Overrides alone go with --weights. `mrbench runs list` shows the runs.",
        )
    run = find_run(root_folder(root), name)
    config = run_config(run, overrides)
    if not overrides and out is not None:
        raise UserError("A run as it is needs no --out: its evaluation is written into its folder.")
    if out is not None and out.resolve() == run.folder.resolve():
        raise UserError("--out is the run's own folder, whose evaluation is of the run as it is.", "Give another one.")
    from mrbench.engine.distributed import world_from_environment
    from mrbench.engine.evaluate import evaluate_run, run_weights

    if not overrides:
        world = world_from_environment()
        with run_lock(run) if world is None or world.main else nullcontext():
            return evaluate_run(run, config)
    with TemporaryDirectory() as folder:
        return evaluate_run(Run(out or Path(folder)), config, weights=run_weights(run))


def _show(result: dict[str, Any], per_category: bool) -> None:
    from rich.console import Console

    console = Console(highlight=False)
    for table in _summaries(result["metrics"]):
        console.print(table)
    if per_category:
        console.print()
        console.print(_categories(result["per_category"]))
    for note in result["notes"]:
        console.print(f"note: {note}", style="yellow", markup=False)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _summaries(metrics: dict[str, float | None]) -> list["Table"]:
    """One row for boxes, one for masks; keypoints and proposals, which have other numbers, in tables of their own."""
    kinds = list(dict.fromkeys(key.split("/")[0] for key in metrics))
    own = {"keypoint": SHORT_KEYPOINT, "proposal": SHORT_PROPOSAL}
    regions = [kind for kind in kinds if kind not in own]
    tables = [_summary(metrics, regions, SHORT)] if regions else []
    return tables + [_summary(metrics, [kind], numbers) for kind, numbers in own.items() if kind in kinds]


def _summary(metrics: dict[str, float | None], kinds: list[str], numbers: tuple[str, ...]) -> "Table":
    """A row for each kind; 80 columns wide."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("")
    for name in numbers:
        table.add_column(name, justify="right", min_width=5, no_wrap=True)
    for kind in kinds:
        table.add_row(kind, *(_number(metrics.get(f"{kind}/{name}")) for name in numbers))
    return table


def _categories(per_category: dict[str, dict[str, float | None]]) -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("category")
    names = list(next(iter(per_category.values()), {}))
    for name in names:
        table.add_column(name.replace("/", " "), justify="right", no_wrap=True)
    for category, values in per_category.items():
        table.add_row(category, *(_number(values.get(name)) for name in names))
    return table
