"""Annotations of pictures that have none, predicted by a model with all its processes."""

import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import cast

import torch.distributed as dist
from rich.console import Console
from rich.progress import Progress

from mrbench.config.schema import RunConfig
from mrbench.data.coco import CocoDataset
from mrbench.data.picture_files import picture_files
from mrbench.data.sources import open_split
from mrbench.engine.distributed import World, main_process_first
from mrbench.engine.evaluate import testing_process, trained_network
from mrbench.engine.precision import autocast
from mrbench.engine.processes import carry_out
from mrbench.errors import UserError
from mrbench.evaluation.distill import as_annotations, threshold_for, usable
from mrbench.evaluation.folder import open_pictures
from mrbench.evaluation.inference import detect_as_configured, gather_results
from mrbench.modeling.detector import MaskRCNN
from mrbench.runs.files import replacing, sha256


def distill(config: RunConfig, weights: Path, folder: Path, out: Path, score: float | None = None) -> None:
    """Write a COCO file of the pictures in `folder`, with what the model finds in them as annotations.

    Kept are detections of `score` or more. Without it, as many an image as the training images have on average
    (Radosavovic et al. 2018, section 4); images without annotations and those without detections count as well, crowds
    do not. Test-time augmentation is that of `evaluation.tta`. `runtime.devices` processes share the pictures, or
    those that torchrun or srun started.

    Raises:
        UserError: pictures, weights or the training images cannot be used, or nothing was found.
        RunFailed, Preempted: as `run_processes`.
    """
    picture_files([folder])  # before longer work
    carry_out(_distill_process, config.runtime.devices, (config, weights, folder, out, score))


def _distill_process(
    world: World,
    store: dist.Store | None,
    config: RunConfig,
    weights: Path,
    folder: Path,
    out: Path,
    score: float | None,
) -> None:
    with testing_process(world, store, config) as device:
        with main_process_first(world):
            labelled = open_split(config.data, "train")
        pictures = open_pictures(picture_files([folder]), labelled.categories)
        model = cast(MaskRCNN, trained_network(config, weights, len(pictures.categories), world)).to(device)
        console = Console(stderr=True)
        quiet = not (world.main and console.is_terminal)
        with Progress(console=console, transient=True, disable=quiet) as progress:
            task = progress.add_task("detecting", total=-(-len(pictures) // world.size))
            found = detect_as_configured(
                model,
                cast(CocoDataset, pictures),
                config,
                device,
                partial(autocast, config.precision.kind, device),
                lambda done: progress.update(task, completed=done),
                world.rank,
                world.size,
            )
        results = gather_results(usable(found))
    if results is None:
        return
    instances = float(labelled.trainable.sum()) / len(labelled)
    rule = "--score" if score is not None else f"as many an image as {labelled.annotation_file} has"
    if score is None:
        score = threshold_for([item["score"] for item in results], instances * len(pictures))
    tta = asdict(config.evaluation.tta) if config.evaluation.tta.enabled else None
    info = {
        "description": "annotations that a model predicted",
        "weights": str(weights),
        "weights_sha256": sha256(weights),
        "pictures": str(folder),
        "score": score,
        "rule": rule,
        "labelled_instances_per_image": instances,
        "tta": tta,
    }
    content = as_annotations(results, pictures.images, pictures.categories, score, info)
    number = len(content["annotations"])
    if not number:
        raise UserError(
            f"The model finds nothing of score {score:g} or more in {folder}", "Give a lower one with --score."
        )
    with replacing(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.write(json.dumps(content))
    print(
        f"{number} annotations of score {score:.3f} or more in {len(pictures)} pictures, {number / len(pictures):.2f} "
        f"an image (training images: {instances:.2f}): {out}"
    )
