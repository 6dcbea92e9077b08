"""A limit that the kernel keeps, where it lets us, and only our own groups are touched."""

import os
import shutil
import sys
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
    monkeypatch.setattr(control_group, "_own_group", lambda controller="": Path("session/us"))
    for folder, most, used in (("session", "5000", "3000"), ("session/us", "max", "100")):
        (root / folder / "memory.max").write_text(most)
        (root / folder / "memory.current").write_text(used)
    assert control_group.room(root) == 2000
    (root / "session/memory.stat").write_text("anon 2500\ninactive_file 400\n")
    assert control_group.room(root) == 2400  # what files are kept in memory can go
    (root / "session/memory.max").write_text("max")
    assert control_group.room(root) is None


@pytest.fixture
def real_group() -> ControlGroup:
    group = make_group(100 * MIB)
    if group is None:
        pytest.skip("needs control groups of version 2 with a memory controller that this user may make groups in")
    return group


def test_the_kernel_kills_what_passes_the_limit(real_group: ControlGroup) -> None:
    command = [sys.executable, "-c", f"x = b'x' * (300 << 20)\n{DONE}"]
    ending = run_fresh({}, command=command, group=real_group)
    assert (ending.kind, ending.why) == ("memory", "killed by the kernel at the limit of its control group")
    assert not real_group.path.exists()
