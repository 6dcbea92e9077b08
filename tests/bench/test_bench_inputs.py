"""Synthetic batches are what the loader hands out, with what was stated in them."""

import pytest
import torch

from mrbench.bench.inputs import data_batches, synthetic_batches
from mrbench.config.composer import compose
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split

TINY = ["data.shapes.train_images=4", "data.shapes.val_images=2", "data.shapes.image_size=64", "runtime.num_workers=0"]


def tensors(batch: Batch) -> dict[str, torch.Tensor]:
    assert batch.masks is not None
    found = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    return found | {f"masks.{name}": value for name, value in vars(batch.masks).items()}


def test_pictures_have_the_stated_size_and_number_of_instances() -> None:
    [batch] = synthetic_batches(1, 3, 100, 140, instances=7, classes=5)
    assert batch.images.shape == (3, 3, 128, 160)
    assert batch.sizes.tolist() == [[100, 140]] * 3
    assert not batch.images[:, :, 100:].any()
    assert not batch.images[:, :, :, 140:].any()
    assert batch.boxes.shape == (3, 7, 4)
    assert ((batch.labels >= 0) & (batch.labels < 5)).all()
    low, high = batch.boxes[..., :2], batch.boxes[..., 2:]
    assert (low >= 0).all()
    assert (high > low).all()
    assert (high <= torch.tensor([140, 100])).all()


def test_an_instance_s_table_counts_the_pixels_of_its_ellipse() -> None:
    [batch] = synthetic_batches(1, 2, 200, 200, instances=4)
    masks = batch.masks
    assert masks is not None
    assert len(masks.table) == int((masks.size + 1).prod(-1).sum())
    for image in range(2):
        for instance in range(4):
            x1, y1, x2, y2 = batch.boxes[image, instance].tolist()
            assert masks.origin[image, instance].tolist() == [y1, x1]
            h, w = masks.size[image, instance].tolist()
            assert (h, w) == (y2 - y1, x2 - x1)
            begin = int(masks.offset[image, instance])
            table = masks.table[begin : begin + (h + 1) * (w + 1)].view(h + 1, w + 1)
            assert not table[0].any()
            assert not table[:, 0].any()
            # pi / 4 of the box, up to the pixels on the rim
            assert int(table[-1, -1]) == pytest.approx(torch.pi / 4 * h * w, abs=0.5 * (h + w))


def test_the_same_arguments_give_the_same_batches_and_batches_differ() -> None:
    first, again = (synthetic_batches(2, 2, 64, 64) for _ in range(2))
    for a, b in zip(first, again, strict=True):
        assert all(torch.equal(value, tensors(b)[name]) for name, value in tensors(a).items())
    assert not torch.equal(first[0].images, first[1].images)


def test_a_synthetic_batch_has_the_types_and_ranks_of_the_loader_s() -> None:
    config = compose([*TINY, "schedule.images_per_batch=2", "schedule.iterations=1"])
    real = next(iter(train_loader(open_split(config.data, "train"), config)))
    [made] = synthetic_batches(1, 2, 64, 64)
    for name, value in tensors(real).items():
        assert (tensors(made)[name].dtype, tensors(made)[name].dim()) == (value.dtype, value.dim()), name


def test_pictures_without_instances() -> None:
    [batch] = synthetic_batches(1, 2, 64, 64, instances=0)
    assert batch.labels.tolist() == [[-1], [-1]]


def test_a_data_set_s_first_batches() -> None:
    config = compose(TINY)
    batches, classes = data_batches(config, "train", 3, 2)
    assert [len(batch) for batch in batches] == [2, 2, 2]
    assert classes == ["circle", "square", "triangle", "star"]
    assert [len(batch) for batch in data_batches(config, "infer", 3, 2)[0]] == [2]


def test_keypoints_lie_in_their_boxes():
    [batch], [plain] = (synthetic_batches(1, 2, 64, 96, instances=3, keypoints=number) for number in (17, 0))
    assert plain.keypoints is None
    assert torch.equal(batch.images, plain.images)
    xy, boxes = batch.keypoints[..., :2], batch.boxes[:, :, None]
    assert batch.keypoints.shape == (2, 3, 17, 3)
    assert bool(((xy >= boxes[..., :2]) & (xy <= boxes[..., 2:])).all())
    assert bool((batch.keypoints[..., 2] == 2).all())
    [empty] = synthetic_batches(1, 2, 64, 96, instances=0, keypoints=5)
    assert not empty.keypoints[..., 2].any()
