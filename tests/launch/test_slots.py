"""Devices of one machine among pools: a lock each, and first come first served."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from mrbench.launch.devices import Slot
from mrbench.launch.slots import Turn, machine_folder


def gpus(*names: str, share: int = 0, shared: bool = False) -> list[Slot]:
    return [Slot(f"gpu-{name}", share, shared, name) for name in names]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return machine_folder()


def test_a_device_goes_to_one_run_at_a_time(folder: Path) -> None:
    a, b = Turn(gpus("0", "1")), Turn(gpus("1", "0"))
    first = a.take(1)
    a.leave()
    second = b.take(1)
    assert first
    assert second
    assert {s.name for s in first.slots + second.slots} == {"gpu-0", "gpu-1"}
    assert b.take(1) is None
    first.close()
    third = b.take(1)
    assert third
    assert third.slots == first.slots


def test_a_run_gets_all_its_devices_or_none(folder: Path) -> None:
    a, b = Turn(gpus("0", "1", "2")), Turn(gpus("0", "1", "2"))
    first = a.take(2)
    assert first
    assert len({s.device for s in first.slots}) == 2
    assert a.take(2) is None
    a.leave()
    assert b.take(1)  # nothing was kept of the two that could not be had


def test_who_came_first_is_served_first_although_others_need_less(folder: Path) -> None:
    a, b, c = Turn(gpus("0", "1")), Turn(gpus("0", "1")), Turn(gpus("2"))
    held = b.take(1)
    assert held
    assert a.take(2) is None
    assert b.take(1) is None
    assert c.take(1)  # its device is not what the others wait for
    held.close()
    assert b.take(1) is None
    assert a.take(2)


def test_sharers_of_a_device_and_one_who_wants_it_whole_exclude_each_other(folder: Path) -> None:
    whole, halves = Turn(gpus("0")), Turn([*gpus("0", shared=True), *gpus("0", share=1, shared=True)])
    first, second = halves.take(1), halves.take(1)
    assert first
    assert second
    assert halves.take(1) is None
    halves.leave()
    assert whole.take(1) is None
    first.close()
    assert whole.take(1) is None
    second.close()
    held = whole.take(1)
    assert held
    whole.leave()
    assert halves.take(1) is None


def test_a_device_is_held_by_the_process_that_it_was_handed_to_until_that_dies(folder: Path) -> None:
    turn = Turn(gpus("0"))
    held = turn.take(1)
    assert held
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=held.descriptors)
    held.close()
    assert turn.take(1) is None
    process.kill()
    process.wait()
    assert turn.take(1)


def test_a_dead_pool_leaves_the_queue(folder: Path) -> None:
    code = (
        "import os; from mrbench.launch.slots import Turn; from mrbench.launch.devices import Slot;"
        "turn = Turn([Slot('gpu-0', 0, False, '0')]); turn.take(2); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder.parent)}, check=True)
    assert len(list((folder / "queue").iterdir())) == 1
    assert Turn(gpus("0")).take(1)


def test_the_locks_are_everybodys(folder: Path) -> None:
    Turn(gpus("0")).take(1)
    for path in (folder, folder / "queue"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o1777
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.glob("*.lock")} == {0o666}


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_waits_for_the_same_device(folder: Path) -> None:
    for parent in (folder.parent, *folder.parent.parents[:3]):
        if parent.owner() == "root" and parent != Path("/tmp"):
            parent.chmod(0o755)
    folder.parent.chmod(0o1777)  # as the system's temporary folder is
    turn = Turn(gpus("0"))
    held = turn.take(1)
    assert held
    turn.leave()
    code = (
        "import os, sys; from mrbench.launch.slots import Turn; from mrbench.launch.devices import Slot;"
        "os.setuid(65534); turn = Turn([Slot('gpu-0', 0, False, '0'), Slot('gpu-1', 0, False, '1')]);"
        "held = turn.take(1); print(held and held.slots[0].name); print(turn.take(1))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(folder.parent)}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["gpu-1", "None"], done.stderr
