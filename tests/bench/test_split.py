"""The parts of a step, on a clock that the test moves, and of real steps."""

import time
from typing import Any

import pytest
import torch

from mrbench.bench import rows
from mrbench.bench.matrix import Case
from mrbench.bench.measure import Limits, Stopwatch
from mrbench.bench.split import HostMarks, split_step
from mrbench.bench.streams import prepare_end_to_end
from mrbench.bench.workload import Prepared, Workload, prepare
from mrbench.config.composer import compose
from mrbench.engine.distributed import World

TINY = [
    *("runtime.device=cpu", "model.backbone.width=8", "model.neck.channels=16", "model.box_head.fc_channels=16"),
    *("model.mask_head.channels=16", "model.mask_head.convs=1", "model.rpn.post_nms_train=64"),
    *("model.rpn.post_nms_test=64", "model.roi.samples=64", "data.shapes.train_images=8", "data.shapes.val_images=8"),
    *("runtime.num_workers=0", "data.shapes.image_size=64"),
]
CPU = torch.device("cpu")


def workload(mode: str, **changes: Any) -> Workload:
    return Workload(Case(mode, "small", "fp32", 2, [64, 64]), 7, None, "synthetic")


class Clock:
    """Marks that are read off a counter."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def seconds(self, begin: float, end: float) -> float:
        return end - begin


class Cook:
    """Whose work calls other work."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def meal(self) -> None:
        self.clock.time += 1  # of no part
        self.soup()
        self.clock.time += 2

    def soup(self) -> None:
        self.clock.time += 3
        self.salt()
        self.clock.time += 5

    def salt(self) -> None:
        self.clock.time += 7


def test_time_belongs_to_the_innermost_part_and_the_parts_add_up() -> None:
    clock = Clock()
    cook = Cook(clock)
    calls = [(cook, "soup", "soup"), (cook, "salt", "salt")]
    parts = split_step(cook.meal, calls, 4, clock, lambda: None)
    assert parts == {"other": 3, "soup": 8, "salt": 7}
    assert "soup" not in vars(cook)
    assert clock.time == 4 * sum(parts.values())


def test_a_method_that_is_the_object_s_own_is_put_back() -> None:
    clock = Clock()
    cook = Cook(clock)
    cook.salt = own = lambda: None  # type: ignore[method-assign]
    assert split_step(cook.meal, [(cook, "salt", "salt")], 1, clock, lambda: None)["salt"] == 0
    assert cook.salt is own


@pytest.mark.parametrize(
    "mode, parts",
    [
        ("train", {"backbone", "rpn", "roi_heads", "backward", "optimiser", "other"}),
        ("infer", {"backbone", "rpn", "roi_heads", "other"}),
        ("end-to-end", {"data", "copy", "backbone", "rpn", "roi_heads", "backward", "optimiser", "other"}),
    ],
)
def test_the_parts_of_real_steps_add_up_to_them(mode: str, parts: set[str]) -> None:
    make = prepare_end_to_end if mode == "end-to-end" else prepare
    prepared = make(compose(TINY), workload(mode), CPU, World())
    marks = HostMarks()
    marks.now = time.process_time  # type: ignore[method-assign]  # which stands still while others have the core
    begin = marks.now()
    found = split_step(prepared.step, prepared.calls, 3, marks, lambda: None)
    whole = (marks.now() - begin) / 3
    assert set(found) == parts
    assert all(seconds > 0 for name, seconds in found.items())
    assert 0.8 * whole < sum(found.values()) <= whole  # what is missing is putting the marks in place


def test_what_an_exchange_adds_is_taken_from_the_backward_pass() -> None:
    clock = Clock()
    cook = Cook(clock)
    alone = False

    class Exchange:
        def __enter__(self) -> None:
            nonlocal alone
            alone = True

        def __exit__(self, *_: object) -> None: ...

    def backward() -> None:
        clock.time += 7 if alone else 10

    cook.salt = backward  # type: ignore[method-assign]
    prepared = Prepared(cook.meal, 1, dict, [(cook, "salt", "backward"), (cook, "soup", "roi_heads")], Exchange)
    watch = Stopwatch(clock=clock.now)
    marks, rows.HostMarks = rows.HostMarks, lambda: clock  # type: ignore[assignment, misc]
    try:
        split = rows._split(prepared, watch, CPU, Limits(block_seconds=1.0), 1.0)
    finally:
        rows.HostMarks = marks  # type: ignore[misc]
    assert split["parts"] == {"other": 3, "roi_heads": 8, "backward": 7, "communication": 3}
    assert split["step_seconds"] == 21
