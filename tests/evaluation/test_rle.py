"""The encoding of an instance from its window equals the encoding of its full-size picture."""

import numpy as np
import pytest
import torch
from pycocotools import mask as rle_api
from torch.nn.functional import grid_sample

from mrbench.evaluation.rle import encode_instance

# pycocotools 2.0.11 with numpy 2
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def pasted(probabilities, box, height, width):
    """Detectron2's `_do_paste_mask` over the whole picture: values, not yet thresholded."""
    x0, y0, x1, y1 = torch.tensor(box, dtype=torch.float32)
    if not (x1 > x0 and y1 > y0):
        return np.zeros((height, width), np.float32)
    ys = (torch.arange(height, dtype=torch.float32) + 0.5 - y0) / (y1 - y0) * 2 - 1
    xs = (torch.arange(width, dtype=torch.float32) + 0.5 - x0) / (x1 - x0) * 2 - 1
    grid = torch.stack([xs[None].expand(height, width), ys[:, None].expand(height, width)], 2)
    return grid_sample(torch.from_numpy(probabilities)[None, None], grid[None], align_corners=False)[0, 0].numpy()


def encoded(mask):
    rle = rle_api.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


EDGES = {
    "inside": (10.3, 20.7, 60.2, 44.4),
    "whole picture": (0, 0, 90, 70),
    "beyond every side": (-20.5, -13.25, 130.5, 99.75),
    "half outside to the left": (-30.4, 10, 20.6, 50),
    "half outside below": (40, 50, 80, 110.5),
    "all outside": (200, 200, 240, 230),
    "all outside to the left": (-90, 10, -40, 50),
    "smaller than a pixel": (30.2, 30.2, 30.6, 30.7),
    "one pixel": (30, 30, 31, 31),
    "full height": (30, 0, 50, 70),
    "no width": (30, 10, 30, 50),
    "no height": (30, 10, 50, 10),
}


@pytest.mark.parametrize("box", EDGES.values(), ids=EDGES.keys())
@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.8])
@pytest.mark.parametrize("fill", ["random", "ones", "zeros"])
def test_equals_the_encoding_of_the_pasted_picture(box, threshold, fill):
    height, width = 70, 90
    rng = np.random.default_rng(0)
    grid = {"random": rng.random((28, 28)), "ones": np.full((28, 28), 0.999), "zeros": np.zeros((28, 28))}[fill]
    probabilities = grid.astype(np.float32)
    result = encode_instance(probabilities, box, height, width, threshold)
    expected = pasted(probabilities, box, height, width)
    assert not (np.abs(expected - threshold) < 1e-6).any()
    assert result == encoded(expected >= threshold)


def test_equals_the_encoding_of_the_pasted_picture_on_many_random_boxes():
    rng = np.random.default_rng(1)
    different = 0
    for _ in range(300):
        height, width = rng.integers(20, 200, 2).tolist()
        corners = rng.uniform(-30, 230, (2, 2))
        box = [*corners.min(0).tolist(), *corners.max(0).tolist()]
        size = int(rng.choice([7, 14, 28]))
        # Smooth, as a network's masks are.
        logits = np.cumsum(rng.normal(0, 1, (size, size)), axis=1)
        probabilities = (1 / (1 + np.exp(-logits))).astype(np.float32)
        expected = pasted(probabilities, box, height, width)
        result = rle_api.decode(encode_instance(probabilities, box, height, width))
        clear = np.abs(expected - 0.5) > 1e-5
        assert (result.astype(bool) == (expected >= 0.5))[clear].all()
        different += (~clear).sum()
    assert different < 50


def test_equals_our_own_paste():
    paste = pytest.importorskip("mrbench.modeling.paste")
    rng = np.random.default_rng(2)
    for box in EDGES.values():
        if box[2] - box[0] <= 0 or box[3] - box[1] <= 0:
            continue
        probabilities = rng.random((28, 28)).astype(np.float32)
        full = paste.paste_masks(torch.from_numpy(probabilities)[None], torch.tensor([box]).float(), 70, 90, 0.5)
        assert encode_instance(probabilities, box, 70, 90, 0.5) == encoded(full[0].numpy())
