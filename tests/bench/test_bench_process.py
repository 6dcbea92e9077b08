"""How real processes end, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mrbench.bench import process as process_module
from mrbench.bench.process import available_memory, peak_resident, run_fresh, size_text

MIB = 1 << 20
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc to watch memory in")

ANSWER = (
    "import json,sys; from pathlib import Path; f=Path(sys.argv[1]); task=json.loads((f/'task.json').read_text())\n"
)
DONE = "(f/'answer.json').write_text(json.dumps({'kind': 'done', 'twice': 2 * task.get('n', 0)}))\n"


def command(code: str) -> list[str]:
    return [sys.executable, "-c", ANSWER + code]


def children() -> set[str]:
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(os.getpid())], capture_output=True, text=True)
    return {pid for pid in done.stdout.split() if Path(f"/proc/{pid}/stat").exists()}


def gone(pid: int) -> bool:
    """Ended; a zombie that nobody collects counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_the_answer_comes_back() -> None:
    ending = run_fresh({"n": 21}, command=command(DONE))
    assert (ending.kind, ending.answer["twice"]) == ("done", 42)


@pytest.mark.parametrize(
    "code, kind, why",
    [
        ("raise MemoryError", "memory", "MemoryError"),
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "memory", "Tried to allocate"),
        ("import os; sys.stderr.write('std::bad_alloc\\n'); sys.stderr.flush(); os.abort()", "memory", "bad_alloc"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "memory", "killed by the system"),
        ("raise ValueError('a bug')", "failed", "exit code 1: ValueError: a bug"),
        ("import os; os.abort()", "failed", "SIGABRT"),
        ("pass", "failed", "exit code 0"),
    ],
)
def test_why_a_process_ended_is_known(code: str, kind: str, why: str) -> None:
    ending = run_fresh({}, command=command(code))
    assert ending.kind == kind
    assert why in ending.why


@linux
def test_a_process_that_takes_too_much_is_stopped_at_the_limit() -> None:
    code = "import time\nkept = []\nfor i in range(2000):\n    kept.append(b'x' * (1 << 20)); time.sleep(0.002)\n"
    ending = run_fresh({}, limit=100 * MIB, command=command(code + DONE))
    assert ending.kind == "memory"
    assert "passed the limit (100 MiB)" in ending.why
    assert ending.peak_memory is not None
    assert ending.peak_memory < 1000 * MIB


@linux
def test_a_peak_between_two_looks_is_not_missed() -> None:
    code = "sys.path.insert(0, task['path']); from mrbench.bench.process import peak_resident\n"
    code += "x = b'x' * (300 << 20); del x\n"
    answer = "(f/'answer.json').write_text(json.dumps({'kind': 'done', 'peak_resident': peak_resident('self')}))\n"
    top = str(Path(__file__).resolve().parents[2])
    ending = run_fresh({"path": top}, limit=200 * MIB, command=command(code + answer))
    assert ending.kind == "memory"


def test_a_process_that_takes_too_long_is_stopped() -> None:
    ending = run_fresh({}, timeout=0.3, command=command("import time; time.sleep(600)"))
    assert ending.kind == "time"


@linux
def test_children_of_a_stopped_process_are_stopped_too(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "import subprocess, time\n"
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "Path(task['note']).write_text(str(p.pid)); kept = b'x' * (300 << 20); time.sleep(600)"
    )
    before = children()
    ending = run_fresh({"note": str(note)}, limit=100 << 20, command=command(code))
    assert ending.kind == "memory"
    deadline = time.monotonic() + 10
    while not gone(int(note.read_text())) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(int(note.read_text()))
    assert children() <= before


@linux
def test_a_try_ends_when_the_process_that_asked_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    child = (
        "from mrbench.bench.process import end_with_parent\nimport os, time\nend_with_parent()\n"
        f"open({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    asks = "import sys; from mrbench.bench.process import run_fresh\n"
    asks += f"run_fresh({{}}, command=[sys.executable, '-c', {child!r}])"
    parent = subprocess.Popen([sys.executable, "-c", asks])
    try:
        deadline = time.monotonic() + 120
        while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    pid = int(note.read_text())
    deadline = time.monotonic() + 30
    while not gone(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(pid)


@linux
def test_memory_is_read_from_the_system() -> None:
    own = peak_resident("self")
    assert own is not None
    assert own > 5 * MIB
    assert peak_resident(2**30) is None
    assert 0 < available_memory() < 1 << 50
    assert [size_text(s) for s in (512, 2048, 3 * MIB, 1.5 * 1024 * MIB)] == ["512 B", "2 KiB", "3 MiB", "1.50 GiB"]


def test_a_signal_in_the_middle_of_looking_does_not_leave_it_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The signal's exception came while Popen.poll held the lock that Popen.wait takes."""

    def interrupted(process: Any, *_: object) -> None:
        process._waitpid_lock.acquire()
        raise KeyboardInterrupt

    monkeypatch.setattr(process_module, "_watch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_fresh({}, command=[sys.executable, "-c", "import time; time.sleep(600)"])
