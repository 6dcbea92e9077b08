"""torchvision's network beside ours: that both do the same work, and that turns are taken and counted as said."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from mrbench.bench.inputs import synthetic_batches
from mrbench.bench.matrix import Case
from mrbench.bench.measure import Limits, Stopwatch, take_turns
from mrbench.bench.peer import BLOCKS, NORMS, PeerStep, build_peer, full_mask, pictures, take_weights, targets
from mrbench.bench.peer_fits import DEPTHS, check_peer
from mrbench.bench.peer_fits import NORMS as NORM_NAMES
from mrbench.bench.rows import against_peer
from mrbench.bench.workload import Workload, prepare
from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector

SMALL = [
    *("model=mask_rcnn_r50_fpn", "model.backbone.depth=18", "model.backbone.weights=null", "model.neck.channels=16"),
    *("model.box_head.fc_channels=32", "model.mask_head.channels=16", "model.mask_head.convs=2"),
    *("model.rpn.post_nms_train=50", "model.rpn.post_nms_test=50", "model.roi.samples=32"),
    *("model.inference.detections_per_image=20", "runtime.device=cpu", "runtime.threads=1"),
]
CPU = torch.device("cpu")


def workload(mode: str) -> Workload:
    return Workload(Case(mode, "small", "fp32", 2, [64, 96]), 5, None, "synthetic", "torchvision")


def test_it_has_the_weights_of_ours() -> None:
    """Same features, proposals and detections; torchvision's RoIAlign and rounding of anchors switched on in ours."""
    torch.manual_seed(0)
    like = ["model.pooler.aligned=false", "model.pooler.sampling_ratio=2", "model.rpn.anchor_rounding=corners"]
    config = compose([*SMALL, *like]).model
    config.inference.score_threshold = 0.0
    ours = build_detector(config, 3).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in (ours.box_head.classes.weight, ours.box_head.deltas.weight):  # type: ignore[union-attr]
        parameter.data.normal_(0, 0.05, generator=generator)  # type: ignore[operator]
    theirs: Any = build_peer(config, 3).eval()
    take_weights(theirs, ours)
    theirs.transform.postprocess = lambda result, *_: result
    # multiples of 64: torchvision derives P6's stride from the padded size
    [batch] = synthetic_batches(1, 2, 128, 192, 4, 3)
    with torch.no_grad():
        found, wanted = ours.detect(batch), theirs(pictures(batch))
    for one, other in zip(found, wanted, strict=True):
        assert one.labels.tolist() == (other["labels"] - 1).tolist()
        torch.testing.assert_close(one.scores, other["scores"], rtol=0, atol=2e-4)
        torch.testing.assert_close(one.boxes, other["boxes"], rtol=0, atol=5e-3)
        assert one.masks is not None
        torch.testing.assert_close(one.masks, other["masks"][:, 0], rtol=0, atol=1e-3)


def test_it_trains_the_same_parameters() -> None:
    config = compose(SMALL).model
    ours = build_detector(config, 3)
    theirs = build_peer(config, 3)
    take_weights(theirs, ours)
    counts = [sum(p.numel() for p in net.parameters() if p.requires_grad) for net in (ours, theirs)]
    # background has a box regression and a mask there
    extra = 4 * (config.box_head.fc_channels + 1) + config.mask_head.channels + 1
    assert counts[1] == counts[0] + extra


def test_pictures_and_targets_are_the_batch_s() -> None:
    [batch] = synthetic_batches(1, 2, 50, 70, 3, 4)
    [image, _], [target, _] = pictures(batch), targets(batch)
    assert image.shape == (3, 50, 70)
    assert torch.equal((image * 255).round().to(torch.uint8), batch.images[0, :, :50, :70])
    assert target["labels"].tolist() == (batch.labels[0] + 1).tolist()
    assert target["masks"].shape == (3, 50, 70)
    for k, (x1, y1, x2, y2) in enumerate(batch.boxes[0].long().tolist()):
        mask = target["masks"][k]
        rows, columns = mask.any(1).nonzero()[:, 0], mask.any(0).nonzero()[:, 0]
        assert (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1) == (x1, y1, x2, y2)
        # an inscribed ellipse
        assert float(mask.sum()) == pytest.approx(3.14159 / 4 * (x2 - x1) * (y2 - y1), rel=0.15)
    assert batch.masks is not None
    assert full_mask(batch.masks, 0, 0, 50, 70).dtype == torch.uint8


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_both_do_the_stated_work(mode: str) -> None:
    config = compose(SMALL)
    prepared = prepare(config, workload(mode), CPU)
    assert prepared.peer is not None
    prepared.step()
    peer = prepared.peer()
    peer.step()
    ours, theirs = prepared.facts(), peer.facts()
    if mode == "train":
        assert theirs["loss_is_finite"]
    else:
        assert theirs["detections_per_image"] == pytest.approx(ours["detections_per_image"], rel=0.2)


def test_it_gets_the_stated_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many positive RoIs as ours."""
    from torchvision.models.detection.roi_heads import RoIHeads

    seen: list[int] = []
    select = RoIHeads.select_training_samples

    def watched(self: RoIHeads, *arguments: Any) -> Any:
        found = select(self, *arguments)
        seen.extend(int((labels > 0).sum()) for labels in found[2])
        return found

    monkeypatch.setattr(RoIHeads, "select_training_samples", watched)
    prepared = prepare(compose(SMALL), workload("train"), CPU)
    assert prepared.peer is not None
    prepared.step()
    facts = prepared.facts()
    prepared.peer().step()
    assert sum(seen) / len(seen) == pytest.approx(facts["positive_rois_per_image"], abs=1)


@pytest.mark.parametrize("override", ["model.neck.kind=c5", "model.box_head.norm=gn", "model=mask_rcnn_small"])
def test_an_architecture_that_torchvision_lacks_is_one_message(override: str) -> None:
    with pytest.raises(UserError, match=r"torchvision's Mask R-CNN is not of this architecture.*model\."):
        check_peer(compose([*SMALL[:1], override]).model)
    assert (tuple(BLOCKS), tuple(NORMS)) == (DEPTHS, NORM_NAMES)


def test_blocks_are_taken_in_turns_so_that_a_drift_cancels() -> None:
    """A clock that a step of A moves by 1 and of B by 2, and a machine that gets slower all the time."""
    now, order = [0.0, 1.0], []

    def step(name: str, cost: float) -> Callable[[], None]:
        def run() -> None:
            order.append(name)
            now[1] += 0.001
            now[0] += cost * now[1]

        return run

    watch = Stopwatch(clock=lambda: now[0])
    limits = Limits(warmup_steps=1, rounds=3, turn_seconds=0.0)
    steps, ours, theirs = take_turns(step("A", 1.0), step("B", 2.0), watch, 1, limits)
    assert steps == 1
    assert "".join(order[2:]) == "ABBA" * 3
    for k in (0, 2, 4):
        assert (theirs[k] + theirs[k + 1]) / (ours[k] + ours[k + 1]) == pytest.approx(2, rel=1e-6)


@pytest.mark.parametrize("noise, blocks", [(0.0, 12), (0.2, 20)])
def test_long_steps_are_taken_one_by_one_on_the_same_inputs_until_it_is_precise_or_for_a_while(
    noise: float, blocks: int
) -> None:
    """Steps of 5 and 10 s: one round through four inputs warms either up. Six rounds are enough, and where ours are
    slower and faster by turns there are ten, of 30 s, which are five minutes."""
    now, seen = [0.0], ([], [])  # type: ignore[var-annotated]

    def step(which: int, cost: float) -> Callable[[], None]:
        def run() -> None:
            now[0] += cost * (1 + noise * (which == 0) * (-1) ** (len(seen[which]) // 2))
            seen[which].append(len(seen[which]) % 4)

        return run

    steps, ours, theirs = take_turns(step(0, 5.0), step(1, 10.0), Stopwatch(clock=lambda: now[0]), 4, Limits())
    assert (steps, len(ours), len(theirs)) == (1, blocks, blocks)
    assert seen[0] == seen[1] == [k % 4 for k in range(4 + blocks)]


def test_a_row_takes_its_turns_and_a_peer_that_fails_is_told() -> None:
    prepared = prepare(compose(SMALL), workload("infer"), CPU)
    limits = Limits(warmup_steps=1, rounds=1, turn_seconds=0.0)
    found = against_peer(prepared, workload("infer"), Stopwatch(), limits)
    assert found is not None
    assert found["name"].startswith("torchvision ")
    assert found["steps_per_block"] == 1
    assert len(found["our_seconds"]) == len(found["their_seconds"]) == 2
    assert found["clock"] == ("processor time" if torch.get_num_threads() == 1 else "host")

    def fails() -> PeerStep:
        raise RuntimeError("CUDA out of memory\nand more")

    prepared.peer = fails
    failed = against_peer(prepared, workload("infer"), Stopwatch(), limits)
    assert failed == {"name": found["name"], "note": "RuntimeError: CUDA out of memory"}
    assert against_peer(prepared, replace(workload("infer"), peer=None), Stopwatch(), limits) is None
