"""Copy-paste against a slow way of doing the same, on masks as large as the picture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mrbench.config.schema import DataConfig, RunConfig
from mrbench.data.augmentation import plan_training
from mrbench.data.copy_paste import plan_paste
from mrbench.data.loader import train_loader
from mrbench.data.sampler import PASTE, random_stream
from mrbench.data.sources import open_split
from mrbench.data.train_batches import TrainBatches
from mrbench.errors import UserError


def config_of(data: DataConfig, **augmentation: object) -> RunConfig:
    config = RunConfig(data=data, seed=3)
    config.runtime.num_workers = 0
    config.schedule.images_per_batch, config.schedule.iterations = 4, 3
    for name, value in {"short_edge": [120, 160], "jitter_size": 192, "copy_paste": 1.0, **augmentation}.items():
        setattr(config.augmentation, name, value)
    return config


@pytest.fixture
def mini(shared: Path) -> DataConfig:
    return DataConfig(kind="coco_folder", root=str(shared / "data" / "coco-mini"))


def full_size(sample, size) -> list[np.ndarray]:
    masks = []
    for window in sample.windows:
        mask = np.zeros(size, dtype=bool)
        left, top, right, bottom = window.box
        mask[top:bottom, left:right] = window.bitmap
        masks.append(mask)
    return masks


def tight(mask: np.ndarray) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


def slow(target, source, mean):
    """Pixels, masks, boxes and labels, object by object and on the whole canvas."""
    size = np.maximum(target.pixels.shape[:2], source.pixels.shape[:2])
    pixels = np.zeros((*size, 3), dtype=np.uint8) + np.round(mean).astype(np.uint8)
    pixels[: target.pixels.shape[0], : target.pixels.shape[1]] = target.pixels
    pasted = full_size(source, size)
    for mask in pasted:
        for y, x in zip(*np.nonzero(mask), strict=True):
            pixels[y, x] = source.pixels[y, x]
    masks, boxes, labels = [], [], []
    for mask, box, label in zip(full_size(target, size), target.boxes, target.labels, strict=True):
        left = mask.copy()
        for above in pasted:
            left &= ~above
        if not left.any():
            continue
        if left.sum() < mask.sum():
            moved = np.abs(np.array(tight(left)) - tight(mask)).max()
            if moved > 10 and left.sum() <= 300:
                continue
            box = tight(left)
        masks.append(left), boxes.append(list(box)), labels.append(label)
    for mask, label in zip(pasted, source.labels, strict=True):
        masks.append(mask), boxes.append(tight(mask)), labels.append(label)
    return pixels, masks, boxes, labels


@pytest.mark.parametrize("resize", ["none", "short_edge", "jitter"])
def test_pixels_masks_and_boxes_equal_the_slow_way(mini: DataConfig, resize: str) -> None:
    config = config_of(mini, resize=resize)
    dataset = open_split(mini, "train")
    batches = TrainBatches(dataset, config, 0, 1, 0)
    hidden, grown = 0, 0
    for index in batches.images[: 4 if resize == "none" else 16]:
        drawn = batches._draw(0, int(index))
        target = batches._read(drawn.index, drawn.plan)
        source = batches._read(drawn.pasted.index, drawn.pasted.plan, drawn.pasted.chosen)
        pixels, masks, boxes, labels = slow(target, source, config.model.pixel_mean)
        found = batches.sample(0, int(index))
        assert np.array_equal(found.pixels, pixels)
        assert found.boxes.tolist() == boxes
        assert found.labels.tolist() == labels
        assert all(np.array_equal(a, b) for a, b in zip(full_size(found, pixels.shape[:2]), masks, strict=True))
        hidden += len(target.labels) + len(source.labels) - len(labels)
        grown += pixels.shape != target.pixels.shape
    assert hidden > 0 or resize == "none"
    assert grown > 0


def test_what_is_pasted_follows_its_definition(mini: DataConfig) -> None:
    config = config_of(mini, resize="jitter", copy_paste=0.3)
    dataset = open_split(mini, "train")
    images = np.flatnonzero(dataset.trainable)
    draws = [plan_paste(config.augmentation, dataset, images, int(images[5]), random_stream(0, PASTE, i, 5))
             for i in range(3000)]  # fmt: skip
    pasted = [draw for draw in draws if draw is not None]
    # Binomial, 4 standard deviations.
    assert abs(len(pasted) / 3000 - 0.3) < 4 * np.sqrt(0.3 * 0.7 / 3000)
    counts = np.bincount([p.index for p in pasted], minlength=len(dataset))
    assert counts[images[5]] == 0
    expected = len(pasted) / (len(images) - 1)
    chi_square = sum((counts[i] - expected) ** 2 / expected for i in images if i != images[5])
    freedom = len(images) - 2
    assert abs(chi_square - freedom) < 4 * np.sqrt(2 * freedom)
    # From none to all, each number equally likely: the mean share is a half, its variance (n + 2) / (12 n).
    several = [p for p in pasted if dataset.trainable[p.index] >= 4]
    shares = np.array([len(p.chosen) / dataset.trainable[p.index] for p in several])
    sizes = np.array([dataset.trainable[p.index] for p in several])
    assert abs(shares.mean() - 0.5) < 4 * np.sqrt(((sizes + 2) / (12 * sizes)).mean() / len(shares))
    assert {len(set(p.chosen)) - len(p.chosen) for p in pasted} == {0}
    # The one that is pasted is jittered and mirrored like any other.
    assert 0.4 < np.mean([p.plan.flip for p in pasted]) < 0.6
    scales = np.sort([max(p.plan.resized) / 192 for p in pasted])
    uniform = 0.1 + 1.9 * (np.arange(len(scales)) + 0.5) / len(scales)
    assert np.abs(scales - uniform).max() / 1.9 < 1.63 / np.sqrt(len(scales)) + 0.01  # Kolmogorov-Smirnov at 1 %


def test_switched_on_it_changes_nothing_of_what_lies_below(mini: DataConfig) -> None:
    dataset = open_split(mini, "train")
    for name, value in (("copy_paste", 1.0), ("colour_jitter", [0.4, 0.4, 0.4, 0.1])):
        plain = TrainBatches(dataset, config_of(mini, resize="jitter", copy_paste=0.0), 0, 1, 0)
        more = TrainBatches(dataset, config_of(mini, resize="jitter", **{"copy_paste": 0.0, name: value}), 0, 1, 0)
        for index in plain.images[:20]:
            image = dataset.images[index]
            expected = plan_training(
                plain.config.augmentation, image.height, image.width, random_stream(3, 2, 7, int(index))
            )
            assert plain._draw(7, int(index)).plan == more._draw(7, int(index)).plan == expected


@pytest.mark.parametrize("resize", ["short_edge", "jitter"])
def test_workers_and_processes_see_the_same(mini: DataConfig, resize: str) -> None:
    config = config_of(mini, resize=resize, colour_jitter=[0.4, 0.4, 0.4, 0.1], group_by_aspect=True)
    dataset = open_split(mini, "train")
    alone = list(train_loader(dataset, config))
    config.runtime.num_workers = 2
    shares = [list(train_loader(dataset, config, rank, 2)) for rank in range(2)]
    for whole, other, *parts in zip(alone, train_loader(dataset, config), *shares, strict=True):
        assert whole.image_ids == other.image_ids == parts[0].image_ids + parts[1].image_ids
        for name in ("images", "sizes", "boxes", "labels"):
            assert torch.equal(getattr(whole, name), getattr(other, name))
            assert torch.equal(getattr(whole, name), torch.cat([getattr(part, name) for part in parts]))
        assert torch.equal(whole.masks.table, other.masks.table)


def test_objects_without_masks_cannot_be_pasted(folder) -> None:
    for annotation in folder.content["annotations"]:
        del annotation["segmentation"]
    dataset = open_split(folder.write(), "train")
    config = folder.config(copy_paste=0.5)
    config.model.mask_head.enabled = False
    with pytest.raises(UserError, match="4 annotations have no segmentation"):
        train_loader(dataset, config)
