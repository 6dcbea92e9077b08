"""Who has a run, and whether that one lives: by the lock, and by name and heartbeat where a lock says nothing."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.runs import lock
from mrbench.runs.lock import is_locked, run_lock
from mrbench.runs.record import Run, open_run
from mrbench.runs.state import state_of


@pytest.fixture
def run(tmp_path: Path) -> Run:
    found = open_run(tmp_path, compose())
    found.update(state="running")
    return found


@pytest.fixture(params=[errno.ENOLCK, errno.ENOSYS])
def no_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: Any, operation: int) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "flock", refuse)


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def aged(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_run_whose_process_is_gone_is_interrupted(run: Run) -> None:
    assert state_of(run, run.status()) == "interrupted"
    with run_lock(run):
        assert state_of(run, run.status()) == "running"
    assert state_of(run, run.status()) == "interrupted"


def test_on_another_host_the_heartbeat_tells_and_not_the_lock(run: Run) -> None:
    file = lock.lock_file(run)
    file.write_text("pid 1 on elsewhere")
    assert is_locked(run)
    aged(file, 2 * lock.SILENT)
    assert not is_locked(run)
    file.write_text(f"pid 1 on {socket.gethostname()}")  # here the lock tells, and nobody has it
    assert not is_locked(run)


def test_a_clock_that_jumps_back_or_forward_makes_no_living_run_dead_and_no_dead_one_alive(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = lock.lock_file(run)
    for jump in (-1e6, 1e6):
        monkeypatch.setattr(time, "time_ns", lambda jump=jump: int((time.time() + jump) * 1e9))
        file.write_text("pid 1 on elsewhere")
        assert is_locked(run)
        aged(file, 2 * lock.SILENT)
        assert not is_locked(run)


def test_the_heart_beats_while_the_run_is_held(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.02)
    with run_lock(run):
        aged(lock.lock_file(run), 1000)
        end = time.monotonic() + 10
        while time.time() - lock.lock_file(run).stat().st_mtime > 500 and time.monotonic() < end:
            time.sleep(0.02)
        assert time.time() - lock.lock_file(run).stat().st_mtime < 500
    assert not [t for t in threading.enumerate() if t.name == "heartbeat"]


def test_a_silent_process_of_another_host_is_watched_for_and_then_succeeded(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "WATCH", 0.3)
    lock.lock_file(run).write_text("pid 1 on elsewhere")
    with run_lock(run):
        assert lock._holder(lock.lock_file(run)) == lock._myself()


def test_a_beating_process_of_another_host_keeps_its_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "WATCH", 20.0)
    file = lock.lock_file(run)
    file.write_text("pid 77 on elsewhere")
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(0.05):
            os.utime(file)

    heart = threading.Thread(target=beat)
    heart.start()
    try:
        with pytest.raises(UserError, match="pid 77 on elsewhere"), run_lock(run):
            pass
    finally:
        stop.set()
        heart.join()
    assert "77" in file.read_text()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_a_run_is_held_by_name_and_it_is_said(run: Run) -> None:
    assert not is_locked(run)
    with run_lock(run) as note:
        assert note is not None
        assert "without locks" in note
        assert state_of(run, run.status()) == "running"
        with pytest.raises(UserError, match=f"pid {os.getpid()}"), run_lock(run):
            pass
        assert is_locked(run)  # whoever was refused has taken nothing
    assert state_of(run, run.status()) == "interrupted"


@pytest.mark.usefixtures("no_locks")
@pytest.mark.parametrize("started", ["", " started 1"], ids=["gone", "its number used again"])
def test_without_locks_a_dead_process_is_succeeded(run: Run, started: str) -> None:
    pid = os.getpid() if started else dead_pid()
    lock._name_file(run).write_text(f"pid {pid} on {socket.gethostname()}{started}")
    assert not is_locked(run)
    with run_lock(run):
        assert lock._holder(lock._name_file(run)) == lock._myself()


@pytest.mark.usefixtures("no_locks")
def test_without_locks_another_host_is_told_by_its_heartbeat(run: Run) -> None:
    named = lock._name_file(run)
    named.write_text("pid 1 on elsewhere")
    assert is_locked(run)
    aged(named, 2 * lock.SILENT)
    assert not is_locked(run)
    with run_lock(run):
        assert is_locked(run)
