"""Anchors: the RPN's reference boxes on every pixel of every level (Ren et al. 2015)."""

import math

import torch
from torch import Tensor


class AnchorGrid:
    """For each of a level's sizes one box a ratio (height over width), centred on multiples of the stride, and moved
    by `offset` strides (Detectron2's DefaultAnchorGenerator).

    rounding: none; corners, once they are around the origin (torchvision's AnchorGenerator, `generate_anchors`); or
    sides: width and height are those of a box as large as the stride, rounded, times size over stride (Detectron,
    modeling/generate_anchors.py). Grids are kept, because few picture shapes occur in a run.
    """

    def __init__(
        self,
        sizes: list[list[float]],
        ratios: list[float],
        strides: list[int],
        rounding: str = "none",
        offset: float = 0.0,
    ) -> None:
        self.strides = strides
        sides = [
            torch.cat([_sides(size, ratios, stride, rounding == "sides") for size in of_level])
            for of_level, stride in zip(sizes, strides, strict=True)
        ]
        cells = [torch.cat([-side / 2, side / 2], 1) for side in sides]
        cells = [cell.round() for cell in cells] if rounding == "corners" else cells
        # a level: [A, 4] around the point that is moved to every pixel
        self.cells = [cell + offset * stride for cell, stride in zip(cells, strides, strict=True)]
        self._kept: dict[tuple[tuple[tuple[int, int], ...], torch.device], Tensor] = {}

    @property
    def per_position(self) -> int:
        return len(self.cells[0])

    def __call__(self, shapes: list[tuple[int, int]], device: torch.device) -> Tensor:
        """All anchors [N, 4] for levels of the given (height, width); order: level, row, column, size, ratio."""
        key = (tuple(shapes), device)
        if key not in self._kept:
            if len(self._kept) > 256:
                self._kept.clear()
            self._kept[key] = torch.cat(
                [
                    _grid(cell, stride, shape)
                    for cell, stride, shape in zip(self.cells, self.strides, shapes, strict=True)
                ]
            ).to(device, non_blocking=True)
        return self._kept[key]


def sizes_of_levels(sizes: list[float], levels: int) -> list[list[float]]:
    """All of them on a single map, else one a level. Raises ValueError where there are not as many as levels."""
    if levels == 1:
        return [list(sizes)]
    if len(sizes) != levels:
        raise ValueError(f"{len(sizes)} sizes of anchors for {levels} levels")
    return [[size] for size in sizes]


def _sides(size: float, ratios: list[float], stride: int, rounded: bool) -> Tensor:
    """Widths and heights [ratios, 2]."""
    sides = []
    for ratio in ratios:
        if rounded:  # to even from the middle, as numpy does
            of_stride = round(math.sqrt(stride**2 / ratio))
            sides.append([of_stride * size / stride, round(of_stride * ratio) * size / stride])
        else:
            w = math.sqrt(size**2 / ratio)
            sides.append([w, ratio * w])
    return torch.tensor(sides)


def _grid(cell: Tensor, stride: int, shape: tuple[int, int]) -> Tensor:
    y, x = torch.meshgrid(
        torch.arange(shape[0], dtype=torch.float32) * stride,
        torch.arange(shape[1], dtype=torch.float32) * stride,
        indexing="ij",
    )
    centres = torch.stack([x, y, x, y], -1)
    return (centres[:, :, None] + cell).reshape(-1, 4)
