"""Choosing the rows of a plan that a time budget is enough for."""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from mrbench.bench.budget import QUICK, Probe, all_rows, choose, expected, kinds, probed
from mrbench.bench.matrix import Case, label
from mrbench.bench.measure import Limits
from mrbench.bench.process import raise_mistake, run_fresh
from mrbench.bench.record import Plan, is_finished, read
from mrbench.bench.session import MEASURE_SECONDS, Watcher, task_of
from mrbench.bench.trying import SEARCHED

FEWER_BLOCKS = (5, 3)


def within_budget(plan: Plan, device: dict[str, Any], path: Path, watch: Watcher) -> Plan:
    """The plan with the rows that its budget is enough for, by a quick look at one row of each kind. An unfinished
    record at `path` has chosen already.

    Raises UserError where nothing fits, or a row cannot be measured by a user's mistake.
    """
    if plan.budget is None:
        return plan
    if path.exists() and not is_finished(path):
        found = read(path).plan
        if whole(found) == whole(plan):
            return found
    begin = time.monotonic()
    refused = {kind for kind, why in device["refusals"].items() if why}
    probes = []
    for case in kinds([case for case in plan.cases if case.precision not in refused]):
        watch.begins(f"a quick look at {label(case, plan.cases)}")
        probes.append(_probe(plan, case))
    left = plan.budget - (time.monotonic() - begin)

    def cost(case: Case, repeats: int) -> float:
        with_peer = plan.peer is not None and case.mode in SEARCHED
        return 0.0 if case.precision in refused else expected(case, probes, Limits(repeats=repeats), with_peer)

    # Fewer blocks rather than no row: three are the fewest with an interval.
    tried = [plan.repeats, *(n for n in FEWER_BLOCKS if n < plan.repeats)]
    repeats = next((n for n in tried if min(cost(case, n) for case in plan.cases) <= left), tried[-1])
    kept, left_out = choose(plan.cases, lambda case: cost(case, repeats), left)
    plan = replace(plan, cases=kept, left_out=left_out)
    return plan if repeats == plan.repeats else replace(plan, repeats=repeats, asked_repeats=plan.repeats)


def whole(plan: Plan) -> Plan:
    """What was asked for, whatever a budget has left out of it."""
    cases, repeats = all_rows(plan.cases, plan.left_out), plan.asked_repeats or plan.repeats
    return replace(plan, cases=cases, left_out=[], repeats=repeats, asked_repeats=None)


def _probe(plan: Plan, case: Case) -> Probe:
    task = {**task_of(plan, "measure", case), "limits": asdict(QUICK)}
    ending = run_fresh(task, plan.memory_limit if plan.device == "cpu" else None, MEASURE_SECONDS)
    raise_mistake(ending)
    if ending.kind != "done":  # it will not be measured either
        return Probe(case, 0.0, ending.seconds)
    return probed(case, ending.answer, ending.seconds)
