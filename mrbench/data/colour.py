"""Random brightness, contrast, saturation and hue."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

KINDS = ("brightness", "contrast", "saturation", "hue")


@dataclass(frozen=True)
class Colours:
    """What happens to a picture's colours: (kind, amount) in the order in which it happens."""

    steps: tuple[tuple[str, float], ...]


def draw_colours(strengths: Sequence[float], random: np.random.Generator) -> Colours:
    """As torchvision's `ColorJitter(*strengths)`: a factor from [max(0, 1 - s), 1 + s] for each of the first three, a
    shift from [-s, s] of the colour circle for the hue, in a random order. A strength of 0 is left out."""
    order = random.permutation(len(KINDS))
    low = [max(0.0, 1 - s) for s in strengths[:3]] + [-strengths[3]]
    high = [1 + s for s in strengths[:3]] + [strengths[3]]
    amounts = random.uniform(low, high)
    return Colours(tuple((KINDS[i], float(amounts[i])) for i in order if strengths[i] > 0))


def change_colours(pixels: np.ndarray, colours: Colours) -> np.ndarray:
    """uint8 [h, w, 3] of the same."""
    from torchvision.transforms.v2 import functional  # seconds, and seldom needed

    adjust = {kind: getattr(functional, f"adjust_{kind}") for kind in KINDS}
    picture = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
    for kind, amount in colours.steps:
        picture = adjust[kind](picture, amount)
    return picture.permute(1, 2, 0).numpy()
