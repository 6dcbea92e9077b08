"""Drawings show what they are given, where it is, and leave their input alone."""

import numpy as np
import pytest
from PIL import Image

from mrbench.data.palette import PALETTE
from mrbench.evaluation.drawing import draw, draw_coco, draw_comparison

# pycocotools 2.0.11 with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def picture():
    return Image.new("RGB", (800, 600), (128, 128, 128))


def disc(height, width, y, x, radius):
    rows, columns = np.ogrid[:height, :width]
    return (rows - y) ** 2 + (columns - x) ** 2 < radius**2


def test_masks_are_translucent_with_an_opaque_outline(picture):
    mask = disc(600, 800, 300, 400, 100)
    drawn = np.asarray(draw(picture, [[300, 200, 500, 400]], [1], [mask], names=["a", "b"])).astype(int)
    colour = np.array(PALETTE[1])
    inside = drawn[300, 400]
    assert (np.abs(inside - 128) <= np.abs(colour - 128)).all()
    assert not (inside == colour).all()
    assert not (inside == 128).all()
    row = (drawn[300] == colour).all(1)
    assert row[301:305].any()
    assert not row[310:490].any()
    assert (drawn[450:, 600:] == 128).all()
    assert np.asarray(picture).std() == 0


def test_boxes_are_where_they_belong(picture):
    drawn = np.asarray(draw(picture, [[100, 150, 300, 250]], [0], names=["a", "b"]))
    colour = np.array(PALETTE[0])
    assert (drawn[200, 100] == colour).all()
    assert (drawn[200, 299] == colour).all()
    assert (drawn[249, 200] == colour).all()
    assert (drawn[200, 200] == 128).all()


def test_small_pictures_are_enlarged_and_boxes_with_them():
    drawn = draw(Image.new("RGB", (128, 96), (128, 128, 128)), [[20, 30, 60, 70]], [0], names=["a", "b"])
    assert drawn.size == (640, 480)
    assert tuple(np.asarray(drawn)[250, 100]) == PALETTE[0]


def test_labels_stay_inside_the_picture_and_apart(picture):
    # Boxes at all corners, and two instances at the same place.
    boxes = [[0, 0, 40, 20], [770, 0, 800, 20], [0, 590, 30, 600], [780, 580, 800, 600], [400, 300, 420, 310]]
    plain = np.asarray(draw(picture, boxes, [0, 1, 2, 3, 4], names=["a long name"] * 6, scores=[0.5] * 5))
    for colour in PALETTE[:5]:
        assert (plain == colour).all(2).sum() > 500
    empty = draw(picture, np.zeros((0, 4)), [], [], [], ["a"])
    assert (np.asarray(empty) == 128).all()


def test_a_label_at_the_border_shows_its_letters_whole():
    # The same box with room above it, and without: the same letters, moved.
    tall, low = Image.new("RGB", (640, 480), "white"), Image.new("RGB", (640, 440), "white")
    first = np.asarray(draw(tall, [[300, 60, 400, 150]], [0], names=["person", "b"], scores=[0.71]))
    second = np.asarray(draw(low, [[300, 12, 400, 102]], [0], names=["person", "b"], scores=[0.71]))
    ink = [(picture < 60).all(2) for picture in (first, second)]
    assert ink[0].sum() == ink[1].sum() > 40


def test_labels_of_large_pictures_are_as_large_for_the_eye(picture):
    def share(factor):
        box = [value * factor for value in (200, 200, 400, 400)]
        large = Image.new("RGB", (800 * factor, 600 * factor), (128, 128, 128))
        chip = np.asarray(draw(large, [box], [0], names=["person", "b"], scores=[0.5]))[: 198 * factor]
        return (chip != 128).any(2).sum() / (800 * 600 * factor**2)

    assert share(5) == pytest.approx(share(1), rel=0.15)


def test_classes_of_a_picture_differ_in_colour_and_instances_in_shade(picture):
    names = [f"class {n}" for n in range(len(PALETTE) + 1)]
    boxes = [[60 + 240 * n, 100, 240 + 240 * n, 400] for n in range(3)]
    # The last class would have the colour of the first; and a second instance of the first.
    drawn = np.asarray(draw(picture, boxes, [0, len(PALETTE), 0], names=names))
    edges = [tuple(int(v) for v in drawn[390, x]) for x in (60, 300, 540)]
    assert edges[:2] == [PALETTE[0], PALETTE[1]]
    assert edges[2] not in PALETTE


def test_a_class_has_one_colour_in_all_pictures_side_by_side(picture):
    categories = [(n, f"class {n}") for n in range(len(PALETTE) + 1)]
    box = {"bbox": [100, 100, 200, 200], "category_id": len(PALETTE)}
    found = [("truth", [box]), ("found", [box, {"bbox": [500, 300, 200, 200], "category_id": 0}])]
    sheet = np.asarray(draw_comparison(picture, found, categories))
    first, second = sheet[-600:, :800], sheet[-600:, 808:]
    assert (first[290, 100] == second[290, 100]).all()
    assert tuple(first[290, 100]) == PALETTE[1]


def test_a_person_s_joints_are_joined_by_limbs_that_are_both_seen(picture):
    points = np.zeros((17, 3))
    points[5], points[7], points[9] = (200, 100, 2), (300, 100, 2), (400, 100, 0)  # shoulder, elbow, no wrist
    item = {"bbox": [150, 50, 400, 300], "category_id": 3, "keypoints": points.ravel().tolist()}
    drawn = np.asarray(draw_coco(picture, [item], [(3, "person"), (4, "dog")]))
    assert (drawn[100, 250] == PALETTE[0]).all()
    assert (drawn[100, 350] == 128).all()


def test_coco_entries_with_polygons_and_rle_and_without_crowds(picture):
    square = {"size": [600, 800], "counts": [100 * 600, 200, 600 * 800 - 60200]}
    items = [
        {"category_id": 9, "bbox": [200, 200, 100, 100], "segmentation": [[200, 200, 300, 200, 300, 300, 200, 300]]},
        {"category_id": 4, "bbox": [100, 0, 1, 200], "segmentation": square},
        {"category_id": 4, "bbox": [500, 400, 100, 100], "segmentation": square, "iscrowd": 1},
    ]
    drawn = np.asarray(draw_coco(picture, items, [(4, "four"), (9, "nine")]))
    assert (drawn[199:301, 199:301] == np.array(PALETTE[1])).all(2).any()
    assert (drawn[100, 100] == np.array(PALETTE[0])).all()
    assert (drawn[390:520, 490:620] == 128).all()
    results = [{"category_id": 9, "bbox": [200, 200, 100, 100], "score": 0.75}]
    sheet = draw_comparison(picture, [("truth", items), ("found", results)], [(4, "four"), (9, "nine")])
    assert sheet.width == 2 * 800 + 8
    assert sheet.height > 600


def test_keypoints_are_dots_where_they_were_found(picture):
    points = [100, 80, 2, 200, 90, 1, 300, 100, 0]  # the last is not annotated
    item = {"bbox": [50, 50, 400, 300], "category_id": 3, "keypoints": points}
    drawn = np.asarray(draw_coco(picture, [item], [(3, "person"), (4, "dog")]))
    for x, y in ((100, 80), (200, 90)):
        assert (drawn[y, x] == PALETTE[0]).all()
    assert (drawn[100, 300] == 128).all()
    assert (drawn[200, 200] == 128).all()
