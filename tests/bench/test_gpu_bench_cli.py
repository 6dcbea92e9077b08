"""`mrbench gpu-bench` as a person meets it, on a tiny model."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from mrbench.bench import plan as plans
from mrbench.bench import record as records
from mrbench.bench import session
from mrbench.bench.largest_batch import Search, Try, find_largest
from mrbench.bench.plan import make_plan
from mrbench.bench.process import Ending
from mrbench.bench.session import try_batch
from mrbench.cli.app import app
from mrbench.errors import UserError

TINY = [
    *("runtime.device=cpu", "runtime.threads=1", "model.backbone.width=8", "model.neck.channels=16"),
    *("model.box_head.fc_channels=16", "model.mask_head.channels=16", "model.mask_head.convs=1"),
    *("model.rpn.post_nms_train=16", "model.rpn.post_nms_test=16", "model.roi.samples=8"),
]
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc to watch memory in")


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["gpu-bench", *TINY, *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_figures_are_printed_and_recorded(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ("--mode", "train", "--precision", "fp32,tf32,bf16", "--image-size", "64x96", "--repeats", "2")
    arguments += ("--out", str(out))
    text = run(*arguments)
    record = records.read(out)
    assert record.state == "completed"
    assert [m.state for m in record.measurements] == ["measured", "unsupported", "measured"]
    assert "needs a GPU" in record.measurements[1].note
    first = record.measurements[0]
    assert first.images_per_second is not None
    assert first.images_per_second.count == len(first.block_seconds) == 2
    assert first.peak_memory["resident"] > 50 << 20
    assert first.facts["instances_per_image"] == 7
    assert first.facts["loss_is_finite"]
    assert first.settings["threads"] == 1
    assert first.settings["compile"] is False
    assert "torch" in record.provenance["packages"]
    for part in ("images/s", "Range", "Peak memory", "64x96", "times as fast as", str(out)):
        assert part in text


class Silent:
    """Is told what happens, and what was measured anew."""

    def __init__(self) -> None:
        self.began: list[str] = []

    def begins(self, what: str) -> None:
        self.began.append(what)

    def measured(self, row: object) -> None: ...
    def searched(self, search: object) -> None: ...


def test_a_killed_benchmark_goes_on_with_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    provenance = session.collect()
    monkeypatch.setattr(session, "collect", lambda: provenance)
    answers = iter(range(100))

    def fresh(task: dict[str, Any], *_: object) -> Ending:
        if task["what"] == "try":
            batch = task["workload"]["case"]["batch"]
            if next(answers) == 2:
                raise KeyboardInterrupt
            return Ending("done" if batch <= 5 else "memory", "", 0.1, peak_memory=batch)
        answer = {
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
        return Ending("done", "", 1.0, answer)

    monkeypatch.setattr(session, "run_fresh", fresh)
    device = {"type": "cpu", "threads": 1, "refusals": {"fp32": None, "bf16": None, "tf32": "needs a GPU"}}
    monkeypatch.setattr(plans, "describe_device", lambda _config: device)
    plan, _ = make_plan(TINY, mode="train", precision="fp32,bf16,tf32", largest_batch=True, memory_limit="2GiB")
    out = tmp_path / "record.json"
    with pytest.raises(KeyboardInterrupt):
        session.carry_out(out, session.open_record(out, plan, device), Silent())
    killed = records.read(out)
    assert killed.state == "running"
    assert [t.batch for t in killed.searches[0].tries] == [1, 2]

    watcher = Silent()
    record = session.carry_out(out, session.open_record(out, plan, device), watcher)
    assert records.read(out) == record
    assert record.state == "completed"
    assert record.started == killed.started
    assert record.measurements == killed.measurements
    assert [(s.case.precision, s.largest, s.note) for s in record.searches] == [
        ("fp32", 5, ""),
        ("bf16", 5, ""),
        ("tf32", None, "needs a GPU"),
    ]
    assert watcher.began[0] == "largest batch, train fp32: trying 4"
    assert [t.batch for t in record.searches[0].tries] == [1, 2, 4, 8, 6, 5]

    other = session.open_record(out.with_name("other.json"), plan, device)
    assert (other.state, other.measurements) == ("running", [])


def test_detection_is_timed_on_the_stated_number_of_detections(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    run("--mode", "infer", "--repeats", "1", "--image-size", "64x64", "--out", str(out))
    [row] = records.read(out).measurements
    assert row.case.batch == 1
    assert row.facts["detections_per_image"] > 5
    assert "pasting" in row.settings["not_included"]


def test_too_little_memory_for_one_image_is_one_message(tmp_path: Path) -> None:
    arguments = ["gpu-bench", *TINY, "--mode", "train", "--memory-limit", "60MiB", "--out", str(tmp_path / "r.json")]
    with pytest.raises(UserError, match="train fp32, batch 2: stopped when its resident memory passed the limit"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_message() -> None:
    with pytest.raises(UserError, match=r"runtime\.device=cuda, but torch sees no GPU"):
        CliRunner().invoke(app, ["gpu-bench", "runtime.device=cuda"], catch_exceptions=False)


@linux
def test_the_largest_batch_under_a_limit_agrees_with_trying_each(tmp_path: Path) -> None:
    plan, device = make_plan(TINY, mode="train", size="256x256")
    [case] = plan.cases
    peaks = [try_batch(plan, device, dataclasses.replace(case, batch=batch)).peak_memory for batch in (2, 3)]
    assert peaks[0] is not None
    assert peaks[1] is not None
    limit = int(sum(peaks) / 2 / (1 - plan.headroom))
    plan = dataclasses.replace(plan, memory_limit=limit)
    search = Search(case, [Try(1, "fits")])
    find_largest(search, lambda batch: try_batch(plan, device, dataclasses.replace(case, batch=batch)), lambda: None)
    assert (search.largest, search.bound) == (2, "memory")


def test_the_process_that_asks_never_loads_torch(tmp_path: Path) -> None:
    code = (
        "import sys; import mrbench.bench.telling, mrbench.cli.gpu_bench; from mrbench.bench.plan import make_plan\n"
        "plan, device = make_plan(['runtime.device=cpu'])\n"
        "assert device['type'] == 'cpu' and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path)
