"""Average recall of proposals against a case worked by hand, and against pycocotools."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mrbench.data.proposals import ProposalTable, make_table
from mrbench.evaluation.proposals import evaluate_proposals, joined


def truth_of(*images: list[tuple[list[float], int]], crowd: tuple[int, int] | None = None) -> dict[str, Any]:
    """COCO ground truth of (xywh, category) lists; `crowd` is (image, instance)."""
    annotations = [
        {"id": 1, "image_id": i, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        | ({"iscrowd": 1} if crowd == (i, j) else {})
        for i, of_image in enumerate(images)
        for j, (box, category) in enumerate(of_image)
    ]
    return {
        "images": [{"id": i, "height": 400, "width": 400} for i in range(len(images))],
        "categories": [{"id": 1, "name": "one"}, {"id": 2, "name": "two"}],
        "annotations": [{**a, "id": number} for number, a in enumerate(annotations, 1)],
    }


def test_recall_by_hand() -> None:
    # Image 0: a small instance met with IoU 0.8 (8 of 10 rows), a medium one met whole; a crowd does not count.
    # Image 1: a large one met with IoU 0.62; image 2 has none, image 3 a small one and no proposals.
    truth = truth_of(
        [([0, 0, 10, 10], 1), ([100, 100, 50, 50], 2), ([200, 200, 100, 100], 1)],
        [([0, 0, 200, 100], 2)],
        [],
        [([5, 5, 20, 20], 1)],
        crowd=(0, 2),
    )
    boxes = [
        np.array([[0, 0, 10, 8], [100, 100, 150, 150], [200, 200, 300, 300]]),
        np.array([[0, 0, 124, 100]]),
        np.array([[0, 0, 10, 10]]),
    ]
    found = evaluate_proposals(truth, make_table([0, 1, 2], boxes, [np.array([3.0, 2, 1]), np.zeros(1), np.zeros(1)]))
    # Of ten thresholds, 0.8 meets 7 (0.5 to 0.8), 1.0 meets 10, 0.62 meets 3, and nothing 0.
    expected = {"AR": 100 * (7 + 10 + 3 + 0) / 40, "ARs": 100 * (7 + 0) / 20, "ARm": 100.0, "ARl": 30.0}
    for name, value in expected.items():
        for limit in (100, 1000):
            assert found.metrics[f"proposal/{name}{limit}"] == pytest.approx(value)
    assert found.images == 4
    assert found.matches is None
    assert any("AR1000 is AR100" in note for note in found.notes)


def test_only_the_best_hundred_count_for_ar100() -> None:
    truth = truth_of([([0, 0, 50, 50], 1), ([100, 100, 50, 50], 1)])
    boxes = np.tile([[0.0, 0, 50, 50]], (101, 1))
    boxes[40] = [100, 100, 150, 150]
    scores = np.arange(101.0)
    scores[40] = -1  # the last, whatever the order in the file
    found = evaluate_proposals(truth, make_table([0], [boxes], [scores])).metrics
    assert (found["proposal/AR100"], found["proposal/AR1000"]) == (50.0, 100.0)


def test_each_proposal_is_for_one_ground_truth() -> None:
    # The pair of 0.9 is joined first; the second ground truth then has 0.6 left, the third nothing.
    assert joined(np.array([[0.9, 0.8, 0.7], [0.2, 0.6, 0.5]])).tolist() == [0.9, 0.6, 0.0]
    assert joined(np.zeros((0, 2))).tolist() == [0.0, 0.0]


def test_without_ground_truth_nothing_is_defined() -> None:
    found = evaluate_proposals(truth_of([]), make_table([0], [np.zeros((1, 4))], [np.zeros(1)]))
    assert set(found.metrics.values()) == {None}
    assert any("No ground truth" in note for note in found.notes)


def of_pycocotools(truth: dict[str, Any], table: ProposalTable) -> dict[str, float]:
    results = [
        {
            "image_id": int(image_id),
            "category_id": 1,
            "bbox": [float(x1), float(y1), float(x2 - x1), float(y2 - y1)],
            "score": float(table.objectness[k]),
        }
        for i, image_id in enumerate(table.image_ids)
        for k in range(table.offsets[i], table.offsets[i + 1])
        for x1, y1, x2, y2 in [table.boxes[k].astype(float)]
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = truth
        api.createIndex()
        run = COCOeval(api, api.loadRes(results), "bbox")
        run.params.useCats = 0
        run.params.maxDets = [1, 100, 1000]
        run.evaluate()
        run.accumulate()
    recall = run.eval["recall"]  # [thresholds, 1, areas, limits]
    return {
        f"proposal/AR{size}{limit}": 100 * recall[:, 0, area, place].mean()
        for area, size in enumerate(("", "s", "m", "l"))
        for place, limit in ((1, 100), (2, 1000))
    }


@pytest.mark.parametrize("crowded", [False, True])
def test_recall_is_that_of_pycocotools_without_categories(crowded: bool) -> None:
    """Equal where each ground truth has proposals of its own. Where they compete the two join other pairs, which is a
    matter of tenths."""
    random = np.random.default_rng(3)
    images, boxes, scores = [], [], []
    for _ in range(12):
        low = random.uniform(0, 200, (9, 2)) if crowded else np.stack(np.mgrid[0:3, 0:3], -1).reshape(-1, 2) * 130.0
        size = np.exp(random.uniform(np.log(8), np.log(160 if crowded else 120), (9, 2)))
        images.append(
            [([*xy, *wh], int(random.integers(1, 3))) for xy, wh in zip(low.tolist(), size.tolist(), strict=True)]
        )
        around = np.repeat(np.concatenate([low, low + size], 1), 20, 0)
        moved = around + random.normal(0, 0.08, around.shape) * np.tile(np.repeat(size, 20, 0), 2)
        boxes.append(np.sort(moved.reshape(-1, 2, 2), 1).reshape(-1, 4))
        scores.append(random.normal(size=180))
    truth, table = truth_of(*images), make_table(range(12), boxes, scores)
    expected, found = of_pycocotools(truth, table), evaluate_proposals(truth, table).metrics
    assert list(map(len, boxes)) == [180] * 12
    assert found["proposal/AR100"] < found["proposal/AR1000"]  # type: ignore[operator]
    assert found == pytest.approx(expected, abs=1.0 if crowded else 1e-6)
