"""Each architecture answers as Detectron2's does with the same weights (references/README.md).

The networks are those of conf/model in less width, with weights in Detectron2's names that follow from a rule.
"""

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.ops import roi_align

from mrbench.config.composer import compose
from mrbench.data.batch import Batch
from mrbench.data.collate import padded_size
from mrbench.modeling.build import build_detector
from mrbench.modeling.load import load_into
from mrbench.modeling.paste import paste_masks
from mrbench.weights.detectron2 import convert

FOLDER = Path(__file__).parent / "references"
_spec = importlib.util.spec_from_file_location("rule", FOLDER / "rule.py")
assert _spec is not None
rule = importlib.util.module_from_spec(_spec)
assert _spec.loader is not None
_spec.loader.exec_module(rule)

COMMON = [
    *("backbone.weights=null", "backbone.width=8", "mask_head.channels=16", "inference.detections_per_image=12"),
    *("rpn.pre_nms_train=200", "rpn.pre_nms_test=200", "rpn.post_nms_train=100", "rpn.post_nms_test=60"),
    "rpn.samples=8192",
]
HEADS = ["box_head.fc_channels=32", "box_head.conv_channels=16"]
FPN = [*COMMON, *HEADS, "neck.channels=16"]
MSRA = ["pixel_std=[1,1,1]", "backbone.stride_in_1x1=true"]
NORMED = ["neck.norm=${model.norm}", "box_head.norm=${model.norm}", "mask_head.norm=${model.norm}"]
FOUR_CONVS = ["box_head.convs=4", "box_head.fcs=1"]
NETWORKS: dict[str, tuple[str, list[str]]] = {
    "new_baselines": (
        "mask_rcnn_r50_fpn",
        [*FPN, *MSRA, *NORMED, *FOUR_CONVS, "norm=sync_bn", "backbone.freeze_at=0", "rpn.convs=2"],
    ),
    "c4": ("mask_rcnn_r50_c4", [*COMMON, *MSRA]),
    "cascade": ("cascade_mask_rcnn_r50_fpn", [*FPN, *MSRA]),
    "keypoint": (
        "keypoint_rcnn_r50_fpn",
        [*FPN, *MSRA, "mask_head.enabled=true", "keypoint_head.channels=16", "keypoint_head.keypoints=5"],
    ),
    "gn": (
        "mask_rcnn_r50_fpn",
        [
            *(*FPN, *NORMED, *FOUR_CONVS, "norm=gn", "pixel_std=[1,1,1]", "backbone.width=32", "neck.channels=32"),
            *("box_head.conv_channels=64", "mask_head.channels=32"),
        ],
    ),
    "dc5": ("mask_rcnn_r50_dc5", [*COMMON, *HEADS, *MSRA]),
    "resnext": (
        "mask_rcnn_x101_32x8d_fpn",
        [*FPN, "backbone.depth=50", "backbone.width=16", "backbone.groups=4", "backbone.width_per_group=16"],
    ),
    "regnetx": ("mask_rcnn_regnetx_4gf_fpn", FPN),
    "regnety": ("mask_rcnn_regnety_4gf_fpn", [*FPN, "backbone.width=16"]),
}
LOSSES = {
    "rpn_objectness": "rpn_cls",
    "rpn_box": "rpn_loc",
    "box_class": "cls",
    "box_regression": "box_reg",
    "mask": "mask",
    "keypoint": "keypoint",
}


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest, tmp_path: Path) -> SimpleNamespace:
    """The reference, the model with its weights, read from a file, and the batch that both were given."""
    with np.load(FOLDER / f"detectron2_{request.param}.npz") as file:
        numbers = {name: file[name] for name in file.files}
    shapes = [tuple(map(int, text.split())) for text in numbers["shapes"].tolist()]
    stored = {name.removeprefix("stored/"): value for name, value in numbers.items() if name.startswith("stored/")}
    state = rule.weights(dict(zip(numbers["names"].tolist(), shapes, strict=True)), stored, int(numbers["draw"]))
    path = tmp_path / "model.pth"
    torch.save({"model": {name: torch.from_numpy(np.asarray(value)) for name, value in state.items()}}, path)

    base, changes = NETWORKS[request.param]
    config = compose([f"model={base}", *(f"model.{change}" for change in changes)]).model
    model = build_detector(config, classes(base))
    load_into(model, path)
    return SimpleNamespace(numbers=numbers, model=model, batch=batch(classes(base), config.neck.kind))


def classes(base: str) -> int:
    return 1 if base.startswith("keypoint") else rule.CLASSES


def batch(num_classes: int, neck: str) -> Batch:
    examples = [rule.example(number) for number in range(2)]
    images = torch.zeros(2, 3, *padded_size(rule.SIZES, neck), dtype=torch.uint8)
    for i, (height, width) in enumerate(rule.SIZES):
        images[i, :, :height, :width] = torch.from_numpy(examples[i].picture).permute(2, 0, 1)
    boxes, labels, keypoints = (
        torch.from_numpy(np.stack([getattr(one, name) for one in examples]))
        for name in ("boxes", "labels", "keypoints")
    )
    return Batch(
        images,
        torch.tensor(rule.SIZES),
        torch.tensor(rule.ORIGINAL),
        boxes,
        labels.clamp(max=num_classes - 1),
        object(),  # type: ignore[arg-type]  # the mask target below has its own
        torch.tensor([1, 2]),
        [0, 1],
        0,
        keypoints,
    )


def sampled_target(_: object, boxes: Tensor, image: Tensor, instance: Tensor, size: int) -> Tensor:
    """Detectron2's mask target for bit masks: their RoIAlign, thresholded (`BitMasks.crop_and_resize`)."""
    full = torch.zeros(2, 5, *padded_size(rule.SIZES, "c4"))
    for i, (height, width) in enumerate(rule.SIZES):
        full[i, :, :height, :width] = torch.from_numpy(rule.example(i).masks).float()
    rois = torch.cat([torch.arange(len(boxes))[:, None].float(), boxes], 1)
    return (roi_align(full[image, instance][:, None], rois, size, 1.0, 0, True)[:, 0] >= 0.5).float()


def test_detections_agree(network: SimpleNamespace) -> None:
    for i, ours in enumerate(network.model.eval().detect(network.batch)):
        theirs = {
            name.split("/")[-1]: torch.from_numpy(value.astype(np.float32))
            for name, value in network.numbers.items()
            if name.startswith(f"found/{i}/")
        }
        assert ours.labels.tolist() == theirs["classes"].tolist()
        torch.testing.assert_close(ours.scores, theirs["scores"], rtol=0, atol=2e-4)
        torch.testing.assert_close(ours.boxes, theirs["boxes"], rtol=0, atol=5e-3)
        torch.testing.assert_close(ours.masks, theirs["masks"] / 65535, rtol=0, atol=1e-3)
        height, width = network.batch.original_sizes[i].tolist()
        areas = paste_masks(ours.masks, ours.boxes, height, width).sum((1, 2))
        assert (areas - theirs["areas"]).abs().max() <= 2  # a pixel may sit on the threshold
        if "keypoints" in theirs:
            torch.testing.assert_close(ours.keypoints[..., :2], theirs["keypoints"][..., :2], rtol=0, atol=5e-3)
            torch.testing.assert_close(ours.keypoints[..., 2], theirs["keypoints"][..., 2], rtol=0, atol=2e-4)


def test_losses_gradients_and_statistics_agree(network: SimpleNamespace) -> None:
    numbers, model = network.numbers, network.model
    model.train()
    model.mask_target = sampled_target
    losses = {name: term.sum / term.count for name, term in model(network.batch).items()}
    theirs = {name.removeprefix("loss/loss_"): float(v) for name, v in numbers.items() if name.startswith("loss/")}
    assert len(losses) == len(theirs)
    for ours, loss in losses.items():
        stem, _, stage = ours.rpartition("_") if ours[-1].isdigit() else (ours, "", "")
        name = LOSSES[stem] + (f"_stage{int(stage) - 1}" if stage else "")
        assert float(loss.detach()) == pytest.approx(theirs[name], rel=1e-4), ours

    torch.stack(list(losses.values())).sum().backward()
    gradients: dict[str, Any] = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    places = {name: next(iter(convert({name: torch.zeros(1)}, "RGB"))) for name in numbers["gradient/names"].tolist()}
    assert set(places.values()) == set(gradients)
    for name, norm in zip(places, numbers["gradient/norms"].tolist(), strict=True):
        # absolutely for those that are nothing but rounding
        assert float(gradients[places[name]].norm()) == pytest.approx(norm, rel=5e-3, abs=1e-6), name

    if "after/names" not in numbers:
        return
    state = model.state_dict()
    for i, name in enumerate(numbers["after/names"].tolist()):
        for part, kind in (("running_mean", "mean_norms"), ("running_var", "var_norms")):
            place = next(iter(convert({name + part: torch.zeros(1)}, "RGB")))
            assert float(state[place].norm()) == pytest.approx(float(numbers[f"after/{kind}"][i]), rel=1e-4), name
