"""Predictors of a model with other categories are carried over by name; Cityscapes from COCO is the case."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from mrbench.config.schema import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, NeckConfig
from mrbench.engine.checkpoint import load_model_weights, save_weights
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN
from mrbench.weights.categories import COCO
from mrbench.weights.export import export_detectron2, export_safetensors
from mrbench.weights.files import inspect

CITYSCAPES = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
# COCO's own numbers of the shared ones, as in its annotation files
NUMBERS = {"person": 1, "bicycle": 2, "car": 3, "motorcycle": 4, "bus": 6, "train": 7, "truck": 8}


def network(classes: int, seed: int, **changes: object) -> MaskRCNN:
    torch.manual_seed(seed)
    config = ModelConfig(
        pixel_std=[1.0, 1.0, 1.0],
        backbone=BackboneConfig(depth=18, width=8, stride_in_1x1=True),
        neck=NeckConfig(channels=8),
        box_head=BoxHeadConfig(fc_channels=8),
        mask_head=MaskHeadConfig(channels=8, convs=1),
    )
    for key, value in changes.items():
        part, _, name = key.partition("__")
        setattr(getattr(config, part), name, value)
    return build_detector(config, classes)


@torch.no_grad()
def number_rows(model: MaskRCNN) -> None:
    """Every class's row holds its number from 1 on, and the background's 0."""
    numbers = torch.arange(1.0, model.num_classes + 1)
    state = model.state_dict()
    for kind in ("weight", "bias"):
        rows = state[f"box_head.classes.{kind}"]
        rows.copy_(torch.cat([numbers, torch.zeros(1)]).view(-1, *([1] * (rows.dim() - 1))).expand_as(rows))
        rows = state[f"box_head.deltas.{kind}"]
        rows.copy_(numbers.repeat_interleave(4).view(-1, *([1] * (rows.dim() - 1))).expand_as(rows))
        rows = state[f"mask_head.predictor.{kind}"]
        rows[: len(numbers)] = numbers.view(-1, *([1] * (rows.dim() - 1))).expand_as(rows[: len(numbers)])


def test_cityscapes_takes_seven_classes_of_coco_and_rider_stays_random(tmp_path: Path) -> None:
    source = network(80, seed=1)
    number_rows(source)
    export_detectron2(source.state_dict(), tmp_path / "coco.pkl")
    target = network(8, seed=2)
    before = {name: value.clone() for name, value in target.state_dict().items()}
    loaded = load_model_weights(tmp_path / "coco.pkl", target, "refuse", CITYSCAPES)
    lines = loaded.lines()
    assert "carried over by name: person, car, truck, bus, train, motorcycle, bicycle" in lines
    assert "not initialised: rider" in lines
    after = target.state_dict()
    for row, name in enumerate(CITYSCAPES):
        # the first nine of COCO's numbers have no gap: the number is the row, counted from 1
        for tensor, part in (
            ("box_head.classes.weight", slice(row, row + 1)),
            ("box_head.deltas.weight", slice(4 * row, 4 * row + 4)),
            ("mask_head.predictor.bias", slice(row, row + 1)),
        ):
            if name == "rider":
                assert torch.equal(after[tensor][part], before[tensor][part])
            else:
                assert (after[tensor][part] == NUMBERS[name]).all()
    assert (after["box_head.classes.bias"][8] == 0).all()  # the background
    assert torch.equal(after["box_head.fcs.0.weight"], source.state_dict()["box_head.fcs.0.weight"])


def test_a_runs_weights_and_their_export_know_their_categories(tmp_path: Path) -> None:
    source, target = network(3, seed=1), network(2, seed=2)
    number_rows(source)
    path = save_weights(tmp_path, source, 7, ["disc", "square", "Star"])
    assert inspect(path).categories == ["disc", "square", "Star"]
    file = inspect(path)
    export_safetensors(file.tensors, {}, tmp_path / "m.safetensors", file.categories)
    with safe_open(tmp_path / "m.safetensors", framework="pt") as written:
        assert json.loads(written.metadata()["categories"]) == ["disc", "square", "Star"]
    for weights in (path, tmp_path / "m.safetensors"):
        load_model_weights(weights, target, "refuse", ["star", "disc"])
        assert target.box_head.classes.bias.tolist() == [3, 1, 0]
        assert target.box_head.deltas.bias.tolist() == [3] * 4 + [1] * 4


def test_torchvisions_ninety_numbers_go_by_name(tmp_path: Path) -> None:
    """Of its classes 13 is "stop sign" and 90 "toothbrush"; 12 is no category (torchvision, models/_meta.py)."""
    source, target = network(90, seed=1), network(2, seed=2)
    number_rows(source)
    file = inspect(save_weights(tmp_path, source, 1))
    theirs = {"backbone.body.conv1.weight": file.tensors["backbone.conv1.weight"]}
    for ours, name in (("classes", "cls_score"), ("deltas", "bbox_pred")):
        for kind in ("weight", "bias"):
            rows = file.tensors[f"box_head.{ours}.{kind}"]
            rows = rows.roll(1, 0) if ours == "classes" else torch.cat([torch.zeros_like(rows[:4]), rows])
            theirs[f"roi_heads.box_predictor.{name}.{kind}"] = rows
    torch.save(theirs, tmp_path / "m.pth")
    load_model_weights(tmp_path / "m.pth", target, "tell", ["toothbrush", "stop sign"])
    assert target.box_head.classes.bias.tolist() == [90, 13, 0]
    assert target.box_head.deltas.bias.tolist() == [90] * 4 + [13] * 4


@pytest.mark.parametrize(
    "changes",
    [
        {"box_head__class_agnostic": True, "mask_head__class_agnostic": True},
        {"mask_head__loss": "softmax"},
        {"mask_head__kind": "mlp", "mask_head__fc_channels": 8},
        {"box_head__class_agnostic": True, "box_head__cascade": [0.5, 0.6, 0.7]},
    ],
    ids=["agnostic", "softmax", "mlp", "cascade"],
)
def test_classes_in_another_order_give_the_same_answers_in_that_order(
    changes: dict[str, object], tmp_path: Path
) -> None:
    names = ["a", "b", "c"]
    source, target = network(3, seed=1, **changes).eval(), network(3, seed=2, **changes).eval()
    order = [2, 0, 1]
    load_model_weights(save_weights(tmp_path, source, 1, names), target, "refuse", [names[i] for i in order])
    pooled, boxes = torch.randn(4, 8, 14, 14), torch.tensor([[8.0, 8, 60, 60]] * 4)
    features = [torch.randn(1, 8, 32 // 2**i, 32 // 2**i) for i in range(5)]
    image, sizes = torch.zeros(4, dtype=torch.int64), torch.tensor([[128, 128]])
    with torch.no_grad():
        ours, theirs = (m._scored(features, boxes, image, sizes) for m in (target, source))
        torch.testing.assert_close(ours[0], theirs[0][:, [*order, 3]])
        labels = torch.tensor([0, 1, 2, 0])
        was = torch.tensor(order)[labels]
        assert target.mask_head is not None
        assert source.mask_head is not None
        found = target.mask_head.masks.probabilities(target.mask_head(pooled, labels), labels)
        wanted = source.mask_head.masks.probabilities(source.mask_head(pooled, was), was)
        torch.testing.assert_close(found, wanted)


def test_unknown_or_foreign_categories_are_refused(tmp_path: Path) -> None:
    path = save_weights(tmp_path, network(3, seed=1), 1, ["a", "b", "c"])
    with pytest.raises(UserError, match="share no category"):
        load_model_weights(path, network(2, seed=2), "refuse", ["x", "y"])
    export_detectron2(network(3, seed=1).state_dict(), tmp_path / "m.pkl")
    with pytest.raises(UserError, match="does not say the names of its 3 classes"):
        load_model_weights(tmp_path / "m.pkl", network(2, seed=2), "refuse", ["a", "b"])


def test_cocos_names_are_those_of_its_annotations(shared: Path) -> None:
    listed = json.loads(next((shared / "data/coco-mini").rglob("instances*.json")).read_text())["categories"]
    wanted = [category["name"] for category in sorted(listed, key=lambda category: category["id"])]
    assert wanted == [name for name in COCO if name in wanted]
    assert len(COCO) == len(set(COCO)) == 80
    assert np.array_equal(wanted, COCO) or len(wanted) < 80
