"""`mrbench proposals`: the regions that a model's RPN proposes, into a file that a detector without one trains on."""

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Root, compose, root_folder
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.config.schema import RunConfig
    from mrbench.data.coco import CocoDataset
    from mrbench.data.proposals import ProposalTable
    from mrbench.modeling.proposal_network import ProposalNetwork

SPLITS = ("train", "val")


def proposals_command(
    target: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN | OVERRIDES]",
            help="A run's name, a beginning of it, or its folder. With --weights: key=value of the configuration.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option("--weights", help="A checkpoint, with the configuration of the overrides.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="train, val or both, divided by a comma.")] = "train,val",
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")] = Path("proposals.npz"),
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """Writes what the RPN of a run, or of weights, proposes for every image (docs/stagewise.md).

    Images are as in testing; their best proposals are as many as in training for train
    (model.rpn.pre_nms_train, post_nms_train), and as in testing for val.

    Example: mrbench proposals rpn_small-74bdd1 --split train,val -o proposals.npz

    Example: mrbench proposals --weights final.pt recipe=mask_rcnn_r50_fpn_1x data.root=/data/coco --split val
    """
    splits = list(dict.fromkeys(split.split(",")))
    if unknown := [name for name in splits if name not in SPLITS]:
        raise UserError(
            f"--split {split} names {', '.join(unknown)!r}", "Splits are train and val: --split train,val."
        )
    config, weights = _model_of(target or [], weights, root, config_dir)
    if config.model.rpn.mode == "precomputed":
        raise UserError(
            "model.rpn.mode=precomputed is a model without an RPN: it proposes nothing",
            "Give the run that its proposals came from.",
        )
    if "train" in splits and config.data.train_more:
        raise UserError(
            "A file of proposals is for one file of annotations, but data.train_more names others",
            "Set data.train_more=[], or give --split val.",
        )
    if out.is_dir() or (out.parent.is_dir() and not os.access(out.parent, os.W_OK)):
        raise UserError(f"{out} cannot be written: it is a folder, or in one that you may not write to.")
    from mrbench.data.proposals import write_proposals

    tables = _propose(config, weights, splits)
    write_proposals(out, tables)
    told = (f"{len(t.boxes)} of {len(t.image_ids)} {name} images" for name, t in tables.items())
    typer.echo(f"proposals in {out}: {', '.join(told)}")


def _model_of(
    target: list[str], weights: Path | None, root: Path | None, config_dir: Path | None
) -> tuple["RunConfig", Path]:
    if weights is not None:
        config = compose(target, config_dir)
        if not weights.is_file():
            raise UserError(f"There is no file {weights}.")
        return config, weights
    if len(target) != 1 or "=" in target[0]:
        raise UserError("Give one run, or --weights and overrides.", "`mrbench runs list` shows the runs.")
    from mrbench.engine.evaluate import run_weights
    from mrbench.runs.record import find_run

    run = find_run(root_folder(root), target[0])
    return run.config(), run_weights(run)


def _propose(config: "RunConfig", weights: Path, splits: list[str]) -> "dict[str, ProposalTable]":
    from mrbench.data.sources import open_split
    from mrbench.engine.distributed import World
    from mrbench.engine.evaluate import testing_process, trained_network
    from mrbench.modeling.detector import MaskRCNN
    from mrbench.modeling.proposal_network import ProposalNetwork

    with testing_process(World(), None, config) as device:
        # All opened first: what is wrong with one is known before the work on another.
        datasets = {name: open_split(config.data, name) for name in splits}
        classes = len(next(iter(datasets.values())).categories)
        model = trained_network(config, weights, classes, World())
        if isinstance(model, MaskRCNN):
            assert model.rpn is not None
            mean, std = model.pixel_mean.flatten().tolist(), model.pixel_std.flatten().tolist()
            model = ProposalNetwork(model.backbone, model.neck, model.rpn, mean, std)
        network = model.to(device)
        counts = config.model.rpn
        tables = {}
        for name, dataset in datasets.items():
            training = replace(counts, pre_nms_test=counts.pre_nms_train, post_nms_test=counts.post_nms_train)
            network.rpn.config = training if name == "train" else counts
            tables[name] = _propose_split(network, config, name, dataset)
    return tables


def _propose_split(
    network: "ProposalNetwork", config: "RunConfig", split: str, dataset: "CocoDataset"
) -> "ProposalTable":
    from rich.console import Console
    from rich.progress import Progress, TextColumn, TimeRemainingColumn

    from mrbench.data.loader import eval_loader
    from mrbench.engine.precision import autocast
    from mrbench.evaluation.proposals import gather_proposals, propose_dataset

    device = network.pixel_mean.device
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:-1], TextColumn("{task.speed:.1f} images/s"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(f"proposing for {split}", total=len(dataset))
        found = propose_dataset(
            network,
            eval_loader(dataset, config),
            device,
            lambda: autocast(config.precision.kind, device),
            lambda done: progress.update(task, completed=done),
        )
    table = gather_proposals(found)
    assert table is not None
    return table
