"""Searches by processes that a limit kills: the same answer each time, nothing left, and resumed where they were."""

import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mrbench.bench import child, trying
from mrbench.bench.child import try_it
from mrbench.bench.control_group import make_group
from mrbench.bench.journal import Journal, journal_path
from mrbench.bench.largest_batch import Search, Try
from mrbench.bench.matrix import Case
from mrbench.bench.process import run_fresh
from mrbench.bench.record import Plan, Record
from mrbench.bench.trying import TryFailed, carry_out_search, searches, set_up, try_batch
from mrbench.bench.workload import Prepared, Workload
from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig

MIB = 1 << 20
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc to watch memory in")
CASE = Case("train", "small", "fp32", 0, [64, 64])
# 4 MiB an image on top of the interpreter, in three steps
ALLOCATES = (
    "import json, sys, time\nfolder = sys.argv[1]\ntask = json.load(open(folder + '/task.json'))\n"
    "batch = task['workload']['case']['batch']\n"
    "for step in range(3):\n    x = b'x' * (batch * 4 << 20); time.sleep(0.002); del x\n"
    "status = open('/proc/self/status').read().splitlines()\n"
    "peak = next(int(line.split()[1]) << 10 for line in status if line.startswith('VmHWM'))\n"
    "json.dump({'kind': 'done', 'peak_resident': peak}, open(folder + '/answer.json', 'w'))\n"
)


def children() -> set[str]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {pid for pid in done.stdout.split() if Path(f"/proc/{pid}/stat").exists()}


def plan(limit: int | None) -> Plan:
    return Plan({"small": to_yaml(compose())}, "cpu", [CASE], "synthetic", 7, None, 1, True, limit, headroom=0.05)


def record(limit: int | None) -> Record:
    return Record(plan(limit), "now", {"type": "cpu", "refusals": {"fp32": None}}, {})


@pytest.fixture
def allocating(monkeypatch: pytest.MonkeyPatch) -> int:
    """Tries are of a small program; gives the limit under which 3 images fit, with the headroom, and not 4."""
    command = [sys.executable, "-I", "-S", "-c", ALLOCATES]
    monkeypatch.setattr(trying, "run_fresh", partial(run_fresh, command=command))
    monkeypatch.setattr(trying, "make_group", lambda _limit: None)
    base = run_fresh({"workload": {"case": {"batch": 0}}}, command=command).peak_memory
    assert base is not None
    return int((base + 14 * MIB) / 0.95) + 1


def five_searches(limit: int, folder: Path, says: str) -> list[tuple[int | None, str | None, str | None]]:
    """What each finds, where it ends, and who ended its tries, for a reason that `says` so."""
    found = []
    for k in range(5):
        search = Search(CASE)
        carry_out_search(folder / f"{k}.json", record(limit), search, lambda _: None)
        found.append((search.largest, search.bound, search.limited_by))
        assert all(says in t.why for t in search.tries if t.ended == "memory")
    return found


def test_five_searches_of_five_find_what_trying_each_finds_with_the_kernel_s_limit(
    allocating: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make_group(MIB << 7)
    if group is None:
        pytest.skip("needs control groups with a memory controller that this user may make groups in")
    group.remove()
    monkeypatch.setattr(trying, "make_group", make_group)
    before = children()
    found = five_searches(allocating, tmp_path, "killed by the kernel")
    each = Search(CASE)
    set_up(each, plan(allocating), {})
    endings = [try_batch(plan(allocating), each, batch).ended for batch in range(1, 9)]
    fits = endings.count("fits")
    assert endings == ["fits"] * fits + ["memory"] * (8 - fits)
    assert 3 <= fits < 8  # the kernel does not count what others had read of Python's files
    assert found == [(fits, "memory", trying.GROUP)] * 5
    assert children() <= before
    assert not list(group.path.parent.glob(f"mrbench-{os.getpid()}-*"))


@linux
def test_five_searches_of_five_find_what_trying_each_finds(allocating: int, tmp_path: Path) -> None:
    before = children()
    found = five_searches(allocating, tmp_path, "passed the limit")
    each = Search(CASE)
    set_up(each, plan(allocating), {})
    fits = [batch for batch in range(1, 6) if try_batch(plan(allocating), each, batch).ended == "fits"]
    assert fits == [1, 2, 3]
    assert found == [(3, "memory", trying.WATCHED)] * 5
    assert children() <= before


@linux
def test_a_search_whose_command_is_killed_goes_on_and_the_limit_stays(
    allocating: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, kept, search, begun = tmp_path / "r.json", record(None), Search(CASE), list[int]()
    monkeypatch.setattr(trying, "available_memory", lambda: allocating)

    def killed_at_four(batch: int) -> None:
        begun.append(batch)
        if batch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out_search(path, kept, search, killed_at_four)
    # Another program has meanwhile taken most of the memory: the question must not change with it.
    monkeypatch.setattr(trying, "available_memory", lambda: 1 << 20)
    carry_out_search(path, kept, search, begun.append)
    assert begun == [1, 2, 4, 4, 3]
    assert [t.batch for t in search.tries] == [1, 2, 4, 3]
    assert search.largest == 3


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(journal_path(tmp_path / "r.json"), "a")


def test_a_try_that_took_its_command_with_it_is_tried_once_more_and_then_is_too_large(journal: Journal) -> None:
    journal.begins(1)
    journal.ended(Try(1, "fits", peak_memory=7))
    journal.begins(2)
    assert Journal(journal.path, "a").tries() == [Try(1, "fits", peak_memory=7)]
    journal.begins(2)
    [one, two] = Journal(journal.path, "a").tries()
    assert (one.batch, two.batch, two.ended) == (1, 2, "memory")
    assert "2 times" in two.why


def test_a_try_that_somebody_stopped_says_nothing_about_its_size(journal: Journal) -> None:
    for _ in range(5):
        journal.begins(2)
        journal.interrupted(2)
    journal.begins(2)
    assert journal.tries() == []


def test_a_torn_line_and_another_search_s_are_passed_over(journal: Journal) -> None:
    journal.ended(Try(1, "fits"))
    with journal.path.open("a") as file:
        file.write('{"key": "a", "event": "ended", "ba')
    journal.ended(Try(2, "memory"))
    Journal(journal.path, "b").ended(Try(4, "fits"))
    assert journal.tries() == [Try(1, "fits"), Try(2, "memory")]


@linux
def test_what_a_killed_command_remembered_is_not_tried_again_but_for_another_limit(
    allocating: int, tmp_path: Path
) -> None:
    path = tmp_path / "r.json"
    carry_out_search(path, record(allocating), Search(CASE), lambda _: None)
    again, anew = list[int](), list[int]()
    carry_out_search(path, record(allocating), Search(CASE), again.append)
    assert again == []
    carry_out_search(path, record(allocating + MIB), Search(CASE), anew.append)
    assert anew == [1, 2, 4, 3]


def test_a_try_that_fails_for_another_reason_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [sys.executable, "-c", f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"]
    monkeypatch.setattr(trying, "run_fresh", partial(run_fresh, command=command))
    search = Search(CASE)
    with pytest.raises(TryFailed, match="the try of 1 failed: signal SIGSEGV"):
        carry_out_search(tmp_path / "r.json", record(1 << 30), search, lambda _: None)
    assert search.largest is None


def test_training_is_searched_without_and_with_checkpointing() -> None:
    wanted = plan(None)
    wanted.cases = [
        *(Case("train", "small", "fp32", batch, [64, 64]) for batch in (1, 2)),
        Case("infer", "small", "fp32", 1, [64, 64]),
        Case("train", "small", "fp32", 2, [64, 64], compile=True),
        Case("data", "small", None, 2, None),
    ]
    found = [(case.mode, case.compile, checkpointing) for case, checkpointing in searches(wanted)]
    assert found == [
        ("train", False, False),
        ("train", False, True),
        ("infer", False, False),
        ("train", True, False),
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_try_has_the_stated_worst_and_the_asked_for_checkpointing(
    checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ("model.backbone.width=8", "model.neck.channels=16", "model.box_head.fc_channels=16")
    config = compose([*small, "runtime.threads=1", "runtime.device=cpu", "model.roi.samples=16"])
    case = Case("train", "small", "fp32", 2, [64, 96])
    made: list[tuple[RunConfig, Prepared]] = []
    steps: list[object] = []
    prepare = child.prepare

    def watched(config: RunConfig, workload: Workload, device: Any) -> Prepared:
        prepared = prepare(config, workload, device)
        made.append((config, prepared))
        return replace(prepared, step=lambda: steps.append(prepared.step()))

    monkeypatch.setattr(child, "prepare", watched)
    workload = Workload(case, 100, trying.EVERY_ONE, "synthetic", classes=3, batches=1)
    try_it(config, workload, checkpointing, None)
    [(used, prepared)] = made
    facts = prepared.facts()
    assert len(steps) == 3
    assert used.runtime.activation_checkpointing is checkpointing
    assert facts["instances_per_image"] == 100
    assert facts["positive_rois_per_image"] == 4  # a quarter of 16: all there is room for
