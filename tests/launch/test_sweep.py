"""A sweep brings every run to its end once, whatever happens to it. Training is a stand-in (fake_train.py)."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from mrbench.cli.sweep import sweep_command
from mrbench.errors import UserError
from mrbench.runs.lock import run_lock
from mrbench.runs.record import Run, list_runs

HERE = Path(__file__).parent
PATIENCE = 120.0


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / "sweep_driver.py"), *arguments, "--root", str(root)]


def environment(gpus: str) -> dict[str, str]:
    return {**os.environ, "CUDA_VISIBLE_DEVICES": gpus, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}


def sweep(root: Path, *arguments: str, gpus: str = "0,1,2") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *arguments), env=environment(gpus), capture_output=True, text=True, timeout=PATIENCE
    )


def start(root: Path, *arguments: str, gpus: str = "0,1") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(root, *arguments),
        env=environment(gpus),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def diary(root: Path) -> list[dict[str, Any]]:
    path = root / "diary.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.02)


def events(root: Path, event: str) -> list[dict[str, Any]]:
    return [e for e in diary(root) if e["event"] == event]


def states(root: Path) -> list[str]:
    return sorted(run.status().state for run in list_runs(root))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def attempts(root: Path) -> list[tuple[float, float, set[str], str]]:
    """(start, end, slots, run) of every attempt that was not killed: the diary has no end of those."""
    found = []
    entries = diary(root)
    for e in entries:
        if e["event"] == "start":
            end = next((x["time"] for x in entries if x["pid"] == e["pid"] and x["event"] != "start"), None)
            if end is not None:
                found.append((e["time"], end, set(e["slots"]), e["run"]))
    return found


def assert_no_slot_is_shared(root: Path) -> None:
    for a, b in combinations(attempts(root), 2):
        if a[2] & b[2] or a[3] == b[3]:
            assert a[1] <= b[0] or b[1] <= a[0], f"at the same time in {a[2] & b[2]}: {a[3]}, {b[3]}"


def most_at_once(root: Path) -> int:
    spans = attempts(root)
    return max(sum(s <= t < e for s, e, _, _ in spans) for t, _, _, _ in spans)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """12 runs over 3 GPUs, two of which fail."""
    root = tmp_path_factory.mktemp("swept")
    done = sweep(
        root, "optimizer.momentum=0.9,0.5", "optimizer.lr=0.1,0.2,0.3", "seed=0,1", "schedule.iterations=12",
        "--name", "twelve",
    )  # fmt: skip
    return root, done


def test_all_runs_end_although_some_fail(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    root, done = swept
    assert states(root) == ["completed"] * 6 + ["failed"] * 6
    assert done.returncode == 1
    named = [line for line in done.stdout.splitlines() if line.startswith("failed: ")]
    assert len(named) == 6
    assert all("the loss is not finite" in line and "(log: " in line for line in named)
    assert "mrbench report twelve" in done.stdout.splitlines()[-1]


def test_no_two_runs_share_a_slot_and_no_more_run_than_there_are(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, _ = swept
    assert_no_slot_is_shared(root)
    assert 1 < most_at_once(root) <= 3
    for e in diary(root):
        assert e["slots"] == [f"gpu-{e['gpus']}"]
    assert {e["gpus"] for e in diary(root)} == {"0", "1", "2"}


def test_the_sweeping_process_does_not_import_torch(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    assert "torch imported: False" in swept[1].stderr


def test_completed_runs_are_not_run_again_and_failed_ones_only_when_asked(
    swept: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    root, _ = swept
    study = ["optimizer.momentum=0.9,0.5", "optimizer.lr=0.1,0.2,0.3", "schedule.iterations=12", "--name", "twelve"]
    before = len(diary(root))
    again = sweep(root, *study, "--seeds", "0-1")
    assert again.returncode == 1
    assert "--retry" in again.stdout
    assert len(diary(root)) == before
    retried = sweep(root, *study, "--seeds", "0", "--retry", "--json")
    fresh = [e for e in diary(root)[before:] if e["event"] == "start"]
    assert len(fresh) == 3
    answer = json.loads(retried.stdout)
    assert sorted(v["state"] for v in answer["runs"].values()) == ["completed"] * 3 + ["failed"] * 3
    # the record still holds seed 1, which this sweep did not ask for
    assert all(list(arm["runs"]) == ["0", "1"] for arm in answer["arms"].values())


def test_no_pickles_are_left_of_completed_jobs(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    assert not list(swept[0].rglob("*.pkl"))


def test_status_and_dry_run_start_nothing(swept: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    root, _ = swept
    before = len(diary(root))
    status = sweep(root, "ignored=1", "--name", "twelve", "--status", "--json")
    answer = json.loads(status.stdout)
    assert answer["baseline"] == "optimizer.momentum=0.9,optimizer.lr=0.1"
    ap = {answer["runs"][run]["ap"] for run in answer["arms"][answer["baseline"]]["runs"].values()}
    assert ap == {40.0, 41.0}
    dry = sweep(
        root, "optimizer.lr=0.1,0.7", "schedule.iterations=12", "optimizer.momentum=0.9", "--dry-run", "--json"
    )
    plan = json.loads(dry.stdout)
    assert [(r["state"], r["iterations_left"]) for r in plan["runs"]] == [("completed", 0), ("waiting", 12)]
    assert len(diary(root)) == before


@pytest.mark.parametrize("jobs_too", [False, True], ids=["sweeper", "sweeper_and_a_job"])
def test_after_a_killed_sweep_the_next_completes_what_is_missing(tmp_path: Path, jobs_too: bool) -> None:
    study = ["optimizer.lr=0.1,0.2,0.3", "seed=0,1", "schedule.iterations=30"]
    first = start(tmp_path, *study)
    until(lambda: len(events(tmp_path, "start")) >= 3, "a third run has begun")
    first.kill()
    first.wait()
    killed = None
    if jobs_too:
        last = events(tmp_path, "start")[-1]
        killed = last["run"]
        os.killpg(last["session"], signal.SIGKILL)
    done = sweep(tmp_path, *study, gpus="0,1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(tmp_path) == ["completed"] * 6
    completed = [e["run"] for e in events(tmp_path, "completed")]
    assert sorted(completed) == sorted({r.run_id for r in list_runs(tmp_path)})
    assert_no_slot_is_shared(tmp_path)
    assert most_at_once(tmp_path) <= 2
    begun = [e["run"] for e in events(tmp_path, "start")]
    again = {run for run in begun if begun.count(run) > 1}
    assert again <= {killed}


def test_ctrl_c_ends_all_and_the_same_command_goes_on(tmp_path: Path) -> None:
    study = ["optimizer.lr=0.1,0.2", "seed=0,1", "schedule.iterations=60"]
    first = start(tmp_path, *study)
    until(lambda: len(events(tmp_path, "start")) >= 2, "two runs have begun")
    running = events(tmp_path, "start")
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130
    assert "go on: mrbench" in output
    assert not any(alive(e["pid"]) or alive(e["session"]) for e in running)
    assert set(states(tmp_path)) == {"preempted", "pending"}
    done = sweep(tmp_path, *study, gpus="0,1")
    assert done.returncode == 0
    assert states(tmp_path) == ["completed"] * 4
    reached = {e["run"]: e["iteration"] for e in events(tmp_path, "preempted")}
    assert reached
    resumed = {e["run"]: e["iteration"] for e in events(tmp_path, "start")[len(running) :]}
    assert {run: resumed[run] for run in reached} == reached


def test_ctrl_c_before_the_jobs_can_hear_it_leaves_none_running(tmp_path: Path) -> None:
    first = start(tmp_path, "optimizer.lr=0.1,0.2", "schedule.iterations=500")
    until(lambda: bool(list(tmp_path.glob("runs/*/job"))), "the first job is submitted")
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=PATIENCE)
    time.sleep(0.5)
    assert not any(alive(e["pid"]) for e in diary(tmp_path))
    assert set(states(tmp_path)) <= {"preempted", "pending"}


def test_a_run_that_another_process_has_is_waited_for(tmp_path: Path) -> None:
    assert sweep(tmp_path, "schedule.iterations=1", "seed=0").returncode == 0
    study = ["schedule.iterations=1", "seed=0,1"]
    ready = json.loads(sweep(tmp_path, *study, "--dry-run", "--json").stdout)["runs"]
    other = Run(tmp_path / "runs" / ready[0]["run"])
    with run_lock(other):
        other.update(state="running", iteration=0)
        process = start(tmp_path, *study)
        until(lambda: states(tmp_path) == ["completed", "running"], "the free run is complete")
        assert process.poll() is None
        other.update(state="completed")
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert "running elsewhere" in output
    assert [e["run"] for e in events(tmp_path, "start")].count(other.run_id) == 1


def test_a_job_that_dies_without_a_word_fails_with_its_last_line(tmp_path: Path) -> None:
    done = sweep(tmp_path, "optimizer.momentum=0.25", "schedule.iterations=1", gpus="0")
    assert done.returncode == 1
    line = next(x for x in done.stdout.splitlines() if x.startswith("failed: "))
    assert "Killed by the test" in line
    log = Path(line.split("(log: ")[1].rstrip(")"))
    assert "Killed by the test" in log.read_text()


def test_without_a_gpu_runs_share_the_cores(tmp_path: Path) -> None:
    done = sweep(tmp_path, "seed=0,1,2", "schedule.iterations=2", "--parallel", "2", gpus="")
    assert done.returncode == 0
    entries = diary(tmp_path)
    assert {e["slots"][0] for e in entries} == {"cpu-0", "cpu-1"}
    assert {e["gpus"] for e in entries} == {""}
    assert all(int(openmp) == threads for openmp, threads in (e["threads"] for e in entries))
    assert most_at_once(tmp_path) <= 2


def test_a_run_on_two_gpus_has_both_to_itself(tmp_path: Path) -> None:
    done = sweep(tmp_path, "seed=0,1,2", "schedule.iterations=5", "runtime.devices=2", gpus="4,5,6,7")
    assert done.returncode == 0, done.stdout
    assert all(len(set(e["gpus"].split(","))) == 2 for e in diary(tmp_path))
    assert_no_slot_is_shared(tmp_path)


@pytest.mark.parametrize(
    "what,options,says",
    [
        (["nrom"], {}, "norm"),
        (["demo", "model.norm=gn,bn"], {}, "varies"),
        (["demo", "seed=1"], {}, "--seeds"),
        (["demo"], {"scale": "full"}, "no scale 'full'"),
        (["norm"], {"scale": "ful"}, "full"),
        (["model.norm=gn,bm"], {}, "arm model.norm=bm: model.norm=bm"),
        (["model.norm=gn"], {"seeds": "x"}, "--seeds"),
        (["model.norm=gn", "seed=1"], {"seeds": "0"}, "twice"),
        (["model.norm=gn"], {"name": "../x"}, "not a name"),
        (["model.norm=gn", "runtime.devices=2"], {}, "1 GPU"),
        (["demo"], {"status": True}, "There is no study 'demo'"),
        ([], {}, "What is to be swept?"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(
    what: list[str], options: dict[str, Any], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError) as caught:
        sweep_command(what, root=tmp_path, **options)
    assert says in str(caught.value)
    assert not list(tmp_path.iterdir())
