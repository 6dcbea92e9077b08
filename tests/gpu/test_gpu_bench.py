"""gpu-bench on a GPU: memory, precisions, and a search that leaves nothing behind."""

import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mrbench.bench import record as records
from mrbench.bench.largest_batch import Search, find_largest
from mrbench.bench.plan import make_plan
from mrbench.bench.trying import set_up, try_batch
from mrbench.cli.app import app

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")

SMALL = ["runtime.device=cuda", "model=mask_rcnn_small"]


def used_memory() -> int:
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", "0"]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_all_precisions_give_figures_with_allocated_and_reserved_memory(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ["gpu-bench", *SMALL, "--precision", "fp32,tf32,fp16,bf16", "--repeats", "3", "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    record = records.read(out)
    assert [row.state for row in record.measurements] == ["measured"] * 12
    for row in record.measurements:
        assert 0 < row.peak_memory["allocated"] <= row.peak_memory["reserved"]
        assert row.settings["tf32"] == row.settings["tf32_cudnn"] == (row.case.precision == "tf32")
        assert row.settings["clock"] == "device events"
        assert row.split is not None
        assert sum(row.split.parts.values()) == pytest.approx(row.split.step_seconds)
        assert row.work is not None
        assert 0 < row.work.fraction < 1
        assert row.facts.get("loss_is_finite", True)
    assert record.device["name"] == torch.cuda.get_device_name(0)


def test_the_search_under_a_limit_is_repeatable_and_frees_the_gpu() -> None:
    plan, device = make_plan(SMALL, mode="train", size="512x512", memory_limit="2GiB")
    before = used_memory()
    [case] = plan.cases[:1]
    found = []
    for _ in range(2):
        search = Search(replace(case, batch=0))
        set_up(search, plan, device)
        find_largest(search, partial(try_batch, plan, search), lambda: None)
        found.append((search.largest, search.bound))
    assert found[0] == found[1]
    assert found[0][1] == "memory"
    assert found[0][0]
    assert used_memory() <= before + 64


def test_detection_of_the_paper_s_model_has_a_hundred_detections_an_image(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ["gpu-bench", "--mode", "infer", "--precision", "fp16", "--repeats", "2", "--out", str(out)]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    row = records.read(out).measurements[0]
    assert 80 <= row.facts["detections_per_image"] <= 100


def test_torchvision_is_measured_in_turns_by_the_same_events(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ["gpu-bench", "model=mask_rcnn_r50_fpn", "--mode", "train,infer", "--precision", "fp16"]
    arguments += ["--image-size", "512x512", "--batch", "2", "--repeats", "2", "--peer", "torchvision"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for row in records.read(out).measurements:
        assert row.state == "measured"
        assert row.peer is not None
        assert not row.peer.note
        assert row.peer.clock == "device events"
        assert row.peer.times_as_fast is not None


def test_layouts_and_compiled_code_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ["gpu-bench", *SMALL, "--mode", "train", "--precision", "fp16", "--batch", "2", "--repeats", "2"]
    arguments += ["--channels-last", "off,on", "--compile", "off,on", "--out", str(out)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    rows = records.read(out).measurements
    assert sorted((row.case.channels_last, row.case.compile) for row in rows) == [
        *((False, False), (False, True), (True, False), (True, True))
    ]
    assert all(row.state == "measured" and row.facts["loss_is_finite"] for row in rows)


def test_a_smaller_card_is_simulated(tmp_path: Path) -> None:
    out = tmp_path / "record.json"
    arguments = ["gpu-bench", "model=mask_rcnn_r50_fpn", "--mode", "train", "--precision", "fp16", "--repeats", "2"]
    arguments += ["--image-size", "512x512", "--batch", "1", "--largest-batch", "--memory-limit", "4GiB"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(out)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    for search in records.read(out).searches:
        assert search.bound == "memory"
        assert search.largest
        assert all((one.peak_memory or 0) <= 4 << 30 for one in search.tries if one.ended == "fits")
