"""`mrbench gpu-bench` as a person meets it, on a tiny model."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mrbench.bench import plan as plans
from mrbench.bench import record as records
from mrbench.bench import session
from mrbench.bench.child import describe
from mrbench.bench.largest_batch import Search
from mrbench.bench.measure import Limits
from mrbench.bench.plan import make_plan
from mrbench.bench.trying import set_up, try_batch
from mrbench.cli.app import app
from mrbench.config.composer import compose
from mrbench.errors import UserError

TINY = [
    *("runtime.device=cpu", "runtime.threads=1", "model.backbone.width=8", "model.neck.channels=16"),
    *("model.box_head.fc_channels=16", "model.mask_head.channels=16", "model.mask_head.convs=1"),
    *("model.rpn.post_nms_train=16", "model.rpn.post_nms_test=16", "model.roi.samples=8"),
]
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system has no /proc to watch memory in")


@pytest.fixture(scope="module")
def device() -> dict[str, Any]:
    """As a process of its own would tell it."""
    return describe(compose(TINY))


@pytest.fixture
def described(device: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: device)


@pytest.mark.usefixtures("described")
def test_figures_are_printed_and_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "record.json"
    options = ["--mode", "train", "--precision", "fp32,tf32", "--image-size", "64x96", "--repeats", "2"]
    monkeypatch.setattr(session, "Limits", partial(Limits, block_seconds=0.1, warmup_steps=20))
    result = CliRunner().invoke(app, ["gpu-bench", *TINY, *options, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text, record = result.output, records.read(out)
    assert record.state == "completed"
    assert [m.state for m in record.measurements] == ["measured", "unsupported"]
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
    for part in ("images/s", "Range", "Peak memory", "64x96", str(out)):
        assert part in text


@pytest.mark.usefixtures("described")
def test_too_little_memory_for_one_image_is_one_message(tmp_path: Path) -> None:
    arguments = ["gpu-bench", *TINY, "--mode", "train", "--memory-limit", "60MiB", "--out", str(tmp_path / "r.json")]
    with pytest.raises(UserError, match="train fp32, batch 2: stopped when its resident memory passed the limit"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)


@linux
@pytest.mark.usefixtures("described")
def test_a_real_network_fits_above_its_peak_and_is_ended_at_a_limit() -> None:
    # A step's peak is the same each time to a few MiB; an image of this size takes some 25.
    plan, device = make_plan(TINY, mode="train", size="256x256", memory_limit="1TiB")
    search = Search(replace(plan.cases[0], batch=0))
    set_up(search, plan, device)
    two = try_batch(plan, search, 2)
    assert two.ended == "fits"
    assert two.peak_memory is not None
    search.limit = two.peak_memory + (12 << 20)
    three = try_batch(plan, search, 3)
    assert three.ended == "memory"
    assert three.why


def test_the_process_that_asks_never_loads_torch(tmp_path: Path) -> None:
    code = (
        "import sys; import mrbench.bench.telling, mrbench.cli.gpu_bench\n"
        "from mrbench.bench import plan as plans; from mrbench.bench.largest_batch import Search\n"
        "from mrbench.bench.trying import set_up\n"
        "device = {'type': 'cpu', 'threads': 1, 'refusals': {'fp32': None}}\n"
        "plans.describe_device = lambda _config: device\n"
        "plan, device = plans.make_plan(['runtime.device=cpu'])\n"
        "set_up(Search(plan.cases[0]), plan, device)\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=tmp_path)
