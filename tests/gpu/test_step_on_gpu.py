"""A training step on a GPU: it waits for nothing but suppression, and computes what a CPU computes."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pytest
import torch

from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.execution import check_compiler, set_algorithms
from mrbench.engine.nonfinite import LossGuard
from mrbench.engine.precision import set_matmul_precision
from mrbench.engine.step import TrainStep
from mrbench.errors import UserError
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.build import build_detector

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SMALL = (
    *("data.shapes.image_size=64", "data.shapes.diameters=[9,40]", "data.shapes.train_images=24"),
    *("data.shapes.val_images=2", "runtime.num_workers=0", "schedule.images_per_batch=2", "data=shapes"),
    *(
        "model.backbone.weights=null",
        "model.backbone.width=16",
        "model.neck.channels=32",
        "model.mask_head.channels=32",
    ),
)
# Every anchor becomes a proposal and every proposal is trained on: nothing hangs on the order of nearly equal scores.
EVERY_PROPOSAL = (
    *("model.rpn.pre_nms_train=400", "model.rpn.post_nms_train=400", "model.rpn.nms_threshold=1.0"),
    *("model.roi.samples=512", "model.roi.positive_fraction=1.0"),
)
ARCHITECTURES = {
    "small": ["model=mask_rcnn_small"],
    "fpn": ["model=mask_rcnn_r50_fpn"],
    "c4": ["model=mask_rcnn_r50_c4"],
    "cascade": ["model=cascade_mask_rcnn_r50_fpn"],
    "roi_warp": ["model=mask_rcnn_r50_fpn", "model.pooler.kind=roi_warp", "model.pooler.sampling_ratio=2"],
}
WITHIN = {"fp32": 1e-3, "tf32": 0.02, "fp16": 0.03, "bf16": 0.05}  # of the loss in fp32 on a CPU


@pytest.fixture(autouse=True)
def _switches() -> Iterator[None]:
    yield
    set_matmul_precision("fp32")
    set_algorithms(compose().runtime, GPU)


def start(config: RunConfig, device: torch.device) -> TrainStep:
    torch.manual_seed(0)
    return TrainStep(build_detector(config.model, len(open_split(config.data, "train").categories)), config, device)


def batches(config: RunConfig, count: int) -> list[Batch]:
    return list(islice(train_loader(open_split(config.data, "train"), config), count))


@contextmanager
def refusing_waits(mode: str = "error") -> Iterator[None]:
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode(mode)
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


@pytest.mark.parametrize("kind", ["fp32", "tf32", "fp16", "bf16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_step_waits_for_nothing_but_suppression(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    suppress = box_ops.batched_nms

    def allowed(*arguments: Any) -> torch.Tensor:
        with refusing_waits("default"):
            return suppress(*arguments)

    monkeypatch.setattr(box_ops, "batched_nms", allowed)
    config = compose([*ARCHITECTURES[name], *SMALL, f"precision={kind}", "optimizer.clip_norm=5", "optimizer.ema=0.9"])
    step, guard = start(config, GPU), LossGuard()
    on_gpu = [batch.to(GPU) for batch in batches(config, 5)]
    for batch in on_gpu[:2]:  # the optimiser makes its state, cuDNN chooses its kernels
        step(batch)
    with refusing_waits():
        for batch in on_gpu[2:]:
            guard.add(batch.iteration, step(batch), batch.image_ids)
    if name == "small":  # deep networks with random weights and frozen norms overflow in fp16
        guard.check()


def test_pages_are_locked_so_that_copying_does_not_wait() -> None:
    config = compose([*SMALL])
    (batch,) = batches(config, 1)
    assert batch.images.is_pinned()
    assert batch.masks is not None
    assert batch.masks.table.is_pinned()
    with refusing_waits():
        batch.to(GPU, non_blocking=True)


def first_losses(config: RunConfig, device: torch.device) -> list[dict[str, float]]:
    """Of three steps, the third after two updates."""
    step = start(config, device)
    found = [step(batch) for batch in batches(config, 3)]
    return [{name: float(value) for name, value in losses.items()} for losses in found]


@pytest.mark.parametrize("changes", [(), ("runtime.channels_last=true",), ("model.pooler.method=torchvision",)])
@pytest.mark.parametrize("kind", WITHIN)
def test_losses_are_those_of_a_cpu(kind: str, changes: tuple[str, ...]) -> None:
    plain = [*SMALL, *EVERY_PROPOSAL, "optimizer=sgd", *changes]
    expected = first_losses(compose([*plain, "runtime.device=cpu"]), CPU)
    found = first_losses(compose([*plain, f"precision={kind}"]), GPU)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=WITHIN[kind], abs=WITHIN[kind])


def test_compiled_losses_are_those_of_plain_code() -> None:
    try:
        check_compiler(GPU)
    except UserError as error:
        pytest.skip(error.what)
    plain = [*SMALL, *EVERY_PROPOSAL, "optimizer=sgd"]
    for kind in ("tf32", "fp16"):
        expected = first_losses(compose([*plain, f"precision={kind}"]), GPU)
        found = first_losses(compose([*plain, f"precision={kind}", "runtime.compile=true"]), GPU)
        for ours, theirs in zip(found, expected, strict=True):
            assert ours == pytest.approx(theirs, rel=WITHIN[kind], abs=WITHIN[kind])


def test_fixed_algorithms_give_the_same_bits_twice() -> None:
    config = compose([*SMALL, "runtime.deterministic=true", "runtime.channels_last=true"])
    found = []
    for _ in range(2):
        step = start(config, GPU)
        losses = [float(step(batch)["loss"]) for batch in batches(config, 10)]
        found.append((losses, [parameter.detach().cpu() for parameter in step.model.parameters()]))
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
