"""Resize, crop and flip: first a plan from the picture's size alone, then its application to pixels.

Because the plan needs no pixels, every process knows the padded size of the whole global batch without decoding it,
and the resize reads only the part of the picture that the crop keeps.
"""

from dataclasses import dataclass

import numpy as np

from mrbench.config.schema import AugmentationConfig
from mrbench.config.schema_training import TestTimeConfig


@dataclass(frozen=True)
class Plan:
    """What happens to one picture. Sizes are (height, width), positions (y, x), in pixels."""

    original: tuple[int, int]
    resized: tuple[int, int]  # of the whole picture
    crop: tuple[int, int]  # first pixel of the resized picture that is kept
    size: tuple[int, int]  # of what is kept
    flip: bool  # left to right, after the crop

    @property
    def scale(self) -> tuple[float, float]:
        """(vertical, horizontal): a resized pixel for each of the file's."""
        return self.resized[0] / self.original[0], self.resized[1] / self.original[1]

    def points(self, xy: np.ndarray) -> np.ndarray:
        """Points float [..., 2] (x, y) of the file's picture, in that of the network. Not clipped."""
        scale = np.array(self.scale[::-1])
        moved = xy * scale - np.array(self.crop[::-1])
        if self.flip:
            moved[..., 0] = self.size[1] - moved[..., 0]
        return moved

    def boxes(self, xyxy: np.ndarray) -> np.ndarray:
        """Boxes float [N, 4] in the network's picture, clipped to it."""
        corners = self.points(xyxy.reshape(-1, 2, 2))
        corners = np.sort(corners, axis=1)  # a flip exchanges left and right
        return np.clip(corners, 0, [self.size[1], self.size[0]]).reshape(-1, 4)

    def picture(self, pixels: np.ndarray) -> np.ndarray:
        """uint8 [height, width, 3] of what is kept of the file's pixels uint8 [H, W, 3], perhaps as a view."""
        if self.resized != self.original:
            from mrbench.data.resize import resize_crop  # torch: whoever only plans does without it

            pixels = resize_crop(pixels, self.resized, self.crop, self.size)
        elif self.size != self.original:
            (y, x), (height, width) = self.crop, self.size
            pixels = pixels[y : y + height, x : x + width]
        return pixels[:, ::-1] if self.flip else pixels


def plan_training(config: AugmentationConfig, height: int, width: int, random: np.random.Generator) -> Plan:
    """Draws what happens to a picture of `height` x `width` pixels.

    The same numbers are drawn from `random` in the same order, whatever the picture.
    """
    flip = bool(random.random() < config.flip)
    original = (height, width)
    if config.resize == "none":
        return Plan(original, original, (0, 0), original, flip)
    if config.resize == "short_edge":
        edge = _draw_edge(config, random)
        size = short_edge_size(height, width, edge, config.max_size)
        return Plan(original, size, (0, 0), size, flip)
    return _plan_jitter(config, original, flip, random)


def plan_test(config: AugmentationConfig, height: int, width: int) -> Plan:
    """The picture as it is tested: no flip, its short side at `test_short_edge`.

    Without one it is the first of `short_edge`, and with jitter the long side is at `jitter_size`.
    """
    original = (height, width)
    if config.test_short_edge is not None:
        size = short_edge_size(height, width, config.test_short_edge, config.max_size)
    elif config.resize == "none":
        size = original
    elif config.resize == "short_edge":
        size = short_edge_size(height, width, config.short_edge[0], config.max_size)
    else:
        size = short_edge_size(height, width, config.jitter_size, config.jitter_size)
    return Plan(original, size, (0, 0), size, flip=False)


def plan_views(config: AugmentationConfig, tta: TestTimeConfig, height: int, width: int) -> list[Plan]:
    """The picture as test-time augmentation looks at it, at falling sizes; of each size the mirrored view comes last.

    As Detectron2's `DatasetMapperTTA` (modeling/test_time_augmentation.py).
    """
    original = (height, width)
    edges = sorted(tta.short_edge, reverse=True)
    sizes = [short_edge_size(height, width, edge, tta.max_size) for edge in edges]
    sizes = sizes or [plan_test(config, height, width).size]
    flips = (False, True) if tta.flip else (False,)
    return [Plan(original, size, (0, 0), size, flip) for size in sizes for flip in flips]


def short_edge_size(height: int, width: int, edge: int, max_size: int) -> tuple[int, int]:
    """(height, width) with the short side at `edge`, or with the long side at `max_size` where it would be longer.

    As Detectron2's `ResizeShortestEdge.get_output_shape`, with its rounding.
    """
    scale = edge / min(height, width)
    new_height, new_width = (edge, scale * width) if height < width else (scale * height, edge)
    if max(new_height, new_width) > max_size:
        scale = max_size / max(new_height, new_width)
        new_height, new_width = new_height * scale, new_width * scale
    return max(int(new_height + 0.5), 1), max(int(new_width + 0.5), 1)


def _draw_edge(config: AugmentationConfig, random: np.random.Generator) -> int:
    if config.short_edge_sampling == "range":
        low, high = config.short_edge
        return int(random.integers(low, high + 1))
    return config.short_edge[int(random.integers(len(config.short_edge)))]


def _plan_jitter(
    config: AugmentationConfig, original: tuple[int, int], flip: bool, random: np.random.Generator
) -> Plan:
    """Large-scale jitter (Ghiasi et al. 2021), as Detectron2's `ResizeScale` and `FixedSizeCrop` do it.

    The picture is scaled so that it fits a square of scale * jitter_size, then a window of jitter_size is cut out
    where it is larger. Detectron2 draws one number for both directions of the window, and so do we.
    """
    side = config.jitter_size
    scale, place = random.uniform(config.jitter[0], config.jitter[1]), random.random()
    factor = min(side * scale / original[0], side * scale / original[1])
    resized = (max(round(original[0] * factor), 1), max(round(original[1] * factor), 1))
    crop = (round(max(resized[0] - side, 0) * place), round(max(resized[1] - side, 0) * place))
    size = (min(resized[0], side), min(resized[1], side))
    return Plan(original, resized, crop, size, flip)
