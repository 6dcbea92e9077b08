"""What is timed is what was stated: proposals, weights, norms, padding, and the metrics' detections."""

import json
import multiprocessing
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed import FileStore

from mrbench.bench import device as devices
from mrbench.bench.inputs import stated_proposals, synthetic_batches
from mrbench.bench.matrix import Case
from mrbench.bench.measure import Limits
from mrbench.bench.metrics import prepare_metrics, stated_detections, synthetic_truth
from mrbench.bench.record import measured
from mrbench.bench.rows import MEASURED, count_flops, measure_process, measure_row
from mrbench.bench.workload import Workload, normalise_frozen_norms, prepare
from mrbench.config.composer import compose
from mrbench.engine.checkpoint import save_weights
from mrbench.engine.distributed import World
from mrbench.modeling import boxes as box_ops
from mrbench.modeling.build import build_detector
from mrbench.modeling.norm import FrozenBatchNorm2d

TINY = [
    *("runtime.device=cpu", "runtime.threads=1", "model.backbone.width=8", "model.neck.channels=16"),
    *("model.box_head.fc_channels=16", "model.mask_head.channels=16", "model.mask_head.convs=1"),
    *("model.rpn.post_nms_train=200", "model.rpn.post_nms_test=64", "model.roi.samples=64"),
    *("data.shapes.train_images=8", "data.shapes.val_images=8", "data.shapes.image_size=64"),
    "runtime.num_workers=0",
]
CPU = torch.device("cpu")
QUICK = Limits(repeats=3, block_seconds=0.01, warmup_steps=2, latency_steps=4)


def workload(mode: str = "train", inputs: str = "synthetic", positives: int | None = None, **changes: Any) -> Workload:
    case = replace(Case(mode, "small", "fp32", 2, [96, 96]), **changes)
    return Workload(case, 5, positives, inputs)


def test_stated_proposals_overlap_as_stated() -> None:
    [batch] = synthetic_batches(1, 3, 200, 300, instances=4)
    batch.labels[2] = -1  # a picture without instances
    draws = torch.rand(3, 400, 4, generator=torch.Generator().manual_seed(0))
    for iou, positives in ((0.5, 30), (0.7, 16), (0.5, 2)):
        found = stated_proposals(batch.boxes, batch.labels, batch.sizes, draws, positives, iou)
        boxes, valid = found[..., :4], found[..., 4] > -torch.inf
        overlap = box_ops.iou(batch.boxes, boxes).amax(1)
        near = (overlap >= iou) & valid
        assert near.sum(1).tolist()[:2] == [max(positives - 4, 0)] * 2
        assert valid[2].all()  # there is nothing to overlap with
        assert valid.float().mean() > 0.9
        assert (boxes >= 0).all()
        assert (boxes <= torch.tensor([300, 200, 300, 200])).all()
        assert (boxes[..., 2:] > boxes[..., :2]).all()


@pytest.mark.parametrize("positives, expected", [(None, 8), (12, 12), (999, 16), (0, 5)])
def test_as_many_rois_are_positive_as_stated(positives: int | None, expected: int) -> None:
    prepared = prepare(compose(TINY), workload(positives=positives), CPU)
    prepared.step()
    facts = prepared.facts()
    # at least the 5 objects, at most a quarter of 64
    assert facts["positive_rois_per_image"] == expected
    assert facts["rois_per_image"] == 64
    assert facts["proposals"].startswith("stated")


def test_given_weights_propose_themselves(tmp_path: Path) -> None:
    config = compose(TINY)
    save_weights(tmp_path, build_detector(config.model, 4), 0)
    config = compose([*TINY, f"model.weights={tmp_path / 'final.pt'}"])
    prepared = prepare(config, workload(), CPU)
    prepared.step()
    assert prepared.facts()["proposals"] == "of the given weights"


def test_weights_go_by_the_names_of_categories(tmp_path: Path) -> None:
    config = compose(TINY)
    save_weights(tmp_path, build_detector(config.model, 2), 0, ["star", "boat"])
    overrides = [*TINY, f"model.weights={tmp_path / 'final.pt'}", "model.weights_classes=by_name"]
    for inputs in ("synthetic", "data"):
        prepare(compose(overrides), workload("infer", inputs), CPU).step()


def test_precomputed_proposals_are_stated_where_weights_are_random() -> None:
    prepared = prepare(
        compose([*TINY, "model.rpn.mode=precomputed", "data.train.proposals=a.npz", "data.val.proposals=a.npz"]),
        workload(positives=9),
        CPU,
    )
    prepared.step()
    assert prepared.facts()["positive_rois_per_image"] == 9


def test_a_network_that_only_proposes_is_measured() -> None:
    config = compose([*TINY, "model.rpn.mode=only"])
    for mode in ("train", "infer"):
        prepared = prepare(config, workload(mode), CPU)
        prepared.step()
        assert prepared.facts()


def test_frozen_norms_of_the_fifth_stage_on_regions_get_statistics_too() -> None:
    small = ("model.backbone.width=8", "model.backbone.weights=null", "model.roi.samples=8")
    config = compose(["model=mask_rcnn_r50_c4", *small, "model.rpn.post_nms_train=16"])
    torch.manual_seed(0)
    model = build_detector(config.model, 4)
    norms = [m for m in model.modules() if isinstance(m, FrozenBatchNorm2d)]
    of_res5 = [m for m in model.res5.modules() if isinstance(m, FrozenBatchNorm2d)]  # type: ignore[union-attr]
    assert 0 < len(of_res5) < len(norms)
    [batch] = synthetic_batches(1, 1, 64, 96, classes=4, neck="c4")
    normalise_frozen_norms(model, batch)
    for norm in norms:
        assert not torch.equal(norm.running_var, torch.ones_like(norm.running_var))
    seen: list[torch.Tensor] = []
    of_res5[-1].register_forward_hook(lambda _module, inputs, output: seen.append(output.clone()))
    with torch.no_grad():
        model(batch)
    # the same regions again: each channel has mean 0 and variance 1
    assert seen[0].mean((0, 2, 3)).abs().max() < 0.02  # rounding apart
    assert (seen[0].var((0, 2, 3), correction=0) - 1).abs().max() < 0.02


def test_pictures_for_a_single_map_are_not_padded() -> None:
    assert synthetic_batches(1, 1, 100, 140, neck="c4")[0].images.shape[2:] == (100, 140)
    assert synthetic_batches(1, 1, 100, 140, neck="fpn")[0].images.shape[2:] == (128, 160)


def test_flops_of_a_convolution_are_those_counted_by_hand() -> None:
    conv = torch.nn.Conv2d(3, 8, 5, stride=2)
    x = torch.zeros(2, 3, 21, 33)
    # 9 x 15 places, 8 channels, a dot product of 3 * 5 * 5 each; two operations a multiply-add
    by_hand = 2 * (2 * 9 * 15) * 8 * (3 * 5 * 5)
    assert count_flops(lambda: conv(x), 3) == by_hand
    with torch.inference_mode():
        assert count_flops(lambda: conv(x), 1) == by_hand
    # Backward: the gradient of the weights costs as much, and that of the input, which is not wanted, nothing.
    assert count_flops(lambda: conv(x).sum().backward(), 1) == 2 * by_hand


def test_flops_of_r50_fpn_are_the_published_ones() -> None:
    # Detectron2, tests/test_model_analysis.py: 117 G multiply-adds in the convolutions of body, FPN and RPN of
    # R50-FPN at 800x800, with MSRA's strides.
    msra = ("model.backbone.weights=null", "model.backbone.stride_in_1x1=true")
    config = compose(["model=mask_rcnn_r50_fpn", *msra])
    with torch.device("meta"):
        model = build_detector(config.model, 80)
        x = torch.empty(1, 3, 800, 800)

    def work() -> None:
        assert model.rpn is not None
        for feature in model.neck(model.backbone(x)):
            model.rpn.head(feature)

    with torch.no_grad():
        assert int(count_flops(work, 1) / 2e9) == 117


def test_a_step_s_flops_do_not_depend_on_how_it_is_run() -> None:
    config = compose(TINY)
    plain = prepare(config, workload("infer"), CPU)
    counted = count_flops(plain.step, plain.cycle)
    assert counted > 0
    last = prepare(config, workload("infer", channels_last=True), CPU)
    assert count_flops(last.step, last.cycle) == counted


@pytest.mark.parametrize(
    "mode, inputs",
    [
        ("train", "synthetic"),
        ("infer", "synthetic"),
        ("infer", "data"),
        ("data", "data"),
        ("end-to-end", "data"),
        ("eval", "synthetic"),
        ("eval", "data"),
    ],
)
def test_every_mode_is_measured(mode: str, inputs: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PEAK_SECONDS", 0.0)
    monkeypatch.setitem(devices.SIDES, "cpu", 64)
    wanted = workload(mode, inputs, **({"precision": None} if mode in ("data", "eval") else {}))
    answer = json.loads(json.dumps(measure_row(compose(TINY), wanted, QUICK, CPU, World())))
    row = measured(wanted.case, answer)
    assert row.images_per_second is not None
    assert row.images_per_second.mean > 0
    assert (row.latency is not None) == (mode == "infer")
    assert (row.split is not None) == (row.work is not None) == (mode in ("train", "infer", "end-to-end"))
    if mode == "infer":
        assert row.facts["detections_per_image"] > 5
        assert "pasting" in row.settings["not_included"]
    assert row.settings["clock"] == "host"
    for name in ("tf32", "cudnn_benchmark", "compile", "included", "not_included", "threads"):
        assert name in row.settings
    if row.split is not None:
        assert sum(row.split.parts.values()) == pytest.approx(row.split.step_seconds)
    if row.work is not None:
        assert row.work.fraction == pytest.approx(row.work.flops_per_second / row.work.peak_flops_per_second)


def _of_a_row(rank: int, store: str, folder: Path, wanted: Workload) -> None:
    world = World(rank, 2, rank, 2)
    measure_process(world, FileStore(store, 2), folder, compose([*TINY, "runtime.devices=2"]), wanted, QUICK)


@pytest.mark.skipif(sys.platform != "linux", reason="forks, so that the processes need not load torch again")
def test_two_processes_share_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "PEAK_SECONDS", 0.0)
    monkeypatch.setitem(devices.SIDES, "cpu", 64)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    wanted = workload("train", devices=2)
    context = multiprocessing.get_context("fork")
    arguments = (str(tmp_path / "store"), tmp_path, wanted)
    processes = [context.Process(target=_of_a_row, args=(rank, *arguments)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        process.kill()
        assert process.exitcode == 0
    row = measured(wanted.case, json.loads((tmp_path / MEASURED).read_text()))
    assert row.images_per_second is not None
    assert row.images_per_second.mean == pytest.approx(
        sum(4 * row.steps_per_block / seconds for seconds in row.block_seconds) / 3
    )
    assert row.split is not None
    assert "communication" in row.split.parts
    assert sum(row.split.parts.values()) == pytest.approx(row.split.step_seconds)
    assert row.others_cpu is None
    assert row.peak_memory["resident"] > 0


def test_the_metrics_have_the_stated_work() -> None:
    truth = synthetic_truth(3, 5, 17, seed=0)
    found = stated_detections(truth, 20, ["box", "mask", "keypoint"], seed=0)
    assert [sum(a["image_id"] == k for a in truth["annotations"]) for k in (1, 2, 3)] == [5, 5, 5]
    assert [sum(d["image_id"] == k for d in found) for k in (1, 2, 3)] == [20, 20, 20]
    config = compose([*TINY, "model.inference.detections_per_image=20"])
    prepared = prepare_metrics(config, workload("eval", batch=3))
    prepared.step()
    facts = prepared.facts()
    assert (facts["detections_per_image"], facts["kinds"]) == (20, ["box", "mask"])
    assert 5 < facts["box_ap"] < 95  # some are right, and some are not
    # An octagon that cuts a third of each side off at its corners has 7 / 9 of its box.
    from pycocotools import mask

    first = truth["annotations"][0]
    [rle] = mask.frPyObjects(first["segmentation"], 480, 640)
    assert float(mask.area(rle)) == pytest.approx(first["area"], rel=0.05)
