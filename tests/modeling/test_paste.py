"""Pasting masks: a slow reference, and windows that lie partly outside the picture."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mrbench.modeling import paste
from mrbench.modeling.paste import paste_masks


def slowly(probability: Tensor, box: Tensor, height: int, width: int) -> Tensor:
    """Bilinear value at every pixel's centre, zero outside, one pixel at a time."""
    m = len(probability)
    framed = F.pad(probability, (1, 1, 1, 1))
    x1, y1, x2, y2 = box.tolist()
    out = torch.zeros(height, width)
    for i in range(height):
        for j in range(width):
            y = (i + 0.5 - y1) / (y2 - y1) * m - 0.5 + 1
            x = (j + 0.5 - x1) / (x2 - x1) * m - 0.5 + 1
            if 0 < y < m + 1 and 0 < x < m + 1:
                a, b = int(y), int(x)
                u, v = y - a, x - b
                out[i, j] = (1 - u) * ((1 - v) * framed[a, b] + v * framed[a, b + 1]) + u * (
                    (1 - v) * framed[a + 1, b] + v * framed[a + 1, b + 1]
                )
    return out


def test_pasted_masks_equal_the_reference() -> None:
    g = torch.Generator().manual_seed(0)
    masks = torch.rand(4, 7, 7, generator=g)
    boxes = torch.tensor([[3.2, 4.1, 15.9, 17.0], [-5.0, -3, 9, 30], [10, 2, 10.8, 19], [18, 12, 40, 26.0]])
    pasted = paste_masks(masks, boxes, 20, 24, 0.5)
    whole = paste._sample(masks, boxes, 0, 0, 20, 24)  # as on a GPU: full pictures in chunks
    for i in range(4):
        wanted = slowly(masks[i], boxes[i], 20, 24)
        torch.testing.assert_close(whole[i], wanted, rtol=0, atol=1e-5)
        clear = (wanted - 0.5).abs() > 1e-5
        assert torch.equal(pasted[i][clear], (wanted >= 0.5)[clear])


def test_nothing_to_paste() -> None:
    assert paste_masks(torch.zeros(0, 28, 28), torch.zeros(0, 4), 5, 6, 0.5).shape == (0, 5, 6)
    flat = paste_masks(torch.ones(1, 28, 28), torch.tensor([[3.0, 3, 3, 3]]), 5, 6, 0.5)
    assert not flat.any()
