"""What docs/gpu-bench.md says was seen is what the records in results/gpu_bench_cpu say."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "docs" / "gpu-bench.md").read_text()


def recorded(name: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted((TOP / "results/gpu_bench_cpu").glob(f"{name}-*.json"))]


@pytest.mark.parametrize("mode", ["train", "infer"])
def test_ten_runs_against_torchvision(mode: str) -> None:
    records = recorded(mode)
    assert len(records) == 10
    (row,) = re.findall(rf"^\| `{mode}` \| ([\d. ]+) \| ([\d.]+) \| ([\d.]+) % \| ([\d.]+) % \|$", PAGE, re.MULTILINE)
    ratios = [record["measurements"][0]["peer"]["times_as_fast"]["value"] for record in records]
    assert row[0].split() == [f"{ratio:.3f}" for ratio in ratios]
    median = statistics.median(ratios)
    furthest = 100 * max(abs(ratio / median - 1) for ratio in ratios)
    apart = 100 * (max(ratios) / min(ratios) - 1)
    assert row[1:] == (f"{median:.3f}", f"{furthest:.1f}", f"{apart:.1f}")
    assert apart < 5


def test_five_searches_of_five() -> None:
    records = recorded("largest-batch")
    assert len(records) == 5
    for record in records:
        plain, checkpointing = record["searches"]
        assert plain["limited_by"] == checkpointing["limited_by"] == "the kernel, by a control group"
        assert (plain["largest"], checkpointing["largest"]) == (28, 29)
        assert [t["batch"] for t in plain["tries"] if t["ended"] == "memory"] == [32, 30, 29]
        assert [t["batch"] for t in checkpointing["tries"] if t["ended"] == "memory"] == [32, 30]
    assert "five searches of five gave 28, and 29 with activation checkpointing" in PAGE
    peaks = [t["peak_memory"] for r in records for s in r["searches"] for t in s["tries"] if t["batch"] == 28][::2]
    assert f"28 images: {min(peaks) / 2**20:.1f} to {max(peaks) / 2**20:.1f} MiB" in PAGE
