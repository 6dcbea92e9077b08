"""What the loader hands to the network: a padded batch of pictures with boxes, labels, mask windows and keypoints."""

from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor


@dataclass
class MaskWindows:
    """Every instance's mask inside its own pixel window, as summed-area tables in one flat buffer.

    Entry (r, c) of an instance's table is the number of mask pixels in the window's first r rows and c columns,
    so the mask's area inside any rectangle is four look-ups; bilinear interpolation between entries makes it
    exact for rectangles that do not end on pixel borders (Crow 1984). Full-size masks are never laid out.
    """

    table: Tensor  # int32 [sum of (h + 1) * (w + 1)]; each table starts with a row and a column of zeros
    offset: Tensor  # int64 [B, G]: where an instance's table begins in `table`; 0 in the padding
    size: Tensor  # int64 [B, G, 2]: (h, w) of the window in pixels; 0 in the padding
    origin: Tensor  # int64 [B, G, 2]: (y, x) of the window's first pixel in the network's picture

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "MaskWindows":
        return MaskWindows(*(t.to(device, non_blocking=non_blocking) for t in self._tensors()))

    def pin_memory(self) -> "MaskWindows":
        return MaskWindows(*(t.pin_memory() for t in self._tensors()))

    def __getitem__(self, images: slice) -> "MaskWindows":
        """The windows of some of the images; the table is shared, not copied."""
        return MaskWindows(self.table, self.offset[images], self.size[images], self.origin[images])

    def _tensors(self) -> list[Tensor]:
        return [self.table, self.offset, self.size, self.origin]


@dataclass
class Batch:
    """B pictures with at most G instances each; G is at least 1. Crowds are not in it."""

    images: Tensor  # uint8 [B, 3, H, W] RGB, zeros to the right and below (`padded_size`)
    sizes: Tensor  # int64 [B, 2]: (height, width) before padding
    original_sizes: Tensor  # int64 [B, 2]: (height, width) of the file
    boxes: Tensor  # float32 [B, G, 4] xyxy in the network's pixels; zeros in the padding
    labels: Tensor  # int64 [B, G] in 0..K-1; -1 in the padding
    masks: MaskWindows | None
    seeds: Tensor  # int64 [B]: a 62-bit number an image, from (seed, iteration, slot in the global batch)
    image_ids: list[int]
    iteration: int
    keypoints: Tensor | None = None  # float32 [B, G, K, 3]: x, y in the network's pixels, and visibility 0, 1 or 2
    # float32 [B, P, 5], best first: boxes as above and objectness before the sigmoid, which is -inf in the padding
    proposals: Tensor | None = None

    def __len__(self) -> int:
        return self.images.shape[0]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        return self._map("to", device, non_blocking=non_blocking)

    def pin_memory(self) -> "Batch":
        """Called by torch's DataLoader; page-locked tensors are copied to a GPU without waiting."""
        return self._map("pin_memory")

    def __getitem__(self, images: slice) -> "Batch":
        """Some of the images, as views."""
        parts = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "iteration"}
        return replace(self, **{name: value[images] for name, value in parts.items() if value is not None})

    def chunk(self, n: int) -> list["Batch"]:
        """`n` consecutive parts whose sizes differ by at most one; fewer where there are fewer images."""
        size, extra = divmod(len(self), n)
        ends = [0]
        for i in range(min(n, len(self))):
            ends.append(ends[-1] + size + (i < extra))
        return [self[a:b] for a, b in pairwise(ends)]

    def _map(self, method: str, *args: Any, **kwargs: Any) -> "Batch":
        moved = {
            f.name: getattr(value, method)(*args, **kwargs)
            for f in fields(self)
            if isinstance(value := getattr(self, f.name), Tensor | MaskWindows)
        }
        return replace(self, **moved)


@dataclass
class Views:
    """The same images several times over, as test-time augmentation looks at them: at falling sizes, and mirrored."""

    batches: list[Batch]  # the first is as large as any, and not mirrored
    flipped: list[bool]  # which ones are mirrored, left to right

    def __len__(self) -> int:
        return len(self.batches[0])

    @property
    def image_ids(self) -> list[int]:
        return self.batches[0].image_ids

    @property
    def original_sizes(self) -> Tensor:
        """int64 [B, 2]: (height, width) of the file."""
        return self.batches[0].original_sizes

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Views":
        return Views([batch.to(device, non_blocking) for batch in self.batches], self.flipped)

    def pin_memory(self) -> "Views":
        return Views([batch.pin_memory() for batch in self.batches], self.flipped)
