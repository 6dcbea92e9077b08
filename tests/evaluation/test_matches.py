"""AP from stored matches: equal to pycocotools on the images as they are, and on any multiset of them."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from mrbench.errors import UserError
from mrbench.evaluation.coco import evaluate
from mrbench.evaluation.matches import (
    RECALLS,
    Matches,
    average_precision,
    breakdown,
    breakdown_names,
    levels_reached,
    pack,
    resampler,
    unpack,
)

AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")
FILES = {"box": "fakebbox100", "mask": "fakesegm100"}


@pytest.fixture(scope="module", params=["box", "mask"])
def golden(request, shared):
    folder = shared / "data/coco-eval-golden"
    kind = request.param
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    found = json.loads((folder / f"instances_val2014_{FILES[kind]}_results.json").read_text())
    # Equal scores of one image and category are put in order for good; those between images stay equal.
    seen = Counter()
    for item in found:
        key = (item["image_id"], item["category_id"], item["score"])
        item["score"] -= 1e-9 * seen[key]
        seen[key] += 1
    return kind, truth, found, evaluate(truth, found, (kind,))


def drawn(truth, found, weights):
    """The data set in which image i really stands weights[i] times, copies side by side."""
    ids = sorted(image["id"] for image in truth["images"])
    images, annotations, detections = [], [], []
    by_id = {image["id"]: image for image in truth["images"]}
    new = 0
    for image_id, times in zip(ids, weights, strict=True):
        for _ in range(times):
            new += 1
            images.append({**by_id[image_id], "id": new})
            annotations += [{**item, "image_id": new} for item in truth["annotations"] if item["image_id"] == image_id]
            detections += [{**item, "image_id": new} for item in found if item["image_id"] == image_id]
    return {**truth, "images": images, "annotations": annotations}, detections


def assert_same(mine, metrics, kind, tolerance=1e-12):
    assert set(mine) == set(AP)
    for name in AP:
        expected = metrics[f"{kind}/{name}"]
        if expected is None:
            assert mine[name] is None
        else:
            assert mine[name] == pytest.approx(expected, rel=tolerance, abs=tolerance)


def test_every_image_once_is_pycocotools(golden):
    kind, _, _, result = golden
    assert_same(average_precision(result.matches, kind), result.metrics, kind)


def test_classes_and_thresholds_are_pycocotools(golden):
    kind, _, _, result = golden
    table = resampler(result.matches, kind)(np.ones(result.images, np.int64))
    mine = dict(zip(breakdown_names(result.matches), breakdown(result.matches, table), strict=True))
    expected = {name: result.metrics[f"{kind}/{name}"] for name in AP}
    expected |= {f"AP@{threshold}": value for threshold, value in result.per_threshold[kind].items()}
    expected |= {f"AP/{name}": values[f"{kind}/AP"] for name, values in result.per_category.items()}
    assert None in expected.values()  # classes without ground truth
    assert mine == pytest.approx({name: np.nan if v is None else v for name, v in expected.items()}, nan_ok=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_images_drawn_with_replacement_are_pycocotools_on_the_copies(golden, seed):
    kind, truth, found, result = golden
    matches = result.matches
    images = len(truth["images"])
    weights = np.bincount(np.random.default_rng(seed).integers(images, size=images), minlength=images)
    assert weights.max() > 1
    assert weights.min() == 0
    expected = evaluate(*drawn(truth, found, weights), (kind,)).metrics
    assert_same(average_precision(matches, kind, weights), expected, kind)


def test_an_empty_draw_and_draws_of_one_image(golden):
    kind, truth, found, result = golden
    matches = result.matches
    table = resampler(matches, kind)
    images = len(truth["images"])
    assert np.isnan(table(np.zeros(images, np.int64))).all()
    for index in (0, 63):
        weights = np.eye(images, dtype=np.int64)[index]
        expected = evaluate(*drawn(truth, found, weights), (kind,)).metrics
        assert_same(average_precision(matches, kind, weights), expected, kind)


def test_random_crowded_scenes_are_pycocotools():
    # Tied scores, crowds, categories that are missing, many detections on one instance, several areas.
    rng = np.random.default_rng(5)
    truth = {
        "images": [{"id": i, "height": 300, "width": 300} for i in range(30)],
        "categories": [{"id": k, "name": str(k)} for k in (1, 2, 5)],
        "annotations": [],
    }
    found = []
    for image in range(30):
        for _ in range(rng.integers(0, 6)):
            x, y, w, h = (*rng.uniform(0, 150, 2), *rng.uniform(5, 140, 2))
            category = int(rng.choice([1, 2]))
            truth["annotations"].append(
                {"id": len(truth["annotations"]), "image_id": image, "category_id": category, "bbox": [x, y, w, h],
                 "area": w * h, "iscrowd": int(rng.random() < 0.15)}
            )  # fmt: skip
            for _ in range(rng.integers(0, 5)):
                dx, dy, dw, dh = rng.normal(0, 0.08, 4) * [w, h, w, h]
                found.append(
                    {"image_id": image, "category_id": int(rng.choice([category, 5], p=[0.9, 0.1])),
                     "bbox": [x + dx, y + dy, max(w + dw, 0.0), max(h + dh, 0.0)], "score": rng.integers(1, 99) / 99}
                )  # fmt: skip
    result = evaluate(truth, found, ("box",), max_detections=4)
    assert_same(average_precision(result.matches, "box"), result.metrics, "box")
    table = resampler(result.matches, "box")(np.ones(30, np.int64))
    for k, entry in enumerate(result.per_category.values()):
        expected = entry["box/AP"]
        assert (
            np.isnan(table[0, :, k]).all()
            if expected is None
            else 100 * table[0, :, k].mean() == pytest.approx(expected)
        )


def test_recall_levels_are_found_as_by_searching_them():
    around = [np.nextafter(RECALLS, side) for side in (0.0, 1.0)]
    recall = np.concatenate([np.arange(n + 1) / n for n in range(1, 300)] + [RECALLS, *around])
    assert np.array_equal(levels_reached(recall), np.searchsorted(RECALLS, recall, "right"))


def test_saved_and_loaded_is_the_same(golden, tmp_path):
    kind, _, _, result = golden
    matches = result.matches
    matches.save(tmp_path / "matches.npz")
    again = Matches.load(tmp_path / "matches.npz")
    assert again.categories == matches.categories
    assert again.areas == (1024, 9216)
    assert again.max_detections == 100
    assert (again.image_ids == matches.image_ids).all()
    assert average_precision(again, kind) == average_precision(matches, kind)
    (record,) = again.kinds.values()
    assert record.score.dtype == np.float64
    assert record.image.dtype == np.int32
    assert record.category.dtype == np.int16


def test_no_detections_survive_saving(tmp_path):
    truth = {
        "images": [{"id": 4, "height": 9, "width": 9}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 4, "category_id": 1, "bbox": [0, 0, 5, 5], "area": 25, "iscrowd": 0}],
    }
    evaluate(truth, [], ("box",)).matches.save(tmp_path / "m.npz")
    numbers = average_precision(Matches.load(tmp_path / "m.npz"), "box")
    assert numbers == {"AP": 0, "AP50": 0, "AP75": 0, "APs": 0, "APm": None, "APl": None}


def test_a_damaged_file_is_named(tmp_path):
    for content in (b"", b"not an npz", b"PK\x03\x04 torn"):
        (tmp_path / "m.npz").write_bytes(content)
        with pytest.raises(UserError, match=r"m\.npz"):
            Matches.load(tmp_path / "m.npz")
    with pytest.raises(UserError, match="gone"):
        Matches.load(tmp_path / "gone.npz")


def test_bits_come_back():
    flags = np.random.default_rng(0).random((7, 4, 10)) > 0.5
    assert (unpack(pack(flags), 4, 10) == flags).all()


def test_reading_needs_neither_torch_nor_pycocotools():
    code = (
        "import sys, mrbench.evaluation.matches; print(sorted({'torch', 'pycocotools', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
