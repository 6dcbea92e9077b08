"""What is timed: one training step, or the detection of one batch, on fixed inputs that lie on the device."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from mrbench.bench.inputs import COCO_CLASSES, data_batches, synthetic_batches
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.engine.checkpoint import load_model_weights
from mrbench.engine.precision import autocast, check_precision, set_matmul_precision
from mrbench.engine.step import TrainStep
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN

DIFFERENT_BATCHES = 4  # R-CNN's time depends on the picture, so a block goes through several
CANDIDATES = 4  # regions above the score threshold for each detection that is kept, with random weights


@dataclass
class Workload:
    """What one process measures or tries."""

    mode: str  # "train" or "infer"
    precision: str
    batch: int
    image_size: list[int]  # height, width
    instances: int
    inputs: str  # "synthetic" or "data"


@dataclass
class Prepared:
    """A network with its inputs. `step` queues one step; `facts` tells, at the end, what the steps did."""

    step: Callable[[], object]
    cycle: int  # different inputs that `step` goes through
    facts: Callable[[], dict[str, Any]]


def prepare(config: RunConfig, workload: Workload, device: torch.device) -> Prepared:
    """Build the network and lay its inputs on the device.

    Weights are `model.weights` where given, otherwise random: the body's own weights are not loaded, since they do
    not make predictions. Raises UserError where the device cannot compute in the precision, or files are missing.
    """
    check_precision(workload.precision, device)
    set_matmul_precision(workload.precision)
    config = _single(config, workload)
    batches, classes = _inputs(config, workload)
    torch.manual_seed(config.seed)
    model = build_detector(config.model, classes)
    batches = [batch.to(device) for batch in batches]
    model.to(device)
    if config.model.weights is None:
        normalise_frozen_norms(model, batches[0])
    else:
        load_model_weights(Path(config.model.weights), model, config.model.weights_mismatch)
    build = _training if workload.mode == "train" else _inference
    return build(model, config, batches, device)


def _single(config: RunConfig, workload: Workload) -> RunConfig:
    """The configuration of one process that takes its batch at once."""
    return replace(
        config,
        model=replace(config.model, backbone=replace(config.model.backbone, weights=None)),
        schedule=replace(config.schedule, images_per_batch=workload.batch),
        precision=replace(config.precision, kind=workload.precision),
        runtime=replace(config.runtime, devices=1, accumulate=1),
    )


def _inputs(config: RunConfig, workload: Workload) -> tuple[list[Batch], int]:
    if workload.inputs == "data":
        return data_batches(config, workload.mode, DIFFERENT_BATCHES, workload.batch)
    if config.model.rpn.mode == "precomputed":
        raise UserError(
            "model.rpn.mode=precomputed needs proposals, and synthetic pictures have none", "Give --inputs data."
        )
    classes = config.data.shapes.classes if config.data.kind == "shapes" else COCO_CLASSES
    height, width = workload.image_size
    head, masks = config.model.keypoint_head, config.model.mask_head.enabled
    keypoints = head.keypoints if head.enabled else 0
    batches = synthetic_batches(
        DIFFERENT_BATCHES, workload.batch, height, width, workload.instances, classes, masks, config.seed, keypoints
    )
    return batches, classes


@torch.no_grad()
def normalise_frozen_norms(model: nn.Module, batch: Batch) -> None:
    """Give frozen batch norms the statistics of `batch`, layer by layer.

    With random weights and no statistics a deep network's activations grow block by block until proposals are
    degenerate (and fp16 overflows); what is then timed is not what training and testing do.
    """

    def take(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        x = inputs[0].float()  # of a folded norm too: without statistics the fold changes nothing
        norm.get_buffer("running_mean").copy_(x.mean((0, 2, 3)))
        norm.get_buffer("running_var").copy_(x.var((0, 2, 3), correction=0))
        return FrozenBatchNorm2d.forward(norm, x)

    norms = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_hook(take) for norm in norms]
    if norms and isinstance(model, MaskRCNN):
        model.features(batch[: min(len(batch), 2)])
    for hook in hooks:
        hook.remove()


def _training(model: MaskRCNN, config: RunConfig, batches: list[Batch], device: torch.device) -> Prepared:
    train = TrainStep(model, config, device)
    turn = cycle(batches)
    last: dict[str, Tensor] = {}

    def step() -> None:
        last.update(train(next(turn)))

    def facts() -> dict[str, Any]:
        with autocast(config.precision.kind, device):
            counts = {name: float(count) for name, count in model.count_samples(batches[0]).items()}
        images = len(batches[0])
        told: dict[str, Any] = {
            "instances_per_image": float((batches[0].labels >= 0).sum()) / images,
            "rois_per_image": counts.get("box_class", counts.get("box_class_1", 0.0)) / images,
            "loss_is_finite": math.isfinite(float(last["loss"])),
        }
        if "mask" in counts and model.mask_pooler is not None:
            pixels = (2 * model.mask_pooler.size) ** 2
            told["positive_rois_per_image"] = counts["mask"] / pixels / images
        return told

    return Prepared(step, len(batches), facts)


def _inference(model: MaskRCNN, config: RunConfig, batches: list[Batch], device: torch.device) -> Prepared:
    model.eval()
    kind = config.precision.kind

    def detect(batch: Batch) -> list[Any]:
        with torch.inference_mode(), autocast(kind, device):
            return list(model.detect(batch))

    if config.model.weights is None:
        set_score_threshold(model, batches[0], detect)
    turn = cycle(batches)

    def facts() -> dict[str, Any]:
        counts = [len(found) for batch in batches for found in detect(batch)]
        return {
            "detections_per_image": sum(counts) / len(counts),
            "score_threshold": model.inference.score_threshold,
        }

    return Prepared(lambda: detect(next(turn)), len(batches), facts)


def set_score_threshold(model: MaskRCNN, batch: Batch, detect: Callable[[Batch], object]) -> None:
    """Put the score threshold where random weights give work like trained ones.

    Random scores all lie near 1 / (classes + 1): the configured threshold would pass nothing, or everything. The
    new one passes `CANDIDATES` regions for each of the `detections_per_image` that suppression may keep.
    """
    logits: list[Tensor] = []
    hook = model.box_head.register_forward_hook(lambda _module, _inputs, output: logits.append(output[0]))
    detect(batch)
    hook.remove()
    scores = logits[0].float().softmax(1)[:, :-1].flatten()
    wanted = min(CANDIDATES * model.inference.detections_per_image * len(batch), len(scores))
    threshold = float(scores.topk(wanted).values[-1]) if wanted else 0.0
    # Just below it: `>` must let the last one through.
    model.inference = replace(model.inference, score_threshold=threshold * (1 - 1e-6))
