"""Both sides of the loading benchmark read the same pictures; nothing here is timed."""

import torch

from mrbench.bench.loading import HEIGHT, INSTANCES, SIDE, WIDTH, make_pictures, ours, torchvisions


def test_both_sides_deliver_pictures_of_the_same_size_with_their_masks(tmp_path) -> None:
    dataset = make_pictures(tmp_path, 2)
    assert [(i.height, i.width, len(dataset.annotations(k))) for k, i in enumerate(dataset.images)] == [
        (HEIGHT, WIDTH, INSTANCES)
    ] * 2
    assert 100_000 < dataset.images[0].file.stat().st_size < 250_000  # COCO's are 160 kB in the mean
    batch = ours(dataset, 2)(0)
    assert batch.images.shape == (2, 3, SIDE, SIDE)
    assert batch.masks.table.any()
    torch.manual_seed(0)
    for picture, target in torchvisions(dataset, 2)(0):
        assert picture.shape == (3, SIDE, SIDE)
        assert picture.dtype == torch.uint8
        assert len(target["masks"]) == len(target["boxes"]) <= INSTANCES
