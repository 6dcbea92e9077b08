"""Colours that tell classes, or instances, apart on pictures.

They are those of Okabe and Ito (2008), which people with any colour vision tell apart.
"""

from collections.abc import Iterable, Sequence

Colour = tuple[int, int, int]

PALETTE = (
    (230, 159, 0),  # orange
    (86, 180, 233),  # sky blue
    (0, 158, 115),  # green
    (240, 228, 66),  # yellow
    (213, 94, 0),  # vermilion
    (204, 121, 167),  # purple
    (0, 114, 178),  # blue
)
# Instances of one colour take turns: as it is, with white, with black, by these parts.
SHADES = (0.0, 0.35, -0.3)


def by_class(labels: Sequence[int], beside: Iterable[int] = ()) -> list[Colour]:
    """A colour for each instance: its class has its own, or the next free one where another class of the picture, or
    of those beside it, has that. Shades of it tell the instances."""
    of_class: dict[int, int] = {}
    for label in sorted({*labels, *beside}):
        places = [(label + step) % len(PALETTE) for step in range(len(PALETTE))]
        of_class[label] = next((place for place in places if place not in of_class.values()), places[0])
    seen: dict[int, int] = {}
    colours = []
    for label in labels:
        place = of_class[label]
        colours.append(_shade(PALETTE[place], SHADES[seen.get(place, 0) % len(SHADES)]))
        seen[place] = seen.get(place, 0) + 1
    return colours


def by_instance(count: int) -> list[Colour]:
    """A colour for each of `count` instances, whatever its class: the palette, then its shades."""
    return by_class(range(count))


def _shade(colour: Colour, part: float) -> Colour:
    """Mixed with white by this part, or where it is negative with black."""
    end = 255 if part > 0 else 0
    red, green, blue = (round(value + abs(part) * (end - value)) for value in colour)
    return red, green, blue
