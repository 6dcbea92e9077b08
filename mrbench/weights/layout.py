"""What is to be known about one project's files to read them."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

# Configuration key -> the value that a file's weights were trained with.
Settings = dict[str, Any]

IMAGENET_MEAN = [123.675, 116.28, 103.53]  # red, green, blue; 0..255
IMAGENET_STD = [58.395, 57.12, 57.375]

# Boxes as all but Detectron count them, and anchors as all but it and torchvision lay them.
BOXES: Settings = {
    "model.rpn.anchor_rounding": "none",
    "model.rpn.anchor_offset": 0.0,
    "model.pooler.inclusive": False,
}

STEMS = ("backbone.conv1.weight", "backbone.stem.0.weight")  # a ResNet's and a RegNet's first convolution


@dataclass
class Translated:
    """A file's tensors in our names and our layout."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    unplaced: list[str] = field(default_factory=list)  # their names of what has no place


@dataclass(frozen=True)
class Layout:
    """One project's names and habits.

    `notes` say what of the project's habits is undone in reading: pixel order, order of classes.
    """

    name: str
    recognises: Callable[[Collection[str]], bool]
    translate: Callable[[Mapping[str, Tensor]], Translated]
    settings: Callable[[Mapping[str, Tensor]], Settings]
    notes: tuple[str, ...] = ()


def blue_first(tensors: dict[str, Tensor]) -> None:
    """Turns round the input channels of the first convolution, trained on BGR: our pictures are RGB."""
    for name in STEMS:
        if name in tensors:
            tensors[name] = tensors[name].flip(1)
