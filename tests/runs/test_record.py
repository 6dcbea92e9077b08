"""The record on disk: whole files, honest states, torn lines survived."""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.report.grouping import gather
from mrbench.runs import metrics
from mrbench.runs.files import replacing, write_json, write_text
from mrbench.runs.lock import is_locked, run_lock
from mrbench.runs.provenance import collect
from mrbench.runs.record import Run, find_run, list_runs, open_run


def test_asking_twice_finds_the_same_run(tmp_path: Path) -> None:
    config = compose(["seed=3"])
    run = open_run(tmp_path, config)
    run.update(state="completed", iteration=5)
    again = open_run(tmp_path, config)
    assert again.folder == run.folder
    assert again.status().state == "completed"
    assert again.config() == config
    assert [r.run_id for r in list_runs(tmp_path)] == [run.run_id]


def test_a_run_is_found_by_a_beginning_of_its_name_or_hash(tmp_path: Path) -> None:
    run, other = open_run(tmp_path, compose()), open_run(tmp_path, compose(["seed=1"]))
    assert find_run(tmp_path, run.run_id).run_id == run.run_id
    assert find_run(tmp_path, run.run_id[-10:-3]).run_id == run.run_id
    with pytest.raises(UserError, match="any of 2"):
        find_run(tmp_path, "mask_rcnn_small")
    with pytest.raises(UserError, match=other.run_id):
        find_run(tmp_path, other.run_id[:-1] + "z")


def test_an_unknown_run_is_told_a_few_that_there_are(tmp_path: Path) -> None:
    for i in range(8):
        Run(tmp_path / "runs" / f"small-shapes-{i}").folder.mkdir(parents=True)
        Run(tmp_path / "runs" / f"small-shapes-{i}").config_file.touch()
    for find in (find_run, lambda root, name: gather(root, [name])):
        with pytest.raises(UserError) as error:
            find(tmp_path, "qqq")
        assert f"'{tmp_path}" in error.value.what  # a path may end in a stop, or be one
        assert error.value.hint.endswith("small-shapes-3, small-shapes-4 and 3 more.")


def test_a_damaged_status_is_named_not_guessed(tmp_path: Path) -> None:
    run = open_run(tmp_path, compose())
    for text in ("{", '{"state": "sleeping"}', "[1]"):
        run.status_file.write_text(text)
        with pytest.raises(UserError, match=r"status\.json is damaged"):
            run.status()


def test_a_torn_last_line_is_survived_and_appended_after(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    metrics.append(path, {"kind": "train", "iteration": 1, "loss": 2.0})
    with path.open("ab") as file:
        file.write(b'{"kind": "train", "iterat')
    assert [e["iteration"] for e in metrics.read(path)] == [1]
    metrics.append(path, {"kind": "train", "iteration": 2, "loss": 1.0})
    assert [e["iteration"] for e in metrics.read(path)] == [1, 2]


def test_a_repeated_iteration_replaces_the_one_before_the_kill(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for loss in (2.0, 3.0):
        metrics.append(path, {"kind": "train", "iteration": 1, "loss": loss})
    assert [e["loss"] for e in metrics.read(path)] == [3.0]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})

    def torn() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        torn()
    assert json.loads(path.read_text()) == {"x": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_no_space_is_one_message() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is not there")
    with pytest.raises(UserError, match="No space left"):
        metrics.append(Path("/dev/full"), {"kind": "train", "iteration": 1})


def test_a_lock_that_cannot_be_written_is_one_message_and_not_held(tmp_path: Path) -> None:
    run = open_run(tmp_path, compose())
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # every write fails, as on a full disk
    try:
        with pytest.raises(UserError, match=r"Cannot write .*\.lock"), run_lock(run):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not is_locked(run)
    assert run.status().state == "pending"


def test_a_folder_that_cannot_be_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Cannot write") as caught:
        write_text(tmp_path / "file" / "x.txt", "x")
    assert "choose a folder" in caught.value.hint


def test_a_second_process_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    run = open_run(tmp_path, compose())
    code = (
        "import sys\nfrom pathlib import Path\nfrom mrbench.runs.lock import run_lock\n"
        "from mrbench.runs.record import Run\nwith run_lock(Run(Path(sys.argv[1]))):\n"
        "    print('held', flush=True)\n    sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        assert is_locked(run)
        with pytest.raises(UserError, match=f"pid {holder.pid}"), run_lock(run):
            pass
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    assert not is_locked(run)
    with run_lock(run):
        pass


def test_provenance_tells_code_packages_and_hardware() -> None:
    found = collect()
    assert found["packages"]["torch"]
    assert found["hardware"]["cores"] == os.cpu_count()
    assert "version" in found["code"]
