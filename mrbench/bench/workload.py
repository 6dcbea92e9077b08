"""What is timed in a network's modes: a training step, or the detection of one batch, on fixed inputs."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from mrbench.bench.given import Given, proposals_text
from mrbench.bench.inputs import COCO_CLASSES, data_batches, synthetic_batches
from mrbench.bench.matrix import Case
from mrbench.bench.peer import PeerStep, inference_peer, training_peer
from mrbench.bench.split import Call
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.sources import open_split
from mrbench.engine.checkpoint import load_model_weights
from mrbench.engine.distributed import World
from mrbench.engine.execution import place, set_algorithms, speed_up
from mrbench.engine.precision import autocast, check_precision, set_matmul_precision
from mrbench.engine.step import TrainStep
from mrbench.errors import UserError
from mrbench.modeling.build import Network, build_network
from mrbench.modeling.detector import MaskRCNN

DIFFERENT_BATCHES = 4  # R-CNN's time depends on the picture, so a block goes through several
CANDIDATES = 4  # regions above the score threshold for each detection that is kept, with random weights


@dataclass
class Workload:
    """What one process measures or tries: a row, and what all rows share."""

    case: Case
    instances: int
    positives: int | None  # RoIs an image, where proposals are stated; None: half of those there is room for
    inputs: str  # "synthetic" or "data"
    peer: str | None = None  # whose implementation is measured too: "torchvision"
    batches: int = DIFFERENT_BATCHES
    classes: int | None = None  # stated; None: those of the inputs
    most_devices: int = 1  # of any row: on a CPU they share the cores, so that all rows have as many threads a process


@dataclass
class Prepared:
    """A network with its inputs. `step` queues one step; `facts` tells, at the end, what the steps did."""

    step: Callable[[], object]
    cycle: int  # different inputs that `step` goes through
    facts: Callable[[], dict[str, Any]]
    calls: list[Call] = field(default_factory=list)  # the parts of a step; none where it has no parts
    unsynchronised: Callable[[], AbstractContextManager[object]] | None = None  # steps without exchange of gradients
    peer: Callable[[], PeerStep] | None = None  # builds torchvision's network for the same work


def prepare(config: RunConfig, workload: Workload, device: torch.device, world: World = World()) -> Prepared:
    """Build the network and lay its inputs on the device.

    Weights are `model.weights` where given, otherwise random: the body's own weights are not loaded, since they do
    not make predictions. With random weights the heads get stated proposals, whatever the RPN, which does all of its
    work, has found. Raises UserError where the device cannot compute in the precision, or files are missing.
    """
    config, model, classes = build(config, workload, device, world)
    mode = workload.case.mode
    batches = [batch.to(device) for batch in _batches(config, workload, len(classes), world)]
    given: Given | None = None
    if config.model.weights is None:
        given = Given(model, config, workload.positives)
        batches = [given.to(batch) for batch in batches]
        normalise_frozen_norms(model, batches[0])
    if mode == "train":
        return _training(model, config, batches, device, world, given)
    return _inference(model, config, batches, device, given)


def build(
    config: RunConfig, workload: Workload, device: torch.device, world: World
) -> tuple[RunConfig, Network, list[str]]:
    """The configuration of the row, its network on the device, and the names of its classes."""
    case = workload.case
    assert case.precision is not None
    check_precision(case.precision, device)
    set_matmul_precision(case.precision)
    config = of_case(config, case)
    set_algorithms(config.runtime, device)
    classes = class_names(config, workload)
    torch.manual_seed(config.seed)
    model = build_network(config.model, len(classes))
    if config.model.weights is not None:
        by_name = classes if config.model.weights_classes == "by_name" else None
        load_model_weights(Path(config.model.weights), model, config.model.weights_mismatch, by_name)
    return config, model.to(device), classes


def of_case(config: RunConfig, case: Case) -> RunConfig:
    """The configuration of one row, which takes its batch at once."""
    runtime = replace(
        config.runtime,
        devices=case.devices,
        accumulate=1,
        channels_last=case.channels_last,
        compile=case.compile,
    )
    return replace(
        config,
        model=replace(config.model, backbone=replace(config.model.backbone, weights=None)),
        schedule=replace(config.schedule, images_per_batch=case.batch * case.devices),
        precision=replace(config.precision, kind=case.precision or config.precision.kind),
        runtime=runtime,
    )


def class_names(config: RunConfig, workload: Workload) -> list[str]:
    """Stated; of the data set where it is read, or where weights go by the names; otherwise as many as COCO has."""
    if workload.classes is not None:
        return [f"class {k}" for k in range(workload.classes)]
    if workload.inputs == "data" or workload.case.mode == "end-to-end" or config.model.weights_classes == "by_name":
        return [category.name for category in open_split(config.data, "train").categories]
    number = config.data.shapes.classes if config.data.kind == "shapes" else COCO_CLASSES
    return [f"class {k}" for k in range(number)]


def _batches(config: RunConfig, workload: Workload, classes: int, world: World) -> list[Batch]:
    case, model = workload.case, config.model
    if workload.inputs == "data":
        return data_batches(config, case.mode, workload.batches, case.batch, world)[0]
    if model.rpn.mode == "precomputed" and model.weights is not None:
        raise UserError(
            "model.rpn.mode=precomputed needs proposals, and synthetic pictures have none that fit given weights",
            "Give --inputs data, or leave model.weights away: then proposals are stated.",
        )
    assert case.image_size is not None
    height, width = case.image_size
    head, masks = model.keypoint_head, model.mask_head.enabled
    return synthetic_batches(
        workload.batches,
        case.batch,
        height,
        width,
        workload.instances,
        classes,
        masks,
        # Every process its own pictures. The first one's are those that it has alone.
        config.seed + 1000 * world.rank,
        head.keypoints if head.enabled else 0,
        model.neck.kind,
    )


@torch.no_grad()
def normalise_frozen_norms(model: Network, batch: Batch) -> None:
    """Give frozen batch norms, those of the heads too, the statistics of `batch`, layer by layer.

    With random weights and no statistics a deep network's activations grow block by block until proposals are
    degenerate (and fp16 overflows); what is then timed is not what training and testing do.
    """

    def take(norm: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> Tensor:
        x = inputs[0].float()  # of a folded norm too: without statistics the fold changes nothing
        if len(x):
            norm.get_buffer("running_mean").copy_(x.mean((0, 2, 3)))
            norm.get_buffer("running_var").copy_(x.var((0, 2, 3), correction=0))
        return FrozenBatchNorm2d.forward(norm, x)

    norms = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    hooks = [norm.register_forward_hook(take) for norm in norms]
    if norms:
        model(batch[: min(len(batch), 2)])
    for hook in hooks:
        hook.remove()


def calls_of(model: Network) -> list[Call]:
    """The parts of a forward pass. What is in neither body, neck nor RPN is the RoI heads', sampling included."""
    if isinstance(model, MaskRCNN):
        calls: list[Call] = [(model, "forward", "roi_heads"), (model, "detect", "roi_heads")]
    else:
        calls = [(model, "forward", "rpn"), (model, "propose", "rpn")]
    calls.append((model, "features", "backbone"))
    if model.rpn is not None:
        calls += [(model.rpn, name, "rpn") for name in ("forward", "losses", "propose")]
    return calls


def calls_of_training(train: TrainStep) -> list[Call]:
    """With zeroing of gradients in the rest."""
    calls = [*calls_of(train.model), (train, "_backward", "backward"), (train, "_update", "optimiser")]
    return calls + ([(train, "_over_processes", "communication")] if train.world_size > 1 else [])


def unsynchronised(train: TrainStep, world: World) -> Callable[[], AbstractContextManager[object]] | None:
    return train._network.no_sync if world.size > 1 else None  # type: ignore[return-value]


def training_facts(
    model: Network, config: RunConfig, batch: Batch, losses: Mapping[str, Tensor], proposals: str
) -> dict[str, Any]:
    """What the last step did, and what it had to do on `batch`, by an image."""
    with autocast(config.precision.kind, batch.images.device):
        counts = {name: float(count) for name, count in model.count_samples(batch).items()}
    images = len(batch)
    told: dict[str, Any] = {
        "instances_per_image": float((batch.labels >= 0).sum()) / images,
        "loss_is_finite": math.isfinite(float(losses["loss"])),
        "proposals": proposals,
    }
    if isinstance(model, MaskRCNN):
        told["rois_per_image"] = counts.get("box_class", counts.get("box_class_1", 0.0)) / images
        if "mask" in counts:
            told["positive_rois_per_image"] = counts["mask"] / model.mask_side**2 / images
    return told


def _training(
    model: Network,
    config: RunConfig,
    batches: list[Batch],
    device: torch.device,
    world: World,
    given: Given | None,
) -> Prepared:
    train = TrainStep(model, config, device, world.size)
    turn = cycle(batches)
    last: dict[str, Tensor] = {}

    def step() -> None:
        batch = next(turn)
        last.update(train(batch if given is None else given.at(batch)))

    def facts() -> dict[str, Any]:
        first = batches[0] if given is None else given.at(batches[0])
        return training_facts(model, config, first, last, proposals_text(config, given))

    prepared = Prepared(step, len(batches), facts, calls_of_training(train), unsynchronised(train, world))
    if isinstance(model, MaskRCNN):
        prepared.peer = partial(training_peer, model, config, batches, given is not None, device)
    return prepared


def _inference(
    model: Network, config: RunConfig, batches: list[Batch], device: torch.device, given: Given | None
) -> Prepared:
    model = place(model, config.runtime, device).eval()
    speed_up(model, config.runtime, device)
    kind = config.precision.kind
    if given is not None:
        batches = [given.to(batch) for batch in batches]

    def detect(batch: Batch) -> list[Any]:
        if given is not None:
            given.at(batch)
        with torch.inference_mode(), autocast(kind, device):
            return list(model.detect(batch) if isinstance(model, MaskRCNN) else model.propose(batch))

    if given is not None and isinstance(model, MaskRCNN):
        set_score_threshold(model, batches[0], detect)
    turn = cycle(batches)

    def facts() -> dict[str, Any]:
        counts = [len(found.boxes) for batch in batches for found in detect(batch)]
        told: dict[str, Any] = {"proposals": proposals_text(config, given)}
        if isinstance(model, MaskRCNN):
            told["detections_per_image"] = sum(counts) / len(counts)
            told["score_threshold"] = model.inference.score_threshold
        else:
            told["proposals_per_image"] = sum(counts) / len(counts)
        return told

    prepared = Prepared(lambda: detect(next(turn)), len(batches), facts, calls_of(model))
    if isinstance(model, MaskRCNN):
        prepared.peer = partial(inference_peer, model, config, batches, given is not None, device)
    return prepared


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
