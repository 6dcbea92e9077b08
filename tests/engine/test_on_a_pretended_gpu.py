"""What would break on a GPU, and where the host would wait for one, on machines without.

Twice, since neither shows all: with tensors that have no values but claim to lie on a GPU, operations refuse to mix
devices and copies to the device are seen; with a CPU's tensors that claim the same, a whole step runs as on a GPU, its
values can be compared, and whatever reads one back is seen.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import mrbench
from mrbench.bench.given import Given
from mrbench.bench.inputs import synthetic_batches
from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.engine.precision import set_matmul_precision
from mrbench.engine.step import TrainStep
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.build import Network, build_network
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.postprocess import keypoints_to_original, rescale

CPU = torch.device("cpu")
SOURCES = Path(mrbench.__file__).parent
CLASSES, SIDE = 4, 96
SMALL = [
    "data=shapes",
    "model.backbone.weights=null",
    "model.backbone.depth=10",
    "model.backbone.width=8",
    "model.neck.channels=32",
    "model.box_head.fc_channels=16",
    "model.box_head.conv_channels=32",
    "model.mask_head.channels=32",
    "model.keypoint_head.channels=16",
    "model.roi.samples=32",
    "runtime.device=cpu",
]
FPN = "model=mask_rcnn_r50_fpn"
ARCHITECTURES = {
    "small": ["model=mask_rcnn_small", "model.box_head.conv_channels=32"],
    "fpn": [FPN],
    "c4": ["model=mask_rcnn_r50_c4"],
    "dc5, deformable and non-local": [
        "model=mask_rcnn_r50_dc5",
        "model.backbone.depth=50",
        "model.backbone.deformable=[4]",
        "model.backbone.non_local=1",
    ],
    "cascade": ["model=cascade_mask_rcnn_r50_fpn"],
    "keypoints": ["model=keypoint_rcnn_r50_fpn", "model.mask_head.enabled=true"],
    "gn and 4conv1fc": ["model=mask_rcnn_r50_fpn_4conv1fc", "model.group_size=4"],
    "softmax masks": [FPN, "model.mask_head.loss=softmax", "model.rpn.border=0"],
    "roi_pool": ["model=mask_rcnn_r50_c4", "model.pooler.kind=roi_pool"],
    "roi_warp": [FPN, "model.pooler.kind=roi_warp", "model.pooler.sampling_ratio=2", "model.pooler.aggregate=max"],
    "separable": [FPN, "model.pooler.method=separable", "model.pooler.sampling_ratio=2"],
    "precomputed": [FPN, "model.rpn.mode=precomputed", "data.train.proposals=a.npz", "data.val.proposals=a.npz"],
    "rpn only": [FPN, "model.rpn.mode=only"],
}
# Where the host waits in training, by what asks for it.
SUPPRESSION = {"modeling/boxes.py: suppress"}
WAITING = {
    "mlp masks": ([FPN, "model.mask_head.kind=mlp"], {"modeling/mlp_mask_head.py: of_channel"}),
    "bn in the heads": (
        ["model=mask_rcnn_r50_fpn_4conv1fc", "model.norm=bn"],
        {"modeling/roi_samples.py: flat"},
    ),
    "bn in res5": (
        ["model=mask_rcnn_r50_c4", "model.norm=bn"],
        {"modeling/roi_samples.py: flat", "modeling/res5.py: _head_losses"},
    ),
    "bn in a cascade": (
        ["model=cascade_mask_rcnn_r50_fpn", "model.box_head.convs=1", "model.box_head.norm=bn"],
        {"modeling/roi_samples.py: flat", "modeling/roi_samples.py: only"},
    ),
}


def start(changes: Sequence[str]) -> tuple[RunConfig, Network, Batch]:
    """A narrow network with every proposal of an image, and a batch for it."""
    config = compose([*(c for c in changes if c.startswith("model=")), *SMALL, *changes])
    torch.manual_seed(0)
    network = build_network(config.model, CLASSES)
    model = config.model
    keypoints = model.keypoint_head.keypoints if model.keypoint_head.enabled else 0
    (batch,) = synthetic_batches(
        1, 2, SIDE, SIDE, 3, CLASSES, model.mask_head.enabled, 0, keypoints, neck=model.neck.kind
    )
    if model.rpn.mode == "precomputed":
        batch = Given(network, config, None).to(batch)
    return config, network, batch


def place_in_sources() -> str:
    """Which function of the package is at work: "modeling/boxes.py: suppress"."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(SOURCES):
            return f"{path.relative_to(SOURCES)}: {frame.f_code.co_qualname.split('.')[-1]}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"


class Waits(TorchDispatchMode):
    """Counts, by where they come from, operations whose result's shape or value the host must know."""

    NAMES = frozenset(
        {
            *("_local_scalar_dense", "is_nonzero", "equal", "nonzero", "masked_select", "bincount", "nms"),
            *("_unique", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
        }
    )

    def __init__(self) -> None:
        super().__init__()
        self.places: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._overloadpacket.__name__
        by_mask = name.startswith(("index", "_unsafe_index", "_index_put")) and any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in _indices(args)
        )
        if name in self.NAMES or by_mask:
            self.places[place_in_sources()] += 1
        return func(*args, **(kwargs or {}))


class Copies(TorchDispatchMode):
    """Collects where a tensor goes from one device to another and the host waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.places: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        if name == "_to_copy":
            waits = out.device != args[0].device and not (kwargs or {}).get("non_blocking", False)
        elif name == "copy_":
            waits = args[0].device != args[1].device and not any(args[2:])
        else:  # an index that lies elsewhere is copied
            waits = any(isinstance(i, Tensor) and i.dim() and i.device != args[0].device for i in _indices(args))
        if waits:
            self.places.add(place_in_sources())
        return out


def _indices(args: Sequence[Any]) -> Sequence[Any]:
    return args[1] if len(args) > 1 and isinstance(args[1], list | tuple) and isinstance(args[0], Tensor) else ()


class ClaimsGpu(TorchFunctionMode):
    """Within it every tensor says that it lies on a GPU, so that the network goes the way that it goes there."""

    READING = frozenset({Tensor.tolist, Tensor.cpu, Tensor.numpy})  # which a CPU's tensors do without an operation

    def __init__(self, waits: Waits) -> None:
        super().__init__()
        self.waits = waits

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func == Tensor.is_cuda.__get__:  # type: ignore[attr-defined]
            return True
        if func in self.READING:
            self.waits.places[place_in_sources()] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def without_values(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Within it tensors have no values. Suppression, which must know some, keeps the better half."""
    monkeypatch.setattr(box_ops, "batched_nms", lambda boxes, *_: torch.arange(len(boxes) // 2, device=boxes.device))
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def to_gpu(network: nn.Module) -> None:
    """What `network.to` does, which tensors without values do not take part in. Plain attributes stay behind."""
    for module in network.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(parameter.detach().to("cuda"), parameter.requires_grad)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else buffer.to("cuda")


@contextmanager
def autocast_of_gpus(dtype: torch.dtype) -> Iterator[None]:
    """torch.autocast("cuda"), which does nothing on a machine without a GPU."""
    before = torch.is_autocast_enabled("cuda"), torch.get_autocast_dtype("cuda")
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", dtype)
    torch.autocast_increment_nesting()
    try:
        yield
    finally:
        if torch.autocast_decrement_nesting() == 0:
            torch.clear_autocast_cache()
        torch.set_autocast_enabled("cuda", before[0])
        torch.set_autocast_dtype("cuda", before[1])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_training_pass_stays_on_the_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, network, batch = start(ARCHITECTURES[name])
    network.train()
    with without_values(monkeypatch):
        to_gpu(network)
        batch = batch.to("cuda")
        with Copies() as copies, autocast_of_gpus(torch.float16):
            terms = network(batch)
            counts = network.count_samples(batch)
        assert not copies.places
        assert list(counts) == list(terms)
        for term in terms.values():
            assert term.sum.is_cuda
            assert term.count.is_cuda
            assert term.sum.dtype == torch.float32
        assert all(value.is_cuda and value.dim() == 0 for value in counts.values())


def test_no_more_boxes_are_suppressed_at_once_than_torchvision_takes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    _, network, _ = start(ARCHITECTURES["fpn"])
    assert network.rpn is not None
    asked = []
    with without_values(monkeypatch), torch.no_grad():
        to_gpu(network)
        keep_half = box_ops.batched_nms
        monkeypatch.setattr(box_ops, "batched_nms", lambda boxes, *rest: (asked.append(boxes), keep_half(boxes))[1])
        features = [torch.empty(8, 32, 800 // s, 1344 // s, device="cuda") for s in (4, 8, 16, 32, 64)]
        network.rpn.propose(network.rpn(features), torch.empty(8, 2, dtype=torch.int64, device="cuda"))
    assert sum(map(len, asked)) == 8 * (4 * 2000 + 12 * 21 * 3)
    assert len(asked) == 4
    assert all(boxes.numel() <= 100_000 for boxes in asked)  # torchvision, ops/boxes.py, `batched_nms`


@pytest.mark.parametrize("name", ["small", "c4", "cascade", "keypoints"])
def test_layers_of_detection_stay_on_the_gpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, network, batch = start(ARCHITECTURES[name])
    assert isinstance(network, MaskRCNN)
    network.eval()
    with without_values(monkeypatch), torch.no_grad():
        to_gpu(network)
        batch = batch.to("cuda")
        with Copies() as copies, autocast_of_gpus(torch.float16):
            features = network.features(batch)
            proposals = network.proposals(features, batch)
            boxes = proposals.boxes.flatten(0, 1)
            image = torch.zeros(len(boxes), dtype=torch.int64, device="cuda")
            logits, deltas, *_ = network._scored(features, boxes, image, batch.sizes)
            masks = network.masks_of(features, boxes, image, image)
            maps = network.heatmaps_of(features, boxes, image)
            sizes = batch.sizes[image]
            boxes = rescale(boxes, sizes, sizes)
            points = keypoints_to_original(boxes[:, None, :3], sizes, sizes)
        assert not copies.places
        found = [logits, deltas, boxes, points, *(part for part in (masks, maps) if part is not None)]
        assert all(part.is_cuda and part.dtype == torch.float32 for part in found)


def train_once(changes: Sequence[str], gpu: bool) -> tuple[dict[str, float], dict[str, Tensor], set[str]]:
    """Losses and weights after a step, and where the second step would make the host wait."""
    config, network, batch = start(changes)
    step = TrainStep(network, config, CPU)
    waits = Waits()
    with ClaimsGpu(waits) if gpu else nullcontext():
        losses = step(batch)
        weights = {name: value.clone() for name, value in network.state_dict().items()}
        waits.places.clear()
        with waits:  # the optimiser has its state by now
            step(batch)
    return {name: float(value) for name, value in losses.items()}, weights, set(waits.places)


OPTIONS = {
    "clipped and averaged": ["optimizer.clip_norm=5", "optimizer.ema=0.9"],
    "fp16": ["precision=fp16", "optimizer.clip_norm=5"],
    "bf16, sgd": ["precision=bf16", "optimizer=sgd", "optimizer.clip_value=1"],
    "in parts": ["runtime.accumulate=2", "runtime.activation_checkpointing=true", "runtime.channels_last=true"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_only_suppression_waits_in_a_step(name: str) -> None:
    assert train_once([*ARCHITECTURES["small"], *OPTIONS[name]], gpu=True)[2] == SUPPRESSION


@pytest.mark.parametrize("name", [*ARCHITECTURES, *WAITING])
def test_a_step_does_on_a_gpu_what_it_does_on_a_cpu(name: str) -> None:
    changes, further = WAITING.get(name, (ARCHITECTURES.get(name, []), set()))
    known = set() if name in ("precomputed", "rpn only") else SUPPRESSION
    changes = [*changes, "optimizer=sgd"]
    expected, weights, _ = train_once(changes, gpu=False)
    losses, found, waits = train_once(changes, gpu=True)
    assert waits == known | further
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-5)
    for key, value in weights.items():
        assert torch.allclose(found[key], value, rtol=1e-3, atol=1e-5), key


@pytest.mark.parametrize("name", ["fpn", "keypoints"])
def test_detection_waits_for_suppression_and_for_what_it_found(name: str) -> None:
    _, network, batch = start([*ARCHITECTURES[name], "model.inference.score_threshold=0.0001"])
    assert isinstance(network, MaskRCNN)
    network.eval()
    expected = network.detect(batch)
    waits = Waits()
    with ClaimsGpu(waits), waits:
        found = network.detect(batch)
    of_keypoints = {"modeling/keypoint_decode.py: heatmaps_to_keypoints": 1} if name == "keypoints" else {}
    several = waits.places.pop("modeling/boxes.py: suppress")
    assert several >= 2  # the RPN's and that of the detections
    assert waits.places == {
        "modeling/postprocess.py: candidates": 1,
        "modeling/postprocess.py: best": 1,
        "modeling/detector.py: finish": 2,
        **of_keypoints,
    }
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs) > 0
        assert torch.allclose(ours.boxes, theirs.boxes, atol=1e-3)
        assert torch.allclose(ours.scores, theirs.scores, atol=1e-5)


def test_switches_of_tf32_agree() -> None:
    try:
        for kind, allowed in (("tf32", True), ("fp32", False), ("fp16", False)):
            set_matmul_precision(kind)
            # what parts of torch.compile read, which raises where old and new switches differ
            assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.backends.cudnn.allow_tf32 is allowed
            assert (torch.backends.cuda.matmul.fp32_precision == "tf32") is allowed
            assert (torch.backends.cudnn.conv.fp32_precision == "tf32") is allowed  # type: ignore[attr-defined]
    finally:
        set_matmul_precision("fp32")
