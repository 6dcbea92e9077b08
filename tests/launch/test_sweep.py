"""A sweep brings every run to its end once, whatever happens to it. Training is a stand-in (fake_train.py)."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from diary import PATIENCE, alive, assert_no_slot_is_shared, diary, events, kill_pools, most_at_once, states, until

from mrbench.cli.sweep import sweep_command
from mrbench.errors import UserError
from mrbench.runs.lock import is_locked, run_lock
from mrbench.runs.record import Run, list_runs, open_run
from mrbench.study.grid import grid_study
from mrbench.study.plan import make_plan
from mrbench.study.record import read_study, write_study

HERE = Path(__file__).parent


def command(root: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(HERE / "sweep_driver.py"), *arguments, "--root", str(root)]


def environment(root: Path, gpus: str) -> dict[str, str]:
    """`root` is also the machine's temporary folder, where the locks of its devices lie."""
    more = {"CUDA_VISIBLE_DEVICES": gpus, "TMPDIR": str(root), "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    return {**os.environ, **more}


def sweep(root: Path, *arguments: str, gpus: str = "0,1,2") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(root, *arguments), env=environment(root, gpus), capture_output=True, text=True, timeout=PATIENCE
    )


def start(root: Path, *arguments: str, gpus: str = "0,1") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        command(root, *arguments),
        env=environment(root, gpus),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


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
    assert most_at_once(root) <= 3
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
    assert [(r["state"], r["iterations_left"]) for r in plan["runs"]] == [("completed", 0), ("pending", 12)]
    assert len(diary(root)) == before


def test_ctrl_c_leaves_the_runs_alone_and_the_same_command_watches_them(tmp_path: Path) -> None:
    study = ["optimizer.lr=0.1,0.2", "seed=0,1", "schedule.iterations=6", "optimizer.momentum=0.75", "--name", "four"]
    first = start(tmp_path, *study)
    until(lambda: len(events(tmp_path, "start")) >= 2, "two runs have begun")
    first.send_signal(signal.SIGINT)
    output, _ = first.communicate(timeout=PATIENCE)
    assert first.returncode == 130
    assert f"look:   mrbench sweep four --root {tmp_path} --status" in output
    assert f"cancel: mrbench sweep four --root {tmp_path} --cancel" in output
    (tmp_path / "go").touch()
    again = sweep(tmp_path, *study)
    assert again.returncode == 0
    assert "0 submitted now" in again.stdout
    assert states(tmp_path) == ["completed"] * 4
    assert len(events(tmp_path, "start")) == 4


def test_without_waiting_the_runs_go_on_by_themselves(tmp_path: Path) -> None:
    study = ["seed=0,1,2", "schedule.iterations=5", "optimizer.momentum=0.75"]  # which waits for `go`
    begun = sweep(tmp_path, *study, "--name", "seeds", "--no-wait", gpus="0,1")
    assert begun.returncode == 0
    assert "seeds: 3 runs" in begun.stdout
    assert "--status" in begun.stdout
    assert states(tmp_path) != ["completed"] * 3
    (tmp_path / "go").touch()
    until(lambda: states(tmp_path) == ["completed"] * 3, "all are complete")
    until(lambda: not list(tmp_path.glob("submissions/*")), "the pool has ended, and left nothing")


def test_cancelled_runs_write_a_checkpoint_and_the_next_sweep_goes_on(tmp_path: Path) -> None:
    study = ["optimizer.lr=0.1,0.2", "seed=0,1", "schedule.iterations=6", "optimizer.momentum=0.75", "--name", "four"]
    assert sweep(tmp_path, *study, "--no-wait", gpus="0,1").returncode == 0
    until(lambda: len(events(tmp_path, "start")) >= 2, "two runs have begun")
    running = events(tmp_path, "start")
    done = sweep(tmp_path, "four", "--cancel")
    assert done.returncode == 0
    assert "four: cancelling 4 runs" in done.stdout
    assert "all have ended" in done.stdout
    until(lambda: not any(alive(e["pid"]) for e in running), "their processes are gone")
    assert states(tmp_path) == ["pending"] * 2 + ["preempted"] * 2
    told = sweep(tmp_path, "four", "--status").stdout
    assert "2 preempted, 2 pending" in told  # the words of `mrbench runs list`
    assert told.count("\npreempted: ") == 2
    until(lambda: not list(tmp_path.glob("submissions/*")), "the pool has ended")
    (tmp_path / "go").touch()
    assert sweep(tmp_path, "four", gpus="0,1").returncode == 0
    assert states(tmp_path) == ["completed"] * 4
    reached = {e["run"]: e["iteration"] for e in events(tmp_path, "preempted")}
    resumed = {e["run"]: e["iteration"] for e in events(tmp_path, "start")[len(running) :]}
    assert len(reached) == 2
    assert {run: resumed[run] for run in reached} == reached


def test_one_run_is_cancelled_and_the_others_go_on(tmp_path: Path) -> None:
    sweep(
        tmp_path,
        "seed=0,1",
        "schedule.iterations=6",
        "optimizer.momentum=0.75",
        "--name",
        "two",
        "--no-wait",
        gpus="0,1",
    )
    until(lambda: len(events(tmp_path, "start")) == 2, "both have begun")
    one = events(tmp_path, "start")[0]["run"]
    assert sweep(tmp_path, one, "--cancel").returncode == 0
    (tmp_path / "go").touch()
    until(lambda: states(tmp_path) == ["completed", "preempted"], "the other is complete")
    assert Run(tmp_path / "runs" / one).status().state == "preempted"


def test_a_run_whose_process_is_killed_is_begun_again(tmp_path: Path) -> None:
    first = start(tmp_path, "schedule.iterations=6", "optimizer.momentum=0.75", gpus="0")
    until(lambda: any(r.status().iteration == 3 for r in list_runs(tmp_path)), "it has begun")
    os.kill(events(tmp_path, "start")[0]["pid"], signal.SIGKILL)
    (tmp_path / "go").touch()
    first.communicate(timeout=PATIENCE)
    assert first.returncode == 0
    begun = events(tmp_path, "start")
    assert len(begun) == 2
    assert begun[1]["iteration"] == 3


def test_a_vanished_run_is_interrupted_and_never_running(tmp_path: Path) -> None:
    sweep(tmp_path, "schedule.iterations=6", "optimizer.momentum=0.75", "--name", "one", "--no-wait", gpus="0")
    until(lambda: states(tmp_path) == ["running"] and bool(events(tmp_path, "start")), "it has begun")
    kill_pools(tmp_path)
    os.kill(events(tmp_path, "start")[0]["pid"], signal.SIGKILL)
    until(lambda: not alive(events(tmp_path, "start")[0]["pid"]), "it is dead")
    told = sweep(tmp_path, "one", "--status")
    assert "1 interrupted" in told.stdout
    assert "stopped at iteration" in told.stdout
    assert states(tmp_path) == ["running"]  # as its record still says


def test_two_sweeps_on_a_machine_do_not_share_a_device(tmp_path: Path) -> None:
    """Into folders of their own. The second is submitted while runs of the first hold both devices."""

    def submit(name: str, *options: str, gpus: str = "0,1") -> None:
        done = subprocess.run(
            command(tmp_path / name, *options), env=environment(tmp_path, gpus),
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr

    submit("a", "optimizer.momentum=0.75", "seed=0,1,2", "schedule.iterations=5", "--no-wait")  # wait for `go`
    until(lambda: len(events(tmp_path / "a", "start")) == 2, "both devices are held")
    try:
        submit("b", "seed=0,1,2", "schedule.iterations=5", "--no-wait")
        submit("c", "schedule.iterations=1", gpus="2")  # as long as this takes, and longer, the second has to wait
        assert not events(tmp_path / "b", "start")
    finally:
        (tmp_path / "a" / "go").touch()
    for name in ("a", "b"):
        until(lambda name=name: states(tmp_path / name) == ["completed"] * 3, "all are complete")
    diaries = [(tmp_path / name / "diary.jsonl").read_text() for name in ("a", "b", "c")]
    (tmp_path / "diary.jsonl").write_text("".join(diaries))
    assert len(events(tmp_path, "start")) == len(events(tmp_path, "completed")) == 7
    assert_no_slot_is_shared(tmp_path)


def test_overlapping_sweeps_at_the_same_time_run_what_they_share_once(tmp_path: Path) -> None:
    a = start(tmp_path, "seed=0,1,2,3,4", "schedule.iterations=5", "--name", "a", gpus="0,1")
    b = start(tmp_path, "seed=2,3,4,5,6", "schedule.iterations=5", "--name", "b", gpus="2,3")
    for process in (a, b):
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output
    completed = [e["run"] for e in events(tmp_path, "completed")]
    assert len(completed) == len(set(completed)) == 7
    assert len(events(tmp_path, "start")) == 7


def test_no_more_runs_are_begun_after_so_many_failures(tmp_path: Path) -> None:
    study = ["optimizer.momentum=0.5", "seed=0,1,2,3", "schedule.iterations=5", "--name", "failing"]
    done = sweep(tmp_path, *study, "--fail-fast", gpus="0")
    assert done.returncode == 1
    assert states(tmp_path) == ["failed"] + ["pending"] * 3
    more = sweep(tmp_path, *study, "--max-failures", "2", gpus="0")
    assert more.returncode == 1
    assert states(tmp_path) == ["failed"] * 3 + ["pending"]


def test_pruning_shows_and_asks_and_leaves_what_another_study_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def record(*grid: str, name: str) -> list[str]:
        plan = make_plan(grid_study(grid, name))
        write_study(tmp_path, plan)
        return [open_run(tmp_path, planned.config).run_id for planned in plan.runs]

    runs = record("optimizer.lr=0.1,0.2,0.3", "seed=0,1", name="one")
    record("optimizer.lr=0.3", "seed=1", name="other")
    grid = ["optimizer.lr=0.1,0.2", "seed=0"]
    monkeypatch.setattr("typer.confirm", lambda question: False)
    with pytest.raises(typer.Exit):
        sweep_command(grid, root=tmp_path, name="one", prune=True)
    assert "4 leave the record of one, 3 of them the disk" in capsys.readouterr().out
    assert len(list_runs(tmp_path)) == 6
    assert len(read_study(tmp_path, "one").run_ids()) == 6
    sweep_command(grid, root=tmp_path, name="one", prune=True, yes=True)
    assert {run.run_id for run in list_runs(tmp_path)} == {runs[0], runs[2], runs[5]}
    assert read_study(tmp_path, "one").run_ids() == [runs[0], runs[2]]
    sweep_command([runs[0]], root=tmp_path, prune=True, yes=True)
    assert {run.run_id for run in list_runs(tmp_path)} == {runs[2], runs[5]}


def test_one_runs_log_is_followed_to_its_end(tmp_path: Path) -> None:
    sweep(tmp_path, "optimizer.momentum=0.9,0.25", "schedule.iterations=4", "--name", "two", "--no-wait", gpus="0")
    told = sweep(tmp_path, "two", "--logs", "optimizer.momentum=0.2", "--follow")
    assert told.returncode == 0
    assert "Killed by the test" in told.stdout
    assert sweep(tmp_path, "two", "--logs", "optimizer.momentum=").returncode == 2


def test_a_run_that_another_process_has_is_waited_for(tmp_path: Path) -> None:
    assert sweep(tmp_path, "schedule.iterations=1", "seed=0").returncode == 0
    study = ["schedule.iterations=1", "seed=0,1"]
    ready = json.loads(sweep(tmp_path, *study, "--dry-run", "--json").stdout)["runs"]
    other = Run(tmp_path / "runs" / ready[0]["run"])
    until(lambda: not is_locked(other), "the process that trained it has let go")
    with run_lock(other):
        other.update(state="running", iteration=0)
        process = start(tmp_path, *study)
        until(lambda: states(tmp_path) == ["completed", "running"], "the free run is complete")
        assert process.poll() is None
        other.update(state="completed")
    process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert [e["run"] for e in events(tmp_path, "start")].count(other.run_id) == 1


def test_a_job_that_dies_without_a_word_fails_with_its_last_line(tmp_path: Path) -> None:
    done = sweep(tmp_path, "optimizer.momentum=0.25", "schedule.iterations=1", gpus="0")
    assert done.returncode == 1
    line = next(x for x in done.stdout.splitlines() if x.startswith("failed: "))
    assert "Killed by the test" in line
    log = Path(line.split("(log: ")[1].rstrip(")"))
    assert "Killed by the test" in log.read_text()


def test_with_snapshot_the_jobs_run_from_a_copy_of_the_code(tmp_path: Path) -> None:
    done = sweep(tmp_path, "schedule.iterations=1", "--snapshot", gpus="0")
    assert done.returncode == 0, done.stdout + done.stderr
    copies = list((tmp_path / "snapshots").iterdir())
    assert len(copies) == 1
    assert [e["code"] for e in events(tmp_path, "completed")] == [str(copies[0] / "mrbench" / "__init__.py")]


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
        (["model.norm=gn", "runtime.devices=2"], {"snapshot": True}, "1 GPU"),
        (["model.norm=gn", "--seeds=0"], {"snapshot": True}, "--seeds"),
        (["demo", "model.norm=gn,bn"], {"snapshot": True}, "varies"),
        (["model.norm=gn"], {"snapshot": True, "until_decided": True}, "--max-seeds"),
        (["model.norm=gn", "seed=0,1"], {"snapshot": True, "until_decided": True, "max_seeds": 1}, "--max-seeds 1"),
        (["nothing-0123456789"], {"snapshot": True}, "nothing"),
        (["demo"], {"status": True}, "There is no study 'demo'"),
        ([], {}, "mrbench studies list"),
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


def test_a_refused_sweep_of_what_is_on_disk_leaves_no_copy_of_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    plan = make_plan(grid_study(["optimizer.lr=0.1,0.2", "runtime.devices=2"], "rates"))
    write_study(tmp_path, plan)
    run = open_run(tmp_path, plan.runs[0].config)
    for what, name, says in (
        (["model.norm=gn,bn"], "rates", "another study"),
        (["rates"], None, "1 GPU"),
        ([run.run_id], None, "1 GPU"),
    ):
        with pytest.raises(UserError, match=says):
            sweep_command(what, root=tmp_path, name=name, snapshot=True)
        assert not (tmp_path / "snapshots").exists()
