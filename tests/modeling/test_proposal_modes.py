"""An RPN without heads, and heads without an RPN, are the two halves of the joint network."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrbench.config.schema import ModelConfig
from mrbench.data.batch import Batch
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector, build_network
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.load import load_into
from mrbench.modeling.proposal_network import ProposalNetwork
from mrbench.modeling.rpn import Proposals, inside

KINDS = {
    "fpn": (),
    "cascade": ("model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true"),
    "c4": (
        *("model.neck.kind=c4", "model.box_head.kind=res5", "model.mask_head.kind=res5", "model.pooler.mask_size=7"),
        *("model.box_head.convs=0", "model.box_head.fcs=0", "model.rpn.anchor_sizes=[8,16,32,64]"),
    ),
}
Small = Callable[..., ModelConfig]


def twins(small: Small, *changes: str) -> tuple[MaskRCNN, MaskRCNN]:
    """A joint network, and one without an RPN that has its other weights."""
    torch.manual_seed(0)
    joint = build_detector(small(*changes), 4)
    config = small(*changes)
    config.rpn.mode = "precomputed"
    heads = build_detector(config, 4)
    heads.load_state_dict({k: v for k, v in joint.state_dict().items() if not k.startswith("rpn.")})
    return joint, heads


def with_proposals(batch: Batch, found: Proposals) -> Batch:
    scores = found.scores.masked_fill(~found.valid, -torch.inf)
    return dataclasses.replace(batch, proposals=torch.cat([found.boxes, scores[..., None]], -1))


@pytest.mark.parametrize("kind", KINDS)
def test_the_rpns_own_proposals_from_outside_give_the_same_losses_and_detections(
    kind: str, small: Small, paint: Callable[..., Batch]
) -> None:
    joint, heads = twins(small, *KINDS[kind])
    batch = paint()
    with torch.no_grad():
        expected = joint(batch)
        given = with_proposals(batch, joint.proposals(joint.features(batch), batch))
        found = heads(given)
        counts = heads.count_samples(given)
    assert set(expected) - set(found) == {"rpn_objectness", "rpn_box"}
    assert {"mask"} < set(found)
    assert set(counts) == set(found)
    for name, term in found.items():
        assert torch.equal(term.sum, expected[name].sum)
        assert term.count == expected[name].count == counts[name]

    joint.eval(), heads.eval()
    for model in (joint, heads):
        model.inference = dataclasses.replace(model.inference, score_threshold=0.0)
    with torch.no_grad():
        given = with_proposals(batch, joint.proposals(joint.features(batch), batch))
    for ours, theirs in zip(heads.detect(given), joint.detect(batch), strict=True):
        assert len(ours) > 0
        for name in ("boxes", "scores", "labels", "masks"):
            assert torch.equal(getattr(ours, name), getattr(theirs, name))


def test_a_batch_without_proposals_is_told(small: Small, paint: Callable[..., Batch]) -> None:
    _, heads = twins(small)
    with pytest.raises(ValueError, match="proposals"):
        heads(paint())


def test_an_rpn_alone_has_the_joint_networks_losses_and_proposals(small: Small, paint: Callable[..., Batch]) -> None:
    joint, _ = twins(small)
    alone = build_network(small("model.rpn.mode=only"), 4)
    assert isinstance(alone, ProposalNetwork)
    own = alone.state_dict()
    alone.load_state_dict({k: v for k, v in joint.state_dict().items() if k in own})
    assert {name.partition(".")[0] for name in own} == {"backbone", "neck", "rpn"}
    batch = dataclasses.replace(paint(), original_sizes=torch.tensor([[64, 256], [128, 128]]))
    with torch.no_grad():
        expected, found = joint(batch), alone(batch)
        assert set(found) == set(alone.count_samples(batch)) == {"rpn_objectness", "rpn_box"}
        assert all(torch.equal(found[name].sum, expected[name].sum) for name in found)
        alone.eval(), joint.eval()
        proposals = joint.proposals(joint.features(batch), batch)
    first, second = alone.propose(batch)
    # The file's picture is half as high and twice as wide as the network's.
    scale = torch.tensor([2.0, 0.5, 2.0, 0.5])
    torch.testing.assert_close(first.boxes, proposals.boxes[0][proposals.valid[0]] * scale)
    torch.testing.assert_close(second.boxes, proposals.boxes[1][proposals.valid[1]])
    assert torch.equal(second.scores, proposals.scores[1][proposals.valid[1]])
    assert bool((second.scores.diff() <= 0).all())


def test_anchors_that_reach_over_the_border_are_told_by_hand() -> None:
    anchors = torch.tensor(
        [
            [0.0, 0, 8, 8],
            [-1, 0, 8, 8],
            [0, -3, 8, 8],
            [10, 4, 19.5, 8],
            [10, 4, 20, 8],
            [4, 4, 8, 12.5],
            [2, 2, 22, 14],
        ]
    )
    sizes = torch.tensor([[12, 20], [16, 24]])  # height, width
    expected = {
        0.0: [[1, 0, 0, 1, 0, 0, 0], [1, 0, 0, 1, 1, 1, 1]],
        1.0: [[1, 1, 0, 1, 1, 1, 0], [1, 1, 0, 1, 1, 1, 1]],
        3.0: [[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1]],
    }
    for border, kept in expected.items():
        assert inside(anchors, sizes, border).int().tolist() == kept


def test_anchors_at_the_border_take_no_part_as_in_detectron2(small: Small, paint: Callable[..., Batch]) -> None:
    """Its rule, for each anchor in turn: matched with all, then without a label."""
    batch = paint()
    config = small("model.rpn.samples=100000", "model.rpn.border=2", "model.rpn.mode=only")
    network = build_network(config, 4)
    assert isinstance(network, ProposalNetwork)
    output = network.rpn(network.features(batch))
    output.objectness.retain_grad()
    losses = network.rpn.losses(output, batch.labels >= 0, batch.boxes, batch.seeds, batch.sizes)
    losses["rpn_objectness"].sum.backward()
    labels, _ = network.rpn.label_anchors(output.anchors, batch.labels >= 0, batch.boxes)
    assert output.objectness.grad is not None
    for i, (height, width) in enumerate(batch.sizes.tolist()):
        took_part = (output.objectness.grad[i] != 0).tolist()
        for (x1, y1, x2, y2), label, took in zip(output.anchors.tolist(), labels[i].tolist(), took_part, strict=True):
            within = x1 >= -2 and y1 >= -2 and x2 < width + 2 and y2 < height + 2
            assert took == (within and label != -1)
    assert 0 < int((output.objectness.grad != 0).sum()) < int((labels >= 0).sum())


@pytest.mark.parametrize("mode", ["only", "precomputed"])
def test_joint_weights_fit_either_half_when_told_so_and_back(mode: str, small: Small, tmp_path: Path) -> None:
    joint, _ = twins(small)
    config = small()
    config.rpn.mode = mode
    half = build_network(config, 4)
    whole_file, half_file = tmp_path / "whole.pt", tmp_path / "half.pt"
    torch.save({"model": joint.state_dict()}, whole_file)
    lacking = {"only": "box_head", "precomputed": "rpn"}[mode]
    with pytest.raises(UserError, match=f"model lacks, {lacking}"):
        load_into(half, whole_file)
    loaded = load_into(half, whole_file, allow_partial=True)
    assert loaded.unplaced
    assert not loaded.uninitialised
    assert not loaded.misshapen
    for name, value in half.state_dict().items():
        assert torch.equal(value, joint.state_dict()[name])

    torch.save({"model": half.state_dict()}, half_file)
    with pytest.raises(UserError, match=f"has no {lacking}"):
        load_into(joint, half_file)
    loaded = load_into(joint, half_file, allow_partial=True)
    assert {name.partition(".")[0] for name in loaded.uninitialised} == (
        {"rpn"} if mode == "precomputed" else {"box_head", "mask_head"}
    )
