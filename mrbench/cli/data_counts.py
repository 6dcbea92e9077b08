"""What splits hold, side by side, for the commands that show it."""

from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

    from mrbench.data.summary import SplitSummary


def counts_table(summaries: "dict[str, SplitSummary]", areas: list[float]) -> "Table":
    """Pictures, sizes and instances, a column a split; `areas`: limits between the size classes, square pixels."""
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    for split in summaries:
        table.add_column(split, justify="right")
    found = list(summaries.values())
    add_row(table, "images", [s.images for s in found])
    add_row(table, "  without annotations", [s.empty for s in found])
    add_row(table, "  heights", ["-".join(map(str, s.image_heights)) for s in found])
    add_row(table, "  widths", ["-".join(map(str, s.image_widths)) for s in found])
    add_row(table, "instances", [s.instances for s in found])
    for place, name in enumerate(_size_names(areas)):
        add_row(table, f"  {name}", [s.per_size[place] for s in found])
    add_row(table, "crowd regions", [s.crowds for s in found])
    return table


def add_row(table: "Table", name: str, values: list[object]) -> None:
    table.add_row(name, *(f"{v:,}" if isinstance(v, int) else str(v) for v in values))


def _size_names(areas: list[float]) -> list[str]:
    """What the size classes between the limits `areas` (square pixels) are called."""
    sides = [f"{area**0.5:g}" for area in areas]
    limits = [
        "up to " + sides[0],
        *(f"{a} to {b}" for a, b in pairwise(sides)),
        f"over {sides[-1]}",
    ]
    names = ["small", "medium", "large"] if len(areas) == 2 else [""] * len(limits)
    return [f"{name} ({limit} px square)".strip() for name, limit in zip(names, limits, strict=True)]
