"""Runs and their pool killed at any moment: every run is completed once. Training is a stand-in (fake_train.py)."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from diary import assert_no_slot_is_shared, attempts, events, processes, states, until

from mrbench.launch.sweep import Sweep, watch
from mrbench.study.grid import grid_study
from mrbench.study.plan import make_plan

RUNS, MOMENTS = 50, 10


def kill(root: Path, killed: dict[int, float], choose: random.Random) -> None:
    """SIGKILL for the pool, and for about half of the jobs, in any order."""
    jobs = [pid for pid in processes(root, "job") if choose.random() < 0.5]
    pools = processes(root, "pool")
    for pid in choose.sample([*jobs, *pools], len(jobs) + len(pools)):
        if pid in jobs:
            killed[pid] = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_fifty_runs_on_four_devices_are_each_completed_once_although_all_is_killed_ten_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2,3")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    planned = make_plan(grid_study([f"seed=range(0,{RUNS})", "schedule.iterations=10"])).unique()
    choose = random.Random(5)
    killed: dict[int, float] = {}
    for moment in range(MOMENTS):
        sweep = Sweep(tmp_path, planned, entry="fake_train:train")
        sweep.submit()
        begun = len(events(tmp_path, "start"))
        if moment % 3:  # else it hits pools and jobs that have hardly begun
            until(lambda begun=begun: len(events(tmp_path, "start")) > begun, "one begins")
        time.sleep(choose.uniform(0.0, 0.3))
        kill(tmp_path, killed, choose)
    assert len(killed) >= 5
    assert states(tmp_path) != ["completed"] * RUNS
    last = Sweep(tmp_path, planned, entry="fake_train:train")
    last.submit()
    watch(last, interval=0.5)
    assert states(tmp_path) == ["completed"] * RUNS
    # a process may be killed after its last word in the diary and before its record says the same
    completed = {e["pid"]: e["run"] for e in events(tmp_path, "completed")}
    assert set(completed.values()) == set(planned)
    unkilled = [run for pid, run in completed.items() if pid not in killed]
    assert len(unkilled) == len(set(unkilled)) >= RUNS - len(killed)
    assert_no_slot_is_shared(tmp_path, killed)
    assert {slot for *_, slots, _ in attempts(tmp_path) for slot in slots} == {f"gpu-{n}" for n in range(4)}
    # no attempt but the killed ones was in vain, and none began before where the last one had got to
    assert len(events(tmp_path, "start")) <= RUNS + len(killed)
    reached: dict[str, int] = {}
    for e in events(tmp_path, "start"):
        assert e["iteration"] >= reached.get(e["run"], 0)
        reached[e["run"]] = e["iteration"]
