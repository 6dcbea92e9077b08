"""A full disk, a folder that may not be written, records damaged by hand, a clock that jumps, a file system without
locks: one clear message, the right exit code, and nothing else is damaged."""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mrbench.cli import app
from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.config.identity import run_id
from mrbench.runs.files import write_json
from mrbench.runs.record import Run

TINY = [
    "schedule.iterations=2",
    "schedule.warmup_iterations=0",
    "data.shapes.train_images=4",
    "data.shapes.val_images=2",
    "data.shapes.image_size=64",
    "model.backbone.width=16",
    "runtime.num_workers=0",
]
Command = Callable[..., tuple[int, str]]
LOOKING = {"runs list": ["runs", "list"], "sweep --status": ["sweep", "two", "--status"], "report": ["report", "two"]}


@pytest.fixture
def mrbench(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command in this process, which is quicker; returns its exit code and all that it says. A traceback fails
    the test."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(root: Path, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["mrbench", *arguments, "--root", str(root)])
        code: Any = 0
        try:
            app.main()
        except SystemExit as end:
            code = end.code or 0
        said = capsys.readouterr()
        return code, said.out + said.err

    return run


def check(done: tuple[int, str], *says: str, code: int = 2) -> None:
    """Of a command that was run: its exit code, parts of its message, and that there is one message only."""
    assert done[0] == code, done[1]
    for text in says:
        assert text in done[1]
    assert done[1].count("error:") <= 1


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of two complete runs."""
    root = tmp_path_factory.mktemp("made")
    config = compose(TINY)
    runs = {}
    for seed in (0, 1):
        run = Run(root / "runs" / f"{run_id(config)[:-10]}{seed}123456789")
        run.folder.mkdir(parents=True)
        run.config_file.write_text(to_yaml(config).replace("seed: 0\n", f"seed: {seed}\n", 1))
        run.update(
            state="completed",
            attempt=1,
            iteration=2,
            iterations=2,
            started="2026-03-01T10:00:00+00:00",
            ended="2026-03-01T10:05:00+00:00",
        )
        write_json(run.evaluation_file, {"metrics": {"box/AP": 30.0 + seed, "mask/AP": 20.0 + seed}, "images": 2})
        run.metrics_file.write_text('{"kind": "train", "iteration": 2, "loss": 1.0, "time": 1.0}\n')
        write_json(run.provenance_file, {"python": "3.11.7"})
        runs[str(seed)] = run.run_id
    arms = {"one": {"overrides": [], "family": "f", "runs": runs}}
    study = {"study": "two", "baseline": "one", "metrics": ["box/AP"], "arms": arms}
    write_json(root / "studies" / "two.json", study)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "root"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# A full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 512 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small file system can only be mounted by root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 1024)


def test_training_that_fills_the_disk_fails_with_a_record_and_goes_on_when_there_is_room(
    small_disk: Path, mrbench: Command
) -> None:
    check(mrbench(small_disk, "train", *TINY), "Cannot write", "checkpoints", "No space left on device", "Make room")
    (run,) = [Run(p) for p in (small_disk / "runs").iterdir()]
    assert run.status().state == "failed"
    assert "No space left" in (run.status().error or {})["message"]
    assert run.config().schedule.iterations == 2
    assert not list(run.folder.rglob("*.tmp"))
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    check(mrbench(small_disk, "train", *TINY), code=0)
    assert run.status().state == "completed"


def test_on_a_full_disk_nothing_begins_and_everything_can_be_looked_at(
    made: Path, small_disk: Path, mrbench: Command
) -> None:
    shutil.copytree(made, small_disk, dirs_exist_ok=True)
    fill(small_disk)
    before = content(small_disk)
    check(mrbench(small_disk, "train", *TINY), "No space left on device", "Make room")
    check(mrbench(small_disk, "sweep", *TINY, "seed=0,1", "--name", "new"), "No space left on device")
    check(mrbench(small_disk, "runs", "list"), "completed", code=0)
    check(mrbench(small_disk, "sweep", "two", "--status"), "31.0", code=0)
    check(mrbench(small_disk, "report", "two"), "No space left on device")
    after = content(small_disk)
    assert {name: after.get(name) for name in before} == before
    assert not [name for name in after if name.endswith(".tmp")]


# A folder without permission to write


@pytest.fixture
def read_only(root: Path) -> Iterator[Path]:
    """A root that may be read and not written: by its permissions, or mounted so where they do not bind us."""
    if os.geteuid() != 0:
        folders = [root, *(p for p in root.rglob("*") if p.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        yield root
        for folder in folders:
            folder.chmod(0o755)
        return
    mount = ["mount", "--bind", str(root), str(root)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("root may write everywhere, and mount nothing")
    subprocess.run(["mount", "-o", "remount,ro,bind", str(root)], check=True)
    yield root
    subprocess.run(["umount", "-l", str(root)], check=True)


def test_where_nothing_may_be_written_looking_works_and_the_rest_says_so(read_only: Path, mrbench: Command) -> None:
    before = content(read_only)
    why = "Read-only file system" if os.geteuid() == 0 else "Permission denied"
    check(mrbench(read_only, "train", *TINY), "Cannot write", why, "--root")
    check(mrbench(read_only, "sweep", *TINY, "seed=0,1", "--name", "new"), "Cannot write", why)
    check(mrbench(read_only, "runs", "list"), "completed", code=0)
    check(mrbench(read_only, "sweep", "two", "--status"), "31.0", code=0)
    check(mrbench(read_only, "report", "two"), "Cannot write", why, "--out")
    check(mrbench(read_only, "runs", "remove", "state=completed", "--yes"), "Cannot write", why)
    assert content(read_only) == before


# Records damaged by hand

DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda text: b"",
    "truncated": lambda text: text[: len(text) // 2],
    "another type": lambda text: b"[1, 2]\n",
    "binary": lambda text: bytes(range(256)),
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize(
    "name", ["status.json", "config.yaml", "provenance.json", "metrics.jsonl", "evaluation.json", "two.json"]
)
def test_a_damaged_file_is_named_and_the_rest_is_shown(root: Path, name: str, kind: str, mrbench: Command) -> None:
    file = root / "studies" / name if name == "two.json" else sorted((root / "runs").iterdir())[0] / name
    file.write_bytes(DAMAGE[kind](file.read_bytes()))
    before = content(root / "runs") | content(root / "studies")
    for what, arguments in LOOKING.items():
        code, said = mrbench(root, *arguments)
        about_study = name == "two.json" and what != "runs list"
        assert code == (2 if about_study else 0), (what, said)
        if about_study or (name == "status.json"):
            assert name in said, what
        if not about_study:
            assert "31.0" in said or what == "report"  # the other run
    # the damaged run is never taken for a complete one with a result
    if name in ("status.json", "evaluation.json"):
        assert "damaged" in mrbench(root, "runs", "list")[1]
        assert "30.0" not in mrbench(root, "runs", "list")[1]
    assert content(root / "runs") | content(root / "studies") == before


@pytest.mark.parametrize("kind", DAMAGE)
def test_training_goes_on_beside_a_damaged_record_and_refuses_its_own(root: Path, kind: str, mrbench: Command) -> None:
    code, _ = mrbench(root, "train", *TINY, "--cfg")
    assert code == 0
    run = Run(root / "runs" / run_id(compose(TINY)))
    run.folder.mkdir()
    run.config_file.write_text(to_yaml(compose(TINY)))
    run.status_file.write_bytes(DAMAGE[kind](b'{"state": "completed", "iteration": 2}'))
    before = content(root)
    code, said = mrbench(root, "train", *TINY)
    assert code == 2
    assert "status.json is damaged" in said
    assert content(root) == before


# A clock that jumps back


def test_a_clock_that_jumped_back_leaves_no_negative_time_and_no_other_state(root: Path, mrbench: Command) -> None:
    run = Run(sorted((root / "runs").iterdir())[0])
    run.update(started="2026-03-01T10:00:00+00:00", ended="2026-03-01T09:00:00+00:00")
    os.utime(run.status_file, (4e9, 4e9))
    for arguments in (*LOOKING.values(), ["runs", "show", run.run_id]):
        code, said = mrbench(root, *arguments)
        assert code == 0, said
        assert "-1.0" not in said
        assert "-1:" not in said
        assert "−1" not in said
    assert "interrupted" not in mrbench(root, "runs", "list")[1]


# A file system without locks


def test_without_locks_training_says_so_once_and_ends_as_always(
    tmp_path: Path, mrbench: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    code, said = mrbench(tmp_path, "train", *TINY)
    assert code == 0
    assert said.count("without locks") == 1
    (run,) = [Run(p) for p in (tmp_path / "runs").iterdir()]
    assert run.status().state == "completed"
    assert run.log_file.read_text().count("without locks") == 1
    assert not list(run.folder.glob(".lock.*"))
    code, said = mrbench(tmp_path, "runs", "list")
    assert "completed" in said
    assert "locks" not in said
