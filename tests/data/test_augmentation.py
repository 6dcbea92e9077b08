"""Plans against their definitions, and their pixels and masks against a slow way of doing the same."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrbench.config.schema import AugmentationConfig
from mrbench.data.augmentation import Plan, plan_test, plan_training, short_edge_size
from mrbench.data.masks import place_mask, summed_area_table

JITTER = AugmentationConfig(resize="jitter", jitter_size=128)


def drawn(config: AugmentationConfig, height: int, width: int, count: int) -> list[Plan]:
    return [plan_training(config, height, width, np.random.default_rng(i)) for i in range(count)]


@pytest.mark.parametrize(
    "height, width, expected",
    [
        (480, 640, (800, 1067)),  # Detectron2's usual case
        (640, 480, (1067, 800)),
        (500, 500, (800, 800)),
        (300, 900, (444, 1333)),  # the long side would be 2400
        (427, 640, (800, 1199)),
    ],
)
def test_short_edge_rule(height: int, width: int, expected: tuple[int, int]) -> None:
    assert short_edge_size(height, width, 800, 1333) == expected


def test_short_edge_is_one_of_those_given_and_each_is_drawn() -> None:
    config = AugmentationConfig(short_edge=[640, 672, 704], flip=0.5)
    plans = drawn(config, 480, 640, 300)
    assert {p.size[0] for p in plans} == {640, 672, 704}
    assert 110 < sum(p.flip for p in plans) < 190
    assert plan_test(config, 480, 640) == Plan((480, 640), (640, 853), (0, 0), (640, 853), False)


def test_a_range_of_edges_is_drawn_evenly_with_both_ends() -> None:
    plans = drawn(AugmentationConfig(short_edge=[640, 660], short_edge_sampling="range"), 480, 640, 4200)
    counts = np.bincount([p.size[0] for p in plans], minlength=661)[640:]
    assert counts.sum() == 4200
    # 20 degrees of freedom: above 37.6 one time in a hundred
    assert ((counts - 200) ** 2 / 200).sum() < 37.6


def test_flips_are_as_frequent_as_asked_for_and_do_not_depend_on_the_scale() -> None:
    for often in (0.0, 0.2, 0.5, 1.0):
        plans = drawn(AugmentationConfig(resize="jitter", jitter_size=128, flip=often), 480, 640, 3000)
        for half in (True, False):
            flips = [p.flip for p in plans if (p.resized[1] > 134) == half]
            assert abs(np.mean(flips) - often) <= 4 * np.sqrt(often * (1 - often) / len(flips))


def test_the_test_size_of_its_own_holds_with_any_resize() -> None:
    for resize in ("none", "short_edge", "jitter"):
        config = AugmentationConfig(resize=resize, short_edge=[640], test_short_edge=800, max_size=1333)
        assert plan_test(config, 480, 640) == Plan((480, 640), (800, 1067), (0, 0), (800, 1067), False)


def test_test_sizes_without_resize_and_with_jitter() -> None:
    assert plan_test(AugmentationConfig(resize="none"), 50, 70).size == (50, 70)
    assert plan_test(JITTER, 480, 640).size == (96, 128)


def test_jitter_follows_its_definition() -> None:
    plans = drawn(JITTER, 480, 640, 4000)
    # The long side over the square's is the scale: uniform from 0.1 to 2.
    scales = np.sort([p.resized[1] / 128 for p in plans])
    expected = 0.1 + 1.9 * (np.arange(4000) + 0.5) / 4000
    assert np.abs(scales - expected).max() < 0.05
    large = [p for p in plans if p.resized[1] > 192]
    assert all(p.size[1] == 128 for p in large)
    # The window's place is uniform over where it can be.
    places = np.sort([p.crop[1] / (p.resized[1] - 128) for p in large])
    assert np.abs(places - (np.arange(len(places)) + 0.5) / len(places)).max() < 0.05
    for plan in plans:
        assert plan.size == (min(plan.resized[0], 128), min(plan.resized[1], 128))
        assert all(0 <= c <= r - s for c, r, s in zip(plan.crop, plan.resized, plan.size, strict=True))


def slow_picture(picture: Image.Image, plan: Plan) -> np.ndarray:
    """Resizes everything, then crops, then flips."""
    resized = picture.resize(plan.resized[::-1], Image.Resampling.BILINEAR)
    (y, x), (height, width) = plan.crop, plan.size
    pixels = np.asarray(resized)[y : y + height, x : x + width]
    return pixels[:, ::-1] if plan.flip else pixels


def slow_mask(segmentation: list | dict, plan: Plan) -> np.ndarray:
    """Rasterises in the whole resized and flipped picture, then crops."""
    height, width = plan.resized
    if isinstance(segmentation, dict):
        rows = (2 * np.arange(height) + 1) * plan.original[0] // (2 * height)
        columns = (2 * np.arange(width) + 1) * plan.original[1] // (2 * width)
        mask = coco_mask.decode(segmentation)[rows][:, columns]
        mask = mask[:, ::-1] if plan.flip else mask
    else:
        scaled = [np.reshape(p, (-1, 2)) * plan.scale[::-1] for p in segmentation]
        scaled = [np.abs(p - [width, 0]) if plan.flip else p for p in scaled]
        rles = coco_mask.frPyObjects([p.ravel().tolist() for p in scaled], height, width)
        mask = coco_mask.decode(coco_mask.merge(rles))
    y, x = plan.crop
    x = width - x - plan.size[1] if plan.flip else x
    return mask[y : y + plan.size[0], x : x + plan.size[1]]


def full_size(window, plan: Plan) -> np.ndarray:
    mask = np.zeros(plan.size, dtype=np.uint8)
    if window is not None:
        left, top, right, bottom = window.box
        mask[top:bottom, left:right] = window.bitmap
    return mask


@pytest.mark.parametrize("resize", ["none", "short_edge", "jitter"])
def test_pixels_equal_resizing_everything_first(shared: Path, resize: str) -> None:
    root = shared / "data" / "coco-mini" / "images" / "val"
    config = AugmentationConfig(resize=resize, short_edge=[200, 333], jitter_size=256)
    random = np.random.default_rng(3)
    flips = set()
    for path in sorted(root.iterdir())[:12]:
        picture = Image.open(path).convert("RGB")
        plan = plan_training(config, picture.height, picture.width, random)
        flips.add(plan.flip)
        difference = np.abs(plan.picture(np.asarray(picture)).astype(int) - slow_picture(picture, plan).astype(int))
        assert difference.max() <= 1
        assert difference.mean() < 0.01
    assert flips == {True, False}


@pytest.mark.parametrize("resize", ["none", "short_edge", "jitter"])
@pytest.mark.parametrize("name, split", [("coco-mini", "val"), ("nuclei-dsb2018", "val")])
def test_masks_equal_those_of_the_whole_picture(shared: Path, name: str, split: str, resize: str) -> None:
    content = json.loads((shared / "data" / name / "annotations" / f"instances_{split}.json").read_text())
    sizes = {i["id"]: (i["height"], i["width"]) for i in content["images"]}
    config = AugmentationConfig(resize=resize, short_edge=[201, 333], jitter_size=256)
    random = np.random.default_rng(4)
    for annotation in content["annotations"][::8]:
        segmentation = annotation["segmentation"]
        if isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
            continue
        plan = plan_training(config, *sizes[annotation["image_id"]], random)
        window = place_mask(segmentation, plan)
        ours, reference = full_size(window, plan), slow_mask(segmentation, plan)
        assert np.array_equal(ours, reference)
        if window is not None:  # the window is tight
            assert window.bitmap[0].any()
            assert window.bitmap[-1].any()
            assert window.bitmap[:, 0].any()
            assert window.bitmap[:, -1].any()


def test_resized_run_lengths_equal_pillows_nearest_pixel() -> None:
    random = np.random.default_rng(6)
    # From odd sizes no pixel lies exactly between two.
    mask = np.asfortranarray(random.random((41, 61)) < 0.5, dtype=np.uint8)
    for size in ((37, 53), (100, 150), (41, 61)):
        plan = Plan((41, 61), size, (0, 0), size, False)
        expected = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(full_size(place_mask(coco_mask.encode(mask), plan), plan), np.asarray(expected))


def test_flipping_mirrors_polygons_boxes_and_run_lengths_alike() -> None:
    plan = Plan((40, 60), (80, 120), (10, 20), (50, 60), True)
    # x 15..25 -> 30..50 -> 10..30 in the crop -> 30..50 mirrored in 60; y 10..20 -> 20..40 -> 10..30
    assert plan.boxes(np.array([[15.0, 10, 25, 20]])).tolist() == [[30, 10, 50, 30]]
    mask = np.zeros((40, 60), dtype=np.uint8, order="F")
    mask[10:20, 15:25] = 1
    polygon = [[15, 10, 25, 10, 25, 20, 15, 20]]
    assert place_mask(coco_mask.encode(mask), plan).box == (30, 10, 50, 30)
    assert place_mask(polygon, plan).box == (30, 10, 50, 30)


def test_what_the_crop_leaves_out_is_gone() -> None:
    plan = Plan((40, 60), (80, 120), (0, 0), (40, 40), False)
    inside, outside = [[2, 2, 8, 2, 8, 8, 2, 8]], [[30, 2, 40, 2, 40, 8, 30, 8]]
    cut = [[10, 10, 30, 10, 30, 30, 10, 30]]
    assert place_mask(inside, plan).box == (4, 4, 16, 16)
    assert place_mask(outside, plan) is None
    assert place_mask(cut, plan).box == (20, 20, 40, 40)


def test_summed_area_table_gives_the_area_of_any_rectangle() -> None:
    random = np.random.default_rng(5)
    bitmap = (random.random((17, 23)) < 0.4).astype(np.uint8)
    table = np.full((18, 24), -1, dtype=np.int32)
    summed_area_table(bitmap, table)
    assert not table[0].any()
    assert not table[:, 0].any()
    for _ in range(50):
        top, bottom = np.sort(random.integers(0, 18, 2))
        left, right = np.sort(random.integers(0, 24, 2))
        area = table[bottom, right] - table[top, right] - table[bottom, left] + table[top, left]
        assert area == bitmap[top:bottom, left:right].sum()
