"""Carrying out a search for the largest batch: what a try is made of, who limits it, and what is remembered of it."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mrbench.bench.control_group import make_group
from mrbench.bench.journal import Journal, journal_path, key_of
from mrbench.bench.largest_batch import Search, Try, find_largest
from mrbench.bench.matrix import Case, of_search
from mrbench.bench.process import REPEATABLE_MEMORY, available_memory, raise_mistake, run_fresh
from mrbench.bench.record import Plan, Record, write
from mrbench.bench.worst import worst_inputs
from mrbench.config.compose import load

SEARCHED = ("train", "infer")
TRY_SECONDS = 600.0
EVERY_ONE = 1 << 30  # positive RoIs an image: as many as there is room for
# Who ends a try that takes more than its limit.
ALLOCATOR = "torch's allocator"
GROUP = "the kernel, by a control group"
WATCHED = "its resident memory being watched"


class TryFailed(Exception):
    """A try ended for another reason than memory or time: the search cannot go on."""


def searches(plan: Plan) -> list[tuple[Case, bool]]:
    """Whose largest batch there is to be found, on one device: of each row without its batch size, in training without
    and with activation checkpointing, which does not go with compiled code."""
    found: list[tuple[Case, bool]] = []
    for case in plan.cases:
        for checkpointing in (False, True)[: 1 + (case.mode == "train" and not case.compile)]:
            wanted = of_search(case), checkpointing
            if case.mode in SEARCHED and wanted not in found:
                found.append(wanted)
    return found


def set_up(search: Search, plan: Plan, device: dict[str, Any]) -> None:
    """State what `search` tries and under which limit, once for all of its tries, those of later commands too.

    Raises UserError where the data set cannot be read.
    """
    if search.worst is None:
        with TemporaryDirectory(prefix="mrbench-") as folder:
            file = Path(folder) / "config.yaml"
            file.write_text(plan.configs[search.case.model])
            search.worst = worst_inputs(load(file), search.case, plan.inputs, plan.instances)
    if search.limit is None:
        search.limit = wall(plan, device)
    if plan.device == "cuda":
        search.limited_by = ALLOCATOR
    else:
        group = make_group(search.limit)
        search.limited_by = WATCHED if group is None else GROUP
        if group is not None:
            group.remove()


def carry_out_search(path: Path, record: Record, search: Search, begins: Callable[[int], object]) -> None:
    """Find the answer, `begins` being called before each try. The record at `path` is replaced after each.

    Raises:
        UserError: a mistake that shows only now.
        DeviceGone: the GPU cannot be used any more.
        TryFailed: a try failed for another reason than its size.
    """
    plan = record.plan
    set_up(search, plan, record.device)
    write(path, record)
    journal = Journal(journal_path(path), _key(record, search))
    search.tries = journal.tries()

    def attempt(batch: int) -> Try:
        begins(batch)
        journal.begins(batch)
        try:
            result = try_batch(plan, search, batch)
        except BaseException:
            journal.interrupted(batch)
            raise
        journal.ended(result)
        return result

    find_largest(search, attempt, lambda: write(path, record))


def _key(record: Record, search: Search) -> str:
    return key_of(
        config=record.plan.configs[search.case.model],
        search=asdict(replace(search, tries=[], largest=None, bound=None, note="")),
        device=record.device,
        software=[record.provenance.get(part) for part in ("packages", "code")],
    )


def wall(plan: Plan, device: dict[str, Any]) -> int:
    """Bytes that a try may use: the limit, or what the device has, less the headroom."""
    limit = plan.memory_limit
    if limit is None:
        limit = device["memory"] if plan.device == "cuda" else available_memory()
    return int(limit * (1 - plan.headroom))


def try_batch(plan: Plan, search: Search, batch: int) -> Try:
    """Three steps of `batch` images, as `search` states them, in a fresh process. Raises as `carry_out_search`."""
    assert search.worst is not None
    worst, gpu = search.worst, search.limited_by == ALLOCATOR
    workload = {
        "case": asdict(replace(search.case, batch=batch, image_size=worst.image_size)),
        "instances": worst.instances,
        "positives": EVERY_ONE,
        "inputs": "synthetic",
        "batches": 1,
        "classes": worst.classes,
    }
    task = {
        "what": "try",
        "config": plan.configs[search.case.model],
        "workload": workload,
        "checkpointing": search.checkpointing,
        "limit": search.limit if gpu else None,
    }
    group = make_group(search.limit) if search.limited_by == GROUP and search.limit else None
    watched = search.limit if search.limited_by == WATCHED else available_memory() if gpu else None
    ending = run_fresh(task, watched, TRY_SECONDS, REPEATABLE_MEMORY, group=group)
    raise_mistake(ending)
    if ending.kind == "failed":
        raise TryFailed(f"the try of {batch} failed: {ending.why}")
    peak = ending.answer.get("peak_memory", {}).get("allocated", ending.peak_memory)
    return Try(batch, "fits" if ending.kind == "done" else ending.kind, ending.why, peak, round(ending.seconds, 2))
