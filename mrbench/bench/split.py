"""Where the time of a step goes: marks at every change of part, in steps of their own after the timed ones.

The time between two marks belongs to one part, so the parts add up to the step. On a GPU the marks are events on the
stream, for which nothing waits.
"""

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch

OTHER = "other"
Call = tuple[object, str, str]  # whose method, its name, and the part that its time belongs to


class Marks(Protocol):
    """A clock whose readings may become known later."""

    def now(self) -> Any: ...
    def seconds(self, begin: Any, end: Any) -> float: ...


class HostMarks:
    def now(self) -> float:
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


class EventMarks:
    """Read them only after the device has been waited for."""

    def now(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        return begin.elapsed_time(end) / 1000


class Sections:
    """Which part is at work; the innermost one counts."""

    def __init__(self, marks: Marks) -> None:
        self.marks = marks
        self.changes: list[tuple[str, Any]] = []  # a part and when it began
        self.part = OTHER

    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        outer = self.part
        self._change(part)
        try:
            yield
        finally:
            self._change(outer)

    def _change(self, part: str) -> None:
        self.part = part
        self.changes.append((part, self.marks.now()))

    def totals(self) -> dict[str, float]:
        """Seconds of each part since the first mark, which ends with the last."""
        found: dict[str, float] = {}
        for (part, begin), (_, end) in zip(self.changes, self.changes[1:], strict=False):
            found[part] = found.get(part, 0.0) + self.marks.seconds(begin, end)
        return found


@contextmanager
def marked(sections: Sections, calls: Sequence[Call]) -> Iterator[None]:
    """Within this context each of these methods is a section."""
    with ExitStack() as stack:
        for owner, name, part in calls:
            stack.enter_context(_wrapped(sections, owner, name, part))
        yield


@contextmanager
def _wrapped(sections: Sections, owner: object, name: str, part: str) -> Iterator[None]:
    original = getattr(owner, name)
    own = name in vars(owner)  # an attribute of the object, and not of its class

    @functools.wraps(original)
    def method(*args: Any, **kwargs: Any) -> Any:
        with sections.within(part):
            return original(*args, **kwargs)

    setattr(owner, name, method)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, original)
        else:
            delattr(owner, name)


def split_step(
    step: Callable[[], object], calls: Sequence[Call], steps: int, marks: Marks, synchronise: Callable[[], object]
) -> dict[str, float]:
    """Seconds a step of each part, the mean over `steps`; what is in none of `calls` is `other`."""
    sections = Sections(marks)
    synchronise()
    with marked(sections, calls):
        for _ in range(steps):
            with sections.within(OTHER):
                step()
    synchronise()
    return {part: seconds / steps for part, seconds in sections.totals().items()}
