"""A limit that the kernel keeps, where it lets us, and only our own groups are touched.

The names of the kernel's files, and what stands in them: docs.kernel.org, admin-guide/cgroup-v2 and cgroup-v1/memory.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrbench.bench import control_group
from mrbench.bench.control_group import ControlGroup, make_group
from mrbench.bench.process import run_fresh

MIB = 1 << 20
DONE = "import json, sys; open(f'{sys.argv[1]}/answer.json', 'w').write(json.dumps({'kind': 'done'}))"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree like the kernel's, in which a process of the group session/us may make groups beside its own."""
    (tmp_path / "session/us").mkdir(parents=True)
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids")
    (tmp_path / "session/cgroup.subtree_control").write_text("memory pids")
    (tmp_path / "session/us/cgroup.subtree_control").write_text("")

    def removed(path: Path) -> bool:  # the kernel's files go with their folder
        shutil.rmtree(path)
        return True

    monkeypatch.setattr(control_group, "_removed", removed)
    return tmp_path


def test_a_group_lies_beside_our_own_and_has_the_limit(root: Path) -> None:
    group = make_group(123, root, Path("session/us"))
    assert group is not None
    assert group.path.parent == root / "session"
    assert (group.path / "memory.max").read_text() == "123"
    assert (group.path / "memory.swap.max").read_text() == "0"
    assert not group.killed()
    group.remove()
    assert sorted(p.name for p in (root / "session").iterdir()) == ["cgroup.subtree_control", "us"]


def test_without_a_group_that_may_be_limited_there_is_none(root: Path) -> None:
    (root / "session/cgroup.subtree_control").write_text("cpu")
    (root / "cgroup.subtree_control").unlink()
    assert make_group(123, root, Path("session/us")) is None


def test_of_version_1_a_group_lies_in_our_own_or_in_the_nearest_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "memory/box").mkdir(parents=True)
    for folder in ("memory", "memory/box"):
        (tmp_path / folder / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert make_group(123, tmp_path, Path("box")) is None  # kills are not counted, so perhaps there are none
    for folder in ("memory", "memory/box"):
        (tmp_path / folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
    for own, parent in (("box", "memory/box"), ("elsewhere/in/the/host", "memory")):
        group = make_group(123, tmp_path, Path(own))
        assert group is not None
        assert group.path.parent == tmp_path / parent
        assert (group.path / "memory.limit_in_bytes").read_text() == "123"
        assert (group.path / "memory.swappiness").read_text() == "0"
        assert not group.killed()
        (group.path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
        assert group.killed()


def test_a_group_that_cannot_be_entered_is_none_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_group, "ENTER", "exit 1")
    assert make_group(123, root, Path("session/us")) is None
    assert not list(root.rglob("mrbench-*"))


def test_the_group_of_a_killed_command_is_removed_by_the_next(root: Path) -> None:
    gone, ours = (root / f"session/mrbench-{pid}-0" for pid in (2**30, os.getppid()))
    gone.mkdir()
    ours.mkdir()
    group = make_group(123, root, Path("session/us"))
    assert group is not None
    assert not gone.exists()
    assert ours.exists()


def test_a_process_enters_the_group_before_it_begins_and_the_group_goes_with_it(root: Path) -> None:
    group = make_group(123, root, Path("session/us"))
    assert group is not None
    note = root / "note"
    code = f"import os, shutil; open({str(note)!r}, 'w').write(str(os.getpid()))\n"
    code += f"shutil.copy({str(group.path / 'cgroup.procs')!r}, {str(root / 'procs')!r})\n{DONE}"
    ending = run_fresh({}, command=[sys.executable, "-c", code], group=group)
    assert ending.kind == "done"
    assert (root / "procs").read_text().strip() == note.read_text()
    assert not group.path.exists()


def test_the_kernel_s_count_of_kills_says_why_a_process_ended(root: Path) -> None:
    group = make_group(123, root, Path("session/us"))
    assert group is not None
    (group.path / "memory.events").write_text("low 0\nhigh 0\nmax 34\noom 1\noom_kill 1\noom_group_kill 0\n")
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    ending = run_fresh({}, command=[sys.executable, "-c", code], group=group)
    assert (ending.kind, ending.why) == ("memory", "killed by the kernel at the limit of its control group")


def test_what_the_groups_around_us_leave_is_the_least_of_them(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_group, "_own_group", lambda version: Path("session/us"))
    for folder, most, used in (("session", "5000", "3000"), ("session/us", "max", "100")):
        (root / folder / "memory.max").write_text(most)
        (root / folder / "memory.current").write_text(used)
    assert control_group.room(root) == 2000
    (root / "session/memory.stat").write_text("anon 2500\ninactive_file 400\n")
    assert control_group.room(root) == 2400  # what files are kept in memory can go
    (root / "session/memory.max").write_text("max")
    assert control_group.room(root) is None
    (root / "memory/session/us").mkdir(parents=True)  # the controller is one of version 1
    (root / "memory/session/memory.limit_in_bytes").write_text("700")
    (root / "memory/session/memory.usage_in_bytes").write_text("500")
    (root / "memory/session/memory.stat").write_text("inactive_file 1\ntotal_inactive_file 30\n")
    assert control_group.room(root) == 230


@pytest.fixture
def real_group() -> Iterator[ControlGroup]:
    group = make_group(100 * MIB)
    if group is None:
        pytest.skip("needs control groups with a memory controller that this user may make groups in")
    yield group
    group.remove()


def test_the_kernel_kills_what_passes_the_limit(real_group: ControlGroup) -> None:
    command = [sys.executable, "-c", f"x = b'x' * (300 << 20)\n{DONE}"]
    ending = run_fresh({}, command=command, group=real_group)
    assert (ending.kind, ending.why) == ("memory", "killed by the kernel at the limit of its control group")
    assert not real_group.path.exists()


def test_what_is_below_the_limit_is_left_alone_and_its_peak_is_told(real_group: ControlGroup) -> None:
    command = [sys.executable, "-c", f"import time\nx = b'x' * (60 << 20)\ntime.sleep(0.3)\ndel x\n{DONE}"]
    ending = run_fresh({}, command=command, group=real_group)
    assert ending.kind == "done"
    assert ending.peak_memory is not None
    assert 60 * MIB < ending.peak_memory < 75 * MIB
    assert not real_group.path.exists()


def test_whatever_is_left_in_a_group_is_ended_before_it_is_removed(real_group: ControlGroup) -> None:
    code = "import time\nprint('begun', flush=True)\ntime.sleep(600)"
    left = subprocess.Popen(real_group.entering([sys.executable, "-c", code]), stdout=subprocess.PIPE)
    assert left.stdout is not None
    assert left.stdout.readline()
    real_group.remove()
    assert not real_group.path.exists()
    assert left.wait() == -signal.SIGKILL
    left.stdout.close()
