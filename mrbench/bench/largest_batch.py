"""The largest batch that fits, by trying: doubling until one does not fit, then bisection.

What to try next follows from the tries alone, so a search that was killed goes on from what it remembers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from mrbench.bench.matrix import Case

MOST = 1 << 16  # images; a search that reaches this is ended


@dataclass
class Try:
    """One batch size, tried in a fresh process."""

    batch: int
    ended: str  # "fits", or what it ran into: "memory", "time"
    why: str = ""
    peak_memory: int | None = None  # bytes: resident (CPU; in a control group without files), allocated by torch (GPU)
    seconds: float | None = None


@dataclass
class Worst:
    """What every picture of a try has: see `mrbench.bench.worst`."""

    image_size: list[int]  # height, width of the batch before it is padded to a multiple
    instances: int
    classes: int | None  # null: as many as the synthetic inputs have
    source: str  # "synthetic", or the annotation file that was searched


@dataclass
class Search:
    """The search for one row of the matrix, whose batch is not stated. `largest` is null until it has ended; 0: not
    even one image fits."""

    case: Case
    tries: list[Try] = field(default_factory=list)
    largest: int | None = None
    bound: str | None = None  # what the next larger batch ran into: "memory", "time", or "most" (never tried)
    note: str = ""  # why it could not be carried out
    checkpointing: bool = False  # runtime.activation_checkpointing
    worst: Worst | None = None  # what every image of a try has
    limit: int | None = None  # bytes that a try may have: of what there is, less the headroom
    limited_by: str | None = None  # who ends a try that takes more: see docs/gpu-bench.md


def bracket(tries: list[Try]) -> tuple[int, Try | None]:
    """The largest batch known to fit below the smallest try that did not fit, and that try."""
    above = min((t for t in tries if t.ended != "fits"), key=lambda t: t.batch, default=None)
    fits = [t.batch for t in tries if t.ended == "fits" and (above is None or t.batch < above.batch)]
    return max(fits, default=0), above


def next_batch(tries: list[Try], most: int = MOST) -> int | None:
    """What to try next; None when the answer is known. About 2 log2(answer) + 2 tries in all."""
    fits, above = bracket(tries)
    if above is None:
        return min(max(1, 2 * fits), most) if fits < most else None
    return (fits + above.batch) // 2 if above.batch - fits > 1 else None


def find_largest(
    search: Search, attempt: Callable[[int], Try], remember: Callable[[], object], most: int = MOST
) -> Search:
    """Go on with `search` until its answer is known; `remember` is called after each try, and at the end."""
    while (batch := next_batch(search.tries, most)) is not None:
        search.tries.append(attempt(batch))
        remember()
    search.largest, above = bracket(search.tries)
    search.bound = "most" if above is None else above.ended
    remember()
    return search
