"""Which rows of a benchmark fit into a stated time: a few steps of each kind tell what all of them will take."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from mrbench.bench.matrix import Case
from mrbench.bench.measure import FEWEST_ROUNDS, WINDOW, Limits
from mrbench.errors import UserError

# One block of one round through the inputs, after a single step.
QUICK = Limits(
    repeats=1,
    block_seconds=0.0,
    warmup_seconds=0.0,
    warmup_steps=1,
    latency_seconds=0.0,
    latency_steps=1,
    rounds=1,
    turn_seconds=0.0,
)
WARM_UP = 2 * WINDOW  # steps: about twice as many as the fewest
CYCLE = 4  # different inputs, as most modes have them
PIXELS = 640 * 480  # of pictures whose size is not stated; only their ratio counts
UNITS = {"s": 1, "m": 60, "h": 3600}


@dataclass
class Probe:
    """What a few steps of one row took."""

    case: Case
    step_seconds: float
    other_seconds: float  # the whole process without its steps


def duration(text: str) -> float:
    """'90s', '5m', '1.5h' -> seconds. Raises UserError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([smh])", text.strip().lower())
    if not found or not float(found[1]):
        raise UserError(f"--budget {text}: not a time", "Write a number with its unit, as 90s, 5m or 1.5h.")
    return float(found[1]) * UNITS[found[2]]


def kinds(cases: Sequence[Case]) -> list[Case]:
    """The smallest row of each mode, model, number of devices, and with and without compiling: what to probe."""
    found: dict[tuple[object, ...], Case] = {}
    for case in cases:
        first = found.setdefault(_kind(case), case)
        if _size(case) < _size(first):
            found[_kind(case)] = case
    return list(found.values())


def expected(case: Case, probes: Sequence[Probe], limits: Limits, with_peer: bool) -> float:
    """Seconds that `case` takes, its steps in proportion to its pixels; as the protocol of `rows.measure_row` goes."""
    probe = next(p for p in probes if _kind(p.case) == _kind(case))
    step = probe.step_seconds * _size(case) / _size(probe.case)
    cycle = CYCLE * step
    seconds = probe.other_seconds + min(WARM_UP * step, max(limits.warmup_seconds, cycle))
    seconds += limits.repeats * _block(limits.block_seconds, cycle)
    if case.mode == "infer":
        seconds += max(min(limits.latency_seconds, limits.latency_steps * step), cycle)
    seconds += _block(2 * limits.block_seconds, cycle) + cycle  # the split; floating point operations
    if with_peer:
        a_round = 4 * _block(limits.turn_seconds, step)
        rounds = max(min(limits.rounds * a_round, limits.turns_seconds), FEWEST_ROUNDS * a_round)
        seconds += 2 * min(WARM_UP * step, max(limits.turn_warmup_seconds, cycle)) + rounds
    return seconds


def choose(cases: Sequence[Case], seconds: Callable[[Case], float], budget: float) -> tuple[list[Case], list[Case]]:
    """The rows that fit, and those left out, both in the order of `cases`.

    First comes each mode's first row, then what differs from it in one thing only, then in two; among these the
    quickest first. A row that does not fit any more leaves room for quicker ones after it.
    """
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.mode, case)
    costs = [seconds(case) for case in cases]
    order = sorted(range(len(cases)), key=lambda k: (_apart(cases[k], first[cases[k].mode]), costs[k], k))
    kept, left = set(), budget
    for k in order:
        if costs[k] <= left:
            kept.add(k)
            left -= costs[k]
    if not kept:
        raise UserError(
            f"Nothing fits into the {time_text(max(budget, 0))} that a quick look left of --budget: "
            f"the quickest row takes about {time_text(min(costs))}",
            "Give more time, or fewer --repeats, a smaller --image-size or --batch.",
        )
    return [case for k, case in enumerate(cases) if k in kept], [c for k, c in enumerate(cases) if k not in kept]


def time_text(seconds: float) -> str:
    """Rounded as one says it: 45 s, 4 min, 1 h 20 min."""
    if seconds < 99.5:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def all_rows(cases: Sequence[Case], left_out: Sequence[Case]) -> list[Case]:
    """Those asked for, in an order of their own: the same whatever a budget has left out."""
    return sorted([*cases, *left_out], key=repr)


def probed(case: Case, answer: Mapping[str, Any], seconds: float) -> Probe:
    """From what `mrbench.bench.child` answered under `QUICK`, and the seconds that its process took."""
    steps = answer["warmup"]["steps"] + answer["steps_per_block"] + len(answer["latency"])
    if answer["split"] is not None:
        steps += answer["split"]["steps"]
    step = sum(answer["block_seconds"]) / answer["steps_per_block"]
    return Probe(case, step, max(seconds - steps * step, 0.0))


def _kind(case: Case) -> tuple[object, ...]:
    return case.mode, case.model, case.compile, case.devices


def _size(case: Case) -> float:
    height, width = case.image_size or (1, PIXELS)
    return case.batch * height * width


def _block(least: float, cycle: float) -> float:
    return cycle * max(math.ceil(least / max(cycle, 1e-9)), 1)


def _apart(case: Case, first: Case) -> int:
    """In how many things the rows differ."""
    return sum(getattr(case, f.name) != getattr(first, f.name) for f in fields(case))
