"""What the processes of a job have found, brought together."""

from typing import Any, TypeVar

from torch import distributed

Item = TypeVar("Item")


def gather(items: list[Item]) -> list[Item] | None:
    """The items of all processes on process 0, one process after another; None on the others.

    Without processes: the items. All processes of the default group call together.
    """
    if not distributed.is_available() or not distributed.is_initialized() or distributed.get_world_size() == 1:
        return items
    rank = distributed.get_rank()
    parts: list[Any] | None = [None] * distributed.get_world_size() if rank == 0 else None
    distributed.gather_object(items, parts, dst=0)
    return None if parts is None else [item for part in parts for item in part]
