"""Batches: their contents against the annotations, and the same ones whatever the workers and processes."""

import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from mrbench.config.schema import DataConfig, RunConfig
from mrbench.data.batch import Batch, MaskWindows
from mrbench.data.loader import eval_loader, train_loader
from mrbench.data.sources import open_split
from mrbench.errors import UserError


def flat(batch: Batch) -> dict:
    """All tensors of a batch by name."""
    found = {}
    for f in fields(batch):
        value = getattr(batch, f.name)
        if isinstance(value, MaskWindows):
            found |= {f"masks.{g.name}": getattr(value, g.name) for g in fields(value)}
        elif value is not None:
            found[f.name] = value
    return found


def assert_equal(a: Batch, b: Batch) -> None:
    left, right = flat(a), flat(b)
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == right[name].dtype
            assert torch.equal(value, right[name]), name
        else:
            assert value == right[name], name


def mask_of(batch: Batch, image: int, instance: int) -> np.ndarray:
    """The full-size bitmap of an instance, taken back out of its summed-area table."""
    masks = batch.masks
    (h, w), (y, x) = masks.size[image, instance].tolist(), masks.origin[image, instance].tolist()
    begin = int(masks.offset[image, instance])
    table = masks.table[begin : begin + (h + 1) * (w + 1)].reshape(h + 1, w + 1).numpy()
    bitmap = np.diff(np.diff(table, axis=0), axis=1)
    full = np.zeros(batch.images.shape[-2:], dtype=np.int64)
    full[y : y + h, x : x + w] = bitmap
    return full


def config_of(data: DataConfig, **augmentation: object) -> RunConfig:
    config = RunConfig(data=data)
    config.runtime.num_workers = 0
    config.schedule.images_per_batch, config.schedule.iterations = 4, 5
    for name, value in augmentation.items():
        setattr(config.augmentation, name, value)
    return config


@pytest.fixture
def mini(shared: Path) -> DataConfig:
    return DataConfig(kind="coco_folder", root=str(shared / "data" / "coco-mini"))


def test_a_batch_holds_the_annotations(folder) -> None:
    config = folder.config(resize="none", flip=0.0)
    config.schedule.images_per_batch, config.schedule.iterations = 3, 1
    dataset = open_split(folder.data, "train")
    (batch,) = train_loader(dataset, config)
    assert batch.images.shape == (3, 3, 64, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.sizes.tolist() == [[40, 60]] * 3 == batch.original_sizes.tolist()
    # Images 40 (nothing) and 50 (a crowd only) are not trained on; crowds are in no batch.
    assert sorted(batch.image_ids) == [10, 20, 30]
    first, second = batch.image_ids.index(10), batch.image_ids.index(20)
    assert batch.boxes[first].tolist() == [[5, 5, 25, 15], [30, 10, 40, 30]]
    assert batch.labels[first].tolist() == [0, 2]
    assert batch.boxes[second].tolist() == [[10, 4, 15, 20], [0, 0, 0, 0]]
    assert batch.labels[second].tolist() == [1, -1]
    assert batch.masks.size[second].tolist() == [[16, 5], [0, 0]]
    assert batch.masks.origin[second, 0].tolist() == [4, 10]
    for image in range(3):
        file = folder.root / "images" / "train" / f"{batch.image_ids[image] // 10}.png"
        pixels = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1)
        assert torch.equal(batch.images[image, :, :40, :60], pixels)
        assert not batch.images[image, :, 40:].any()
        assert not batch.images[image, :, :, 60:].any()
    # Polygons that overlap are one mask: the union.
    third = batch.image_ids.index(30)
    polygons = dataset.annotations(2)[0].segmentation
    expected = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 60)))
    assert np.array_equal(mask_of(batch, third, 0)[:40, :60], expected)


def test_images_without_annotations_are_kept_when_asked_for(folder) -> None:
    config = folder.config(resize="none")
    config.data.keep_empty = True
    config.schedule.images_per_batch, config.schedule.iterations = 5, 1
    (batch,) = train_loader(open_split(folder.data, "train"), config)
    assert sorted(batch.image_ids) == [10, 20, 30, 40, 50]
    assert (batch.labels[batch.image_ids.index(40)] == -1).all()


@pytest.mark.parametrize("resize", ["short_edge", "jitter"])
def test_table_sums_are_mask_areas_and_boxes_surround_them(mini: DataConfig, resize: str) -> None:
    config = config_of(mini, resize=resize, short_edge=[256, 320], max_size=400, jitter_size=256)
    dataset = open_split(mini, "train")
    for batch in train_loader(dataset, config):
        for i in range(len(batch)):
            height, width = batch.sizes[i].tolist()
            for g in range(batch.labels.shape[1]):
                full, box = mask_of(batch, i, g), batch.boxes[i, g]
                if batch.labels[i, g] < 0:
                    assert not box.any()
                    assert not full.any()
                    continue
                (h, w), begin = batch.masks.size[i, g].tolist(), int(batch.masks.offset[i, g])
                total = batch.masks.table[begin + (h + 1) * (w + 1) - 1]
                assert total == full.sum() > 0
                assert set(np.unique(full)) <= {0, 1}
                assert not full[height:].any()
                assert not full[:, width:].any()
                assert 0 <= box[0] < box[2] <= width
                assert 0 <= box[1] < box[3] <= height
                rows, columns = np.flatnonzero(full.any(1)), np.flatnonzero(full.any(0))
                tight = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
                if resize == "jitter":
                    assert box.tolist() == tight
    if resize == "jitter":
        assert batch.images.shape[-2:] == (256, 256)


@pytest.mark.parametrize("resize", ["none", "short_edge", "jitter"])
def test_two_workers_give_the_same_bits_as_none(mini: DataConfig, resize: str) -> None:
    config = config_of(mini, resize=resize, short_edge=[128, 160, 192], jitter_size=192)
    dataset = open_split(mini, "train")
    alone = list(train_loader(dataset, config))
    config.runtime.num_workers = 2
    before = torch.random.get_rng_state()
    for a, b in zip(alone, train_loader(dataset, config), strict=True):
        assert_equal(a, b)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_later_start_continues_the_same_stream(mini: DataConfig) -> None:
    config = config_of(mini, short_edge=[128])
    dataset = open_split(mini, "train")
    whole = list(train_loader(dataset, config))
    assert [b.iteration for b in whole] == [0, 1, 2, 3, 4]
    for a, b in zip(whole[3:], train_loader(dataset, config, start=3), strict=True):
        assert_equal(a, b)
    assert list(train_loader(dataset, config, start=5)) == []


@pytest.mark.parametrize("resize", ["short_edge", "jitter"])
def test_processes_hold_the_parts_of_the_global_batch(mini: DataConfig, resize: str) -> None:
    config = config_of(mini, resize=resize, short_edge=[128, 160], jitter_size=160)
    dataset = open_split(mini, "train")
    shares = [train_loader(dataset, config, rank=rank, world_size=2) for rank in range(2)]
    for whole, *parts in zip(train_loader(dataset, config), *shares, strict=True):
        for part, half in zip(parts, whole.chunk(2), strict=True):
            assert part.iteration == whole.iteration
            for name, value in flat(half).items():
                if name not in ("masks.table", "masks.offset"):
                    assert torch.equal(torch.as_tensor(flat(part)[name]), torch.as_tensor(value)), name
            for i in range(2):
                for g in range(whole.labels.shape[1]):
                    assert np.array_equal(mask_of(part, i, g), mask_of(half, i, g))


def test_augmentation_changes_with_the_epoch_and_not_with_the_batch_size(folder) -> None:
    config = folder.config(short_edge=list(range(30, 90)), flip=0.5)
    dataset = open_split(folder.data, "train")

    def pictures(batch: int, iterations: int) -> list[torch.Tensor]:
        config.schedule.images_per_batch, config.schedule.iterations = batch, iterations
        return [
            b.images[i, :, :h, :w] for b in train_loader(dataset, config) for i, (h, w) in enumerate(b.sizes.tolist())
        ]

    ones, sixes = pictures(1, 12), pictures(6, 2)
    assert all(torch.equal(a, b) for a, b in zip(ones, sixes, strict=True))
    assert len({tuple(p.shape) for p in ones}) > 6


def test_evaluation_reads_each_image_once_and_pads_it_as_it_would_be_alone(mini: DataConfig) -> None:
    config = config_of(mini, short_edge=[200], max_size=300)
    config.runtime.evaluation_batch = 8
    dataset = open_split(mini, "val")
    whole = {b.iteration: b for b in eval_loader(dataset, config)}
    assert sorted(i for b in whole.values() for i in b.image_ids) == sorted(i.id for i in dataset.images)
    for batch in whole.values():
        assert batch.masks is None
        assert (batch.labels == -1).all()
        for height, width in batch.sizes.tolist():
            assert batch.images.shape[-2:] == (-(-height // 32) * 32, -(-width // 32) * 32)
    for world_size in (2, 3):
        parts = [b for rank in range(world_size) for b in eval_loader(dataset, config, rank, world_size)]
        assert len(parts) == len(whole)
        for part in parts:
            assert_equal(part, whole[part.iteration])


def test_only_a_pyramid_needs_padding(mini: DataConfig) -> None:
    """A single map is as large as the picture makes it (Detectron2's C4 and DC5 have size_divisibility 0)."""
    config = config_of(mini, short_edge=[200], max_size=300)
    config.model.neck.kind = "c4"
    for loader, split in ((train_loader, "train"), (eval_loader, "val")):
        for batch in loader(open_split(mini, split), config):
            assert tuple(batch.images.shape[-2:]) == tuple(batch.sizes.amax(0).tolist())


def test_more_processes_than_images_in_a_batch_is_refused(folder) -> None:
    with pytest.raises(UserError, match="cannot be shared by 5 processes"):
        train_loader(open_split(folder.data, "train"), folder.config(), rank=0, world_size=5)


def test_nothing_to_learn_from_is_said(folder) -> None:
    for annotation in folder.content["annotations"]:
        annotation["iscrowd"] = 1
        annotation["segmentation"] = {"size": [40, 60], "counts": [0, 2400]}
    with pytest.raises(UserError, match="No image"):
        train_loader(open_split(folder.write(), "train"), folder.config())


def test_boxes_without_masks_train_a_box_detector_only(folder) -> None:
    for annotation in folder.content["annotations"]:
        del annotation["segmentation"]
    dataset = open_split(folder.write(), "train")
    config = folder.config(resize="none", flip=0.0)
    with pytest.raises(UserError, match=r"4 annotations have no segmentation.*annotation 1"):
        train_loader(dataset, config)
    config.model.mask_head.enabled = False
    batch = next(train_loader(dataset, config))
    assert batch.masks is None
    assert batch.boxes[batch.image_ids.index(10)].tolist() == [[5, 5, 25, 15], [30, 10, 40, 30]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_picture_that_does_not_decode_is_named(folder, num_workers: int) -> None:
    if num_workers and sys.platform != "linux":
        pytest.skip("worker processes are slow to start here")
    path = folder.root / "images" / "train" / "2.png"
    path.write_bytes(path.read_bytes()[:2000])
    config = folder.config(resize="none")
    config.runtime.num_workers = num_workers
    with pytest.raises(UserError) as raised:
        list(train_loader(open_split(folder.data, "train"), config))
    assert "Image 20 cannot be read" in raised.value.what
    assert str(path) in raised.value.what
    assert "Traceback" not in str(raised.value)


def test_chunks_cover_the_batch(folder) -> None:
    config = folder.config(resize="none")
    batch = next(train_loader(open_split(folder.data, "train"), config))
    parts = batch.chunk(3)
    assert [len(p) for p in parts] == [2, 1, 1]
    assert [i for p in parts for i in p.image_ids] == batch.image_ids
    assert torch.equal(torch.cat([p.seeds for p in parts]), batch.seeds)
    assert len(batch.chunk(9)) == 4
    assert_equal(batch.to("cpu"), batch)
