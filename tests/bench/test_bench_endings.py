"""However a benchmark ends: one message, an exit code that says which end it was, and what was measured is kept."""

import json
import os
import signal
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from mrbench.bench import child, fitting, session, trying
from mrbench.bench import plan as plans
from mrbench.bench import record as records
from mrbench.bench.child import describe
from mrbench.bench.largest_batch import Worst
from mrbench.bench.process import Ending
from mrbench.bench.trouble import device_trouble, means_out_of_memory
from mrbench.cli.app import app
from mrbench.config.composer import compose
from mrbench.engine.failures import ProcessFailed
from mrbench.errors import UserError

ANSWER = {
    "warmup": {"steps": 3, "seconds": 1.0, "stable": True, "step_seconds": 0.1},
    "steps_per_block": 4,
    "block_seconds": [1.0, 1.01],
    "peak_memory": {},
    "facts": {},
    "settings": {},
    "others_cpu": None,
    "latency": [],
    "split": None,
    "work": None,
    "telemetry": {"source": None},
}
CPU = {"type": "cpu", "threads": 1, "refusals": {"fp32": None, "bf16": None, "tf32": "needs a GPU"}}
GPU = {"type": "cuda", "name": "A GPU", "uuid": "GPU-1", "memory": 1 << 34, "count": 1}
GPU |= {"refusals": dict.fromkeys(plans.PRECISIONS)}
LOST = "AcceleratorError: CUDA error: unspecified launch failure"
OLD = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040). Please update your GPU "
    "driver by downloading and installing a new version from the URL: http://www.nvidia.com/Download/index.aspx"
)
BUSY = "AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable"


class Machine:
    """Measures at once, and ends as told when it comes to a row or a try."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, device: dict[str, Any]) -> None:
        self.ends: dict[object, Callable[[], Ending]] = {}
        self.measured: list[object] = []
        self.describe: Callable[[], Ending] = lambda: Ending("done", "", 0.1, {"kind": "done", **device})
        provenance = session.collect()
        monkeypatch.setattr(session, "collect", lambda: provenance)
        monkeypatch.setattr(session, "gpu_state", lambda _uuid: None)
        monkeypatch.setattr(session, "run_fresh", self.run)
        monkeypatch.setattr(trying, "run_fresh", self.run)
        monkeypatch.setattr(trying, "make_group", lambda _limit: None)

    def run(self, task: dict[str, Any], *_: object, **__: object) -> Ending:
        if task["what"] == "describe":
            return self.describe()
        case = task["workload"]["case"]
        which = (task["what"], case["precision"] if task["what"] == "measure" else case["batch"])
        self.measured.append(which)
        if which in self.ends:
            return self.ends[which]()
        if task["what"] == "measure":
            return Ending("done", "", 1.0, ANSWER)
        return Ending("done" if case["batch"] <= 5 else "memory", "", 0.1, peak_memory=case["batch"])


def bench(out: Path, *arguments: str) -> Result:
    command = ["gpu-bench", "--mode", "train", "--precision", "fp32,bf16", "--repeats", "2", "--out", str(out)]
    return CliRunner().invoke(app, [*command, *arguments])


def states(out: Path) -> list[str]:
    return [row.state for row in records.read(out).measurements]


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, CPU)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch, GPU)


def test_a_gpu_that_disappears_is_one_message_and_the_same_command_goes_on(gpu: Machine, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    gpu.ends["measure", "bf16"] = lambda: Ending("device", LOST, 1.0)
    result = bench(out)
    assert result.exit_code == 1
    assert result.stderr.count("the GPU is gone") == 1
    assert LOST in result.stderr
    assert f"What was measured is in {out}; the same command goes on." in result.stderr
    assert (states(out), records.read(out).state) == (["measured"], "running")
    gpu.ends.clear()
    gpu.measured.clear()
    assert bench(out).exit_code == 0
    assert gpu.measured == [("measure", "bf16")]
    assert (states(out), records.read(out).state) == (["measured", "measured"], "completed")


def test_a_process_that_dies_without_a_word_makes_us_ask_for_the_gpu(gpu: Machine, tmp_path: Path) -> None:
    out = tmp_path / "r.json"

    def dies() -> Ending:
        gpu.describe = lambda: Ending("device", LOST, 1.0)
        return Ending("failed", "signal SIGBUS: it said nothing", 1.0)

    gpu.ends["measure", "bf16"] = dies
    result = bench(out)
    assert result.exit_code == 1
    assert "the GPU no longer answers (signal SIGBUS: it said nothing)" in result.stderr
    assert states(out) == ["measured"]


def test_a_process_that_dies_on_a_device_that_is_there_costs_its_row_only(cpu: Machine, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    cpu.ends["measure", "fp32"] = lambda: Ending("failed", "signal SIGSEGV: it said nothing", 1.0)
    result = bench(out)
    assert result.exit_code == 1
    assert "failed: signal SIGSEGV" in result.stdout
    assert (states(out), records.read(out).state) == (["failed", "measured"], "completed")


def test_a_mistake_leaves_no_record_and_an_earlier_one_as_it_was(cpu: Machine, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    refused = Ending("refused", "there are no pictures", 1.0, {"kind": "refused", "hint": "Give some."})
    cpu.ends["measure", "fp32"] = lambda: refused
    assert isinstance(bench(out).exception, UserError)
    assert not list(tmp_path.iterdir())
    cpu.ends.clear()
    assert bench(out).exit_code == 0
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    cpu.ends["measure", "fp32"] = lambda: refused
    assert isinstance(bench(out).exception, UserError)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_gpu_that_disappears_in_a_search_keeps_its_tries(gpu: Machine, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    gpu.ends["try", 4] = lambda: Ending("device", LOST, 1.0)
    assert bench(out, "--largest-batch").exit_code == 1
    killed = records.read(out)
    assert [t.batch for t in killed.searches[0].tries] == [1, 2]
    gpu.ends.clear()
    gpu.measured.clear()
    assert bench(out, "--largest-batch").exit_code == 0
    assert gpu.measured[:4] == [("try", batch) for batch in (4, 8, 6, 5)]
    done = records.read(out)
    assert (done.started, done.measurements) == (killed.started, killed.measurements)
    found = done.searches
    assert found[0].worst == Worst([800, 1333], 100, None, "synthetic")
    assert [(s.case.precision, s.checkpointing, s.largest) for s in found] == [
        (precision, checkpointing, 5) for precision in ("fp32", "bf16") for checkpointing in (False, True)
    ]
    assert not list(tmp_path.glob("*.jsonl"))  # the journal has done its service


@pytest.mark.parametrize("signum, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_end_of_a_job_s_time_keeps_what_was_measured(
    cpu: Machine, tmp_path: Path, signum: signal.Signals, code: int
) -> None:
    out = tmp_path / "r.json"

    def asked_to_stop() -> Ending:
        os.kill(os.getpid(), signum)
        raise AssertionError("went on after a signal")

    cpu.ends["measure", "bf16"] = asked_to_stop
    result = bench(out)
    assert result.exit_code == code
    assert result.stderr.count(f"stopped by {signum.name}: What was measured is in {out}") == 1
    assert (states(out), records.read(out).state) == (["measured"], "running")
    cpu.ends.clear()
    assert bench(out).exit_code == 0


def test_a_row_that_takes_too_long_is_given_up_and_the_others_are_measured(cpu: Machine, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    cpu.ends["measure", "fp32"] = lambda: Ending("time", "stopped after 3600 s", 3600.0)
    result = bench(out)
    assert (result.exit_code, states(out)) == (0, ["time", "measured"])
    assert "gave up: stopped after 3600 s" in result.stdout


@pytest.mark.parametrize("said, what", [(BUSY, "in use by somebody else"), (OLD, "driver is too old")])
def test_a_gpu_that_cannot_be_used_is_one_message(gpu: Machine, tmp_path: Path, said: str, what: str) -> None:
    gpu.describe = lambda: Ending("device", said, 1.0)
    result = bench(tmp_path / "r.json")
    assert isinstance(result.exception, UserError)  # which the command line shows as a message, with exit code 2
    assert what in result.exception.what
    assert said in result.exception.what
    assert result.exception.hint
    assert not list(tmp_path.iterdir())


def test_a_gpu_that_others_have_filled_is_one_message(gpu: Machine, tmp_path: Path) -> None:
    gpu.describe = lambda: Ending("memory", "OutOfMemoryError: CUDA out of memory.", 1.0)
    result = bench(tmp_path / "r.json")
    assert isinstance(result.exception, UserError)
    assert "no memory left to begin with" in result.exception.what
    assert "nvidia-smi" in result.exception.hint


def test_a_gpu_that_disappears_in_the_quick_look_of_a_budget_is_one_message(
    gpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "run_fresh", lambda *_: Ending("device", LOST, 1.0))
    result = bench(tmp_path / "r.json", "--budget", "5m")
    assert result.exit_code == 1
    assert result.stderr.count("the GPU is gone") == 1
    assert "Nothing was measured yet." in result.stderr
    assert not list(tmp_path.iterdir())


def test_a_gpu_lost_by_one_of_several_processes_is_told_by_the_line_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"process 1:\nTraceback (most recent call last):\n  File x, line 3\ntorch.{LOST}"

    def carry_out(*_: object) -> dict[str, Any]:
        raise ProcessFailed(text)

    def ended(_code: int) -> None:
        raise SystemExit

    monkeypatch.setattr(child, "carry_out", carry_out)
    monkeypatch.setattr(child, "end_with_parent", lambda: None)
    monkeypatch.setattr(os, "_exit", ended)
    (tmp_path / "task.json").write_text("{}")
    with pytest.raises(SystemExit):
        child.main(tmp_path)
    answer = json.loads((tmp_path / "answer.json").read_text())
    assert (answer["kind"], answer["why"]) == ("device", f"torch.{LOST}")


@pytest.mark.parametrize("name", ["r.csv", "notes.json"])
def test_a_record_takes_no_other_file_s_place(cpu: Machine, tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.json").write_text('{"mine": true}')
    result = bench(tmp_path / name)
    assert isinstance(result.exception, UserError)
    assert name in result.exception.what
    assert (tmp_path / "notes.json").read_text() == '{"mine": true}'
    assert cpu.measured == []


def test_a_gpu_that_is_not_there_is_one_message(cpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"runtime\.device=cuda, but torch sees no GPU") as caught:
        describe(compose(["runtime.device=cuda"]))
    cpu.describe = lambda: Ending("refused", caught.value.what, 0.1, {"hint": caught.value.hint})
    result = bench(tmp_path / "r.json")
    assert isinstance(result.exception, UserError)
    assert (result.exception.what, result.exception.hint) == (caught.value.what, caught.value.hint)


def test_an_old_driver_is_named_where_torch_only_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch.cuda.is_available() is False then, as without a GPU, and CUDA's reason is a warning.
    def none() -> bool:
        warnings.warn(OLD, UserWarning, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", none)
    with pytest.raises(UserError, match="the NVIDIA driver is too old for this torch") as caught:
        describe(compose(["runtime.device=cuda"]))
    assert "previous-versions" in caught.value.hint
    found = describe(compose(["runtime.device=auto"]))
    assert (found["type"], found["no_gpu"]) == ("cpu", OLD)
    assert "no_gpu" not in describe(compose(["runtime.device=cpu"]))


def test_a_gpu_that_was_not_used_is_warned_about(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Machine(monkeypatch, {**CPU, "no_gpu": OLD})
    assert f"Warning: there is a GPU, but it was not used: {OLD}" in bench(tmp_path / "r.json").stdout


def test_memory_that_others_hold_is_warned_about(
    gpu: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "gpu_state", lambda _uuid: {"utilization.gpu": 0.0, "memory.used": 20480.0})
    assert "Warning: 20.00 GiB of the GPU's memory were taken before we began" in bench(tmp_path / "r.json").stdout


@pytest.mark.parametrize(
    "text, what",
    [
        (OLD, "driver is too old"),
        ("CUDA error: CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
        (BUSY, "in use by somebody else"),
        ("CUDA error: all CUDA-capable devices are busy or unavailable", "in use by somebody else"),
        (LOST, "the GPU is gone"),
        ("CUDA error: no CUDA-capable device is detected", "the GPU is gone"),
        ("RuntimeError: No CUDA GPUs are available", "the GPU is gone"),
        ("CUDA error: uncorrectable ECC error encountered", "the GPU is gone"),
        ("CUDA initialization: CUDA unknown error - this may be due to an incorrectly set up environment", "is gone"),
        ("CUDA initialization: CUDA driver initialization failed, you might not have a CUDA gpu.", "the GPU is gone"),
        ("CUDA error: no kernel image is available for execution on the device", "not built for a GPU of this kind"),
        ("CUDA error: device-side assert triggered", None),
        ("RuntimeError: GET was unable to find an engine to execute this computation", None),  # of no memory for it
        ("RuntimeError: mat1 and mat2 shapes cannot be multiplied", None),
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", None),
    ],
)
def test_what_cuda_says_is_understood(text: str, what: str | None) -> None:
    found = device_trouble(text)
    assert (found is None) == (what is None)
    assert found is None or what is None or what in found.what
    assert means_out_of_memory(text) == ("memory" in text or "engine" in text)
