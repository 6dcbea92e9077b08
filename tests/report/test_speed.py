"""A report of benchmark records: published figures beside ours, charts, and the files."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mrbench.bench.largest_batch import Search, Try
from mrbench.bench.matrix import Case
from mrbench.bench.record import PROTOCOL, Plan, Record, measured, write
from mrbench.cli.app import app
from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.report import charts_speed, speed, speed_page

CASE = Case("train", "r50", "fp16", 8, [800, 1333])
ANSWER: dict[str, Any] = {
    "warmup": {"steps": 12, "seconds": 1.0, "stable": True, "step_seconds": 0.1},
    "steps_per_block": 4,
    "peak_memory": {"allocated": 8 << 30, "reserved": 9 << 30},
    "facts": {},
    "settings": {},
    "others_cpu": None,
    "latency": [],
    "split": {"steps": 4, "step_seconds": 0.2, "parts": {"backbone": 0.05, "backward": 0.15}},
    "work": None,
    "telemetry": {"source": None},
}


def record(gpu: str = "NVIDIA A100-SXM4-80GB", *overrides: str) -> Record:
    """20 images a second in fp16 and 10 in fp32 at batch 8, 15 at batch 2, and 30 on two GPUs."""
    cases = {20.0: CASE, 10.0: replace(CASE, precision="fp32"), 15.0: replace(CASE, batch=2)}
    cases[30.0] = replace(CASE, devices=2)
    text = to_yaml(compose(["model=mask_rcnn_r50_fpn", *overrides]))
    plan = Plan({"r50": text}, "cuda", list(cases.values()), "synthetic", 7, None, 3, True, None, 0.05)
    device = {"type": "cuda", "name": gpu, "refusals": {"fp32": None, "fp16": None}}
    found = Record(plan, "2026-01-01T00:00:00+00:00", device, {"packages": {"torch": "2.15.0"}, "hardware": {}})
    for rate, case in cases.items():
        seconds = [4 * case.batch * case.devices / rate * wobble for wobble in (0.99, 1.0, 1.01)]
        found.measurements.append(measured(case, ANSWER | {"block_seconds": seconds}))
    tries = [Try(1, "fits", "", 2 << 30, 1.0), Try(2, "fits", "", 3 << 30, 1.0), Try(4, "memory")]
    found.searches = [Search(replace(CASE, batch=0), tries=tries, limit=4 << 30, largest=3, bound="memory")]
    found.state = "completed"
    return found


def test_published_figures_are_images_a_second_and_gpu() -> None:
    """Lines of speed.csv, divided by hand."""
    rows = {(r.source, r.hardware, r.mode, r.gpus, r.precision): r for r in reversed(speed.published())}
    dgx = rows["mlcommons/training_results_v3.0 logs", "H100 SXM", "train", 8, "fp16 (mixed)"]
    assert (dgx.batch, dgx.when) == (12, "2023")
    assert dgx.per_gpu == pytest.approx(1487.8 / 8)
    zoo = rows["detectron2/MODEL_ZOO.md", "V100 NVLink (Big Basin)", "infer", 1, "fp32"]
    assert zoo.per_gpu == pytest.approx(1 / 0.043)
    lambda_labs = rows["lambdal/deeplearning-benchmark pytorch/results", "8xA100_80GB_SXM4", "train", 8, "fp16"]
    assert (lambda_labs.per_gpu, lambda_labs.batch, lambda_labs.when) == (pytest.approx(157.78 / 8), 50, "2021")
    two = rows["NVIDIA DLE TF2 MaskRCNN README", "A100 80GB", "infer", 1, "fp16 (AMP)"]
    assert two.mode == "infer"


def test_only_the_same_network_is_set_beside_the_literature() -> None:
    everything = speed.published()
    assert all(row.gpus <= speed.MOST_GPUS for row in everything)
    assert not any(word in row.model for row in everything for word in ("R101", "GN", "LSJ", "C4"))
    [fp16, fp32] = speed.comparable([record()])
    assert (fp16.case, fp16.rate) == (CASE, pytest.approx(20, rel=1e-3))  # the best batch, one GPU
    assert fp32.case.precision == "fp32"
    for others in (
        ["model.backbone.depth=101"],
        ["model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true"],
        ["model.norm=gn"],
        ["model.box_head.convs=4", "model.box_head.fcs=1"],
        ["model.mask_head.kind=mlp"],
        ["model.keypoint_head.enabled=true"],
    ):
        assert speed.comparable([record("A GPU", *others)]) == [], others


def test_what_differs_is_named() -> None:
    ours = speed.comparable([record()])
    [theirs] = [r for r in speed.published() if r.hardware == "8xA100_80GB_SXM4" and r.precision == "fp32"]
    own = speed.nearest(theirs, ours)
    assert own is not None
    assert own.case.precision == "fp32"
    told = "; ".join(speed.differences(theirs, own))
    for part in (
        "COCO's pictures, short edge 800; ours synthetic, 800x1333",
        "learning rate 0; ours without loading",
        "batch 48 a GPU; ours 8",
        "a share of 8 GPUs; ours one",
        "from 2021",
    ):
        assert part in told
    assert "NVIDIA A100" not in told  # the same kind of GPU
    other = replace(own, hardware="NVIDIA H100 80GB HBM3")
    assert "8xA100_80GB_SXM4; ours NVIDIA H100" in "; ".join(speed.differences(theirs, other))
    assert speed.nearest(replace(theirs, mode="infer"), ours) is None


def test_lambda_s_many_gpus_are_cut_down_to_ours() -> None:
    few = speed.typical(speed.published(), speed.comparable([record("NVIDIA RTX A6000")]))
    assert {row.hardware for row in few if row.source.startswith("lambdal")} <= {"A6000", "LambdaCloud_A6000"}
    assert len(few) < 40


def test_charts_show_what_the_records_have() -> None:
    found = charts_speed.figures([record()])
    assert set(found) == {"throughput", "largest_batch", "scaling", "memory", "split", "published"}
    [ax] = found["throughput"].figure.axes
    assert sorted(round(bar.get_width(), 1) for bar in ax.patches) == [10.0, 20.0]  # type: ignore[attr-defined]
    [ax] = found["largest_batch"].figure.axes
    assert [bar.get_width() for bar in ax.patches] == [3]  # type: ignore[attr-defined]
    assert "75 %" in [text.get_text() for text in found["scaling"].figure.axes[0].texts]  # 30 of 2 x 20
    assert "lines: 95 % intervals" in found["throughput"].figure.axes[0].get_title(loc="left")
    # A step takes 400 ms for 8 images: 50 ms, of which the split's own steps (200 ms) have a quarter for the backbone;
    # 100 ms in fp32.
    [ax] = found["split"].figure.axes[:1]
    assert sorted({round(bar.get_width(), 2) for bar in ax.patches}) == [12.5, 25.0, 37.5, 75.0]  # type: ignore[attr-defined]
    bare = replace(record("A GPU", "model.backbone.depth=101"), searches=[], measurements=record().measurements[:1])
    assert set(charts_speed.figures([bare])) == {"throughput", "split"}


def test_bars_of_speed_have_the_interval_of_the_mean() -> None:
    """Three blocks 1 % apart: t = 4.303 with 2 degrees of freedom, so 4.303 x 0.2 / sqrt(3) = 0.50 either way."""
    [ax] = charts_speed.figures([record()])["throughput"].figure.axes
    fast = max((list(line.get_xdata()) for line in ax.lines), key=max)  # type: ignore[arg-type]
    assert fast == pytest.approx([19.5, 20.5], abs=0.02)
    one_block = record()
    for row in one_block.measurements:
        assert row.images_per_second is not None
        row.images_per_second.interval = None
    [ax] = charts_speed.figures([one_block])["throughput"].figure.axes
    assert not ax.lines
    assert "interval" not in ax.get_title(loc="left")


def test_memory_of_tries_stays_below_the_limit_of_their_own_search() -> None:
    """Two records of a device, of which one may have 4 GiB and the other 64: 40 GiB fit only there."""
    small, large = record(), record()
    small.searches[0].tries.append(Try(3, "fits", "", 5 << 30, 1.0))  # as counted otherwise than it was limited
    large.searches[0].tries.append(Try(16, "fits", "", 40 << 30, 1.0))
    large.searches[0].limit = 64 << 30
    panels = {ax.get_title(loc="left"): ax for ax in charts_speed.figures([small, large])["memory"].figure.axes}
    drawn = {}
    for title, ax in panels.items():
        if "search" in title:
            curve, limit = ax.lines
            drawn[limit.get_ydata()[0]] = list(curve.get_ydata())  # type: ignore[index,arg-type]
    assert drawn == {4.0: [2.0, 3.0], 64.0: [2.0, 3.0, 40.0]}


def test_the_command_writes_markdown_csv_and_charts(tmp_path: Path) -> None:
    files = []
    for gpu in ("NVIDIA A100-SXM4-80GB", "NVIDIA H100 80GB HBM3"):
        files.append(tmp_path / f"{gpu}.json")
        write(files[-1], record(gpu))
    out = tmp_path / "out"
    done = CliRunner().invoke(app, ["report", "--bench", *map(str, files), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "fp16 is 2.00 ± 0.03 times as fast as fp32" in done.output
    text = (out / "speed.md").read_text()
    for part in ("train fp16, batch 8 | 20.0", "H100 80GB HBM3", "what else differs", "charts/published.png"):
        assert part in text
    assert "name NVIDIA A100-SXM4-80GB, now NVIDIA H100 80GB HBM3" in text
    with (out / "speed.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 8
    assert (rows[0]["hardware"], rows[0]["torch"], rows[0]["protocol"]) == (
        "NVIDIA A100-SXM4-80GB",
        "2.15.0",
        str(PROTOCOL),
    )
    assert float(rows[0]["images_per_second"]) == pytest.approx(20, rel=1e-3)
    assert rows[0]["largest_batch"] == "3"
    for name in ("throughput", "published"):
        assert (out / "charts" / f"{name}.png").stat().st_size > 5000
        assert (out / "charts" / f"{name}.svg").exists()


def test_every_section_has_the_name_of_its_file_and_of_equal_names_the_path(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a.json", "one/b.json", "two/b.json")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        write(path, record())
    named = speed.read_records(paths)
    assert list(named) == ["a.json", str(paths[1]), str(paths[2])]
    heads = [line for line in speed_page.markdown(named, {}).splitlines() if line.startswith("## ")]
    assert heads[0].startswith("## a.json: r50 on NVIDIA A100-SXM4-80GB")
    assert len(set(heads)) == len(heads) == 4
    assert "a.json: r50 on NVIDIA A100" in speed_page.summary(named)


@pytest.mark.parametrize(("refusal", "told"), [("no tensor cores", ": no tensor cores."), (None, ".")])
def test_a_record_without_a_row_is_not_called_interrupted(refusal: str | None, told: str) -> None:
    empty = replace(record(), state="running", measurements=[], searches=[])
    empty.device["refusals"] = {"fp16": refusal, "fp32": refusal}
    text = speed_page.markdown({"a.json": empty}, {})
    assert f"2026-01-01; no row was measured{told}\n" in text
    assert "interrupted" not in text
    assert "| row |" not in text
    part = replace(record(), state="running")
    assert "; interrupted: not all was measured.\n" in speed_page.markdown({"a.json": part}, {})


@pytest.mark.parametrize("text", ["{}", "# A page"])
def test_a_file_that_is_no_record_is_one_message(text: str, tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UserError, match=r"other\.json is not a benchmark record"):
        CliRunner().invoke(app, ["report", "--bench", str(tmp_path / "other.json")], catch_exceptions=False)
