"""Box arithmetic, matching and anchors against torchvision and worked cases."""

import torch
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image

from mrbench.modeling import boxes as box_ops
from mrbench.modeling.anchors import AnchorGrid
from mrbench.modeling.matcher import match


def random_boxes(*shape: int, seed: int = 0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=g) * 100
    return torch.cat([corner, corner + 1 + torch.rand(*shape, 2, generator=g) * 60], -1)


def test_coding_equals_torchvisions_and_comes_back() -> None:
    weights = (10.0, 10.0, 5.0, 5.0)
    a, b = random_boxes(30), random_boxes(30, seed=1)
    coder = BoxCoder(weights)
    deltas = box_ops.encode(a, b, weights)
    torch.testing.assert_close(deltas, coder.encode_single(b, a))
    torch.testing.assert_close(box_ops.decode(a, deltas, weights), b, rtol=1e-4, atol=1e-4)
    wild = torch.randn(30, 4, generator=torch.Generator().manual_seed(2)) * 20
    torch.testing.assert_close(box_ops.decode(a, wild, weights), coder.decode_single(wild, a))


def test_coding_of_boxes_without_area_is_finite() -> None:
    zero = torch.zeros(1, 4)
    assert torch.isfinite(box_ops.encode(zero, random_boxes(1), (1, 1, 1, 1))).all()
    assert torch.isfinite(box_ops.encode(random_boxes(1), zero, (1, 1, 1, 1))).all()


def test_overlap_and_clipping_equal_torchvisions() -> None:
    a, b = random_boxes(2, 7), random_boxes(2, 9, seed=1)
    for i in range(2):
        torch.testing.assert_close(box_ops.iou(a, b)[i], box_iou(a[i], b[i]))
    assert not box_ops.iou(torch.zeros(1, 2, 4), b[:1]).any()
    sizes = torch.tensor([[50, 80], [90, 40]])
    clipped = box_ops.clip(a, sizes)
    for i in range(2):
        assert torch.equal(clipped[i], clip_boxes_to_image(a[i], tuple(sizes[i].tolist())))


def test_suppression_keeps_groups_apart_even_in_thousands() -> None:
    boxes = random_boxes(60).repeat(20, 1)
    scores = torch.rand(1200, generator=torch.Generator().manual_seed(3))
    groups = torch.arange(20).repeat_interleave(60) * 5000
    ours = box_ops.suppress(boxes, scores, groups, 0.5)
    wanted = torch.cat(
        [batched_nms(boxes[i : i + 60], scores[i : i + 60], groups[:60], 0.5) + i for i in range(0, 1200, 60)]
    )
    assert torch.equal(ours.sort().values, wanted.sort().values)
    assert torch.equal(scores[ours], scores[ours].sort(descending=True).values)


def test_matching_by_hand() -> None:
    overlaps = torch.tensor([[[0.8, 0.2, 0.5, 0.1, 0.0], [0.1, 0.25, 0.4, 0.1, 0.0], [0.9, 0.9, 0.9, 0.9, 0.9]]])
    truth = torch.tensor([[True, True, False]])
    found = match(overlaps, truth, 0.3, 0.7, keep_best=True)
    # the third box overlaps the second ground truth most, so it is foreground though its overlap is low
    assert found.label.tolist() == [[1, 0, 1, 0, 0]]
    assert found.index[0, :3].tolist() == [0, 1, 0]
    assert match(overlaps, truth, 0.3, 0.7, keep_best=False).label.tolist() == [[1, 0, -1, 0, 0]]
    none = match(overlaps, torch.zeros_like(truth), 0.3, 0.7, keep_best=True)
    assert not none.label.any()


def test_a_ground_truth_that_meets_no_anchor_makes_no_foreground() -> None:
    found = match(torch.zeros(1, 1, 4), torch.ones(1, 1, dtype=torch.bool), 0.3, 0.7, keep_best=True)
    assert not found.label.any()


def test_anchors_by_hand() -> None:
    grid = AnchorGrid([[32], [64]], [0.5, 1.0, 2.0], [4, 8])
    anchors = grid([(2, 3), (1, 2)], torch.device("cpu"))
    assert anchors.shape == ((6 + 2) * 3, 4)
    side = 32 * 2**0.5
    torch.testing.assert_close(anchors[0], torch.tensor([-side / 2, -side / 4, side / 2, side / 4]))  # wide
    torch.testing.assert_close(anchors[1], torch.tensor([-16.0, -16, 16, 16]))
    torch.testing.assert_close(anchors[4], torch.tensor([-12.0, -16, 20, 16]))  # the next column
    torch.testing.assert_close(anchors[13], torch.tensor([-12.0, -12, 20, 20]))  # second row, second column
    torch.testing.assert_close(anchors[-2], torch.tensor([-24.0, -32, 40, 32]))


def test_detectrons_anchors_are_its_documented_ones() -> None:
    """The table in Detectron's modeling/generate_anchors.py (that of Faster R-CNN in Matlab: stride 16, sizes 128, 256
    and 512), by ratio and size. It counts pixels from 1, and its second corners are the last pixels inside."""
    table = [
        [[-83, -39, 100, 56], [-175, -87, 192, 104], [-359, -183, 376, 200]],
        [[-55, -55, 72, 72], [-119, -119, 136, 136], [-247, -247, 264, 264]],
        [[-35, -79, 52, 96], [-79, -167, 96, 184], [-167, -343, 184, 360]],
    ]
    wanted = torch.tensor(table).transpose(0, 1).reshape(9, 4).float() - torch.tensor([1.0, 1, 0, 0])
    cells = AnchorGrid([[128, 256, 512]], [0.5, 1.0, 2.0], [16], rounding="sides", offset=0.5).cells[0]
    torch.testing.assert_close(cells, wanted)


def test_an_offset_moves_anchors_by_a_part_of_the_stride() -> None:
    """Detectron2's modeling/anchor_generator.py, `_create_grid_offsets`: the first centre is offset * stride."""
    at_corner, at_middle = (AnchorGrid([[32]], [1.0], [8], offset=offset) for offset in (0.0, 0.5))
    first = at_middle([(2, 2)], torch.device("cpu"))
    assert first[0].tolist() == [-12, -12, 20, 20]
    assert first[1].tolist() == [-4, -12, 28, 20]
    torch.testing.assert_close(first, at_corner([(2, 2)], torch.device("cpu")) + 4)
