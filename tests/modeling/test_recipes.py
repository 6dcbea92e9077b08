"""The networks of all recipes: their parameters against the headers and published counts, and a step of training."""

import dataclasses
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn
from torchvision.models import detection

from mrbench.config.composer import compose
from mrbench.config.identity import canonical_json
from mrbench.config.recipes import ParameterCount, find_recipe, recipes
from mrbench.config.schema import ModelConfig, RunConfig
from mrbench.data.batch import Batch
from mrbench.modeling.build import build_network

CLASSES = {"coco_keypoints_2017": 1, "cityscapes": 8}
RANDOM = ["model.weights=null", "model.backbone.weights=null"]


@cache
def composed() -> dict[str, RunConfig]:
    return {recipe.name: compose([f"recipe={recipe.name}", *RANDOM]) for recipe in recipes()}


def distinct(change: Callable[[ModelConfig], ModelConfig]) -> list[tuple[ModelConfig, list[str]]]:
    """Every distinct network of the recipes after `change`, and the recipes that have it."""
    found: dict[str, tuple[ModelConfig, list[str]]] = {}
    for name, config in composed().items():
        model = change(config.model)
        plain = dataclasses.asdict(model) | {"inference": None, "name": None}
        key = f"{CLASSES.get(str(config.data.name))} {canonical_json(plain)}"
        found.setdefault(key, (model, []))[1].append(name)
    return list(found.values())


def narrow(model: ModelConfig) -> ModelConfig:
    """With an eighth of the channels (a quarter in a RegNet), and as few regions as a small picture needs."""
    body, width = model.backbone, 8 if model.backbone.kind == "resnet" else 16
    return replace(
        model,
        group_size=4,
        backbone=replace(body, width=width, width_per_group=max(body.width_per_group, 64 // width)),
        neck=replace(model.neck, channels=16),
        rpn=replace(model.rpn, samples=32, pre_nms_train=60, post_nms_train=20),
        roi=replace(model.roi, samples=16),
        box_head=replace(model.box_head, fc_channels=16, conv_channels=16),
        mask_head=replace(model.mask_head, channels=16, fc_channels=16),
        keypoint_head=replace(model.keypoint_head, channels=16),
    )


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def count(model: ModelConfig, classes: int) -> ParameterCount:
    with torch.device("meta"):
        net = build_network(model, classes)
    return ParameterCount(parameters(net), sum(p.numel() for p in net.parameters() if p.requires_grad), classes)


def test_every_recipe_has_the_parameters_of_its_header() -> None:
    for model, names in distinct(lambda model: model):
        told = [find_recipe(name).parameters for name in names]
        assert told[0] is not None
        found = count(model, told[0].classes)
        assert told == [found] * len(told), names


def test_detectron2s_published_counts() -> None:
    assert find_recipe("mask_rcnn_r50_fpn_1x").parameters == ParameterCount(44_343_216, 44_120_816, 80)
    model = compose(["recipe=lsj_r50_fpn_100ep"]).model
    with torch.device("meta"):
        net = build_network(model, 80)
    parts = (net, net.backbone, net.rpn, net.mask_head)
    assert [parameters(part) for part in parts] == [46_301_232, 23_508_032, 1_184_015, 2_644_304]
    # without its two predictors, of 81 classes and 80 boxes
    assert parameters(net.box_head) - 1025 * (81 + 4 * 80) == 15_207_424


@pytest.mark.parametrize(
    "recipe,changes,weights",
    [
        ("mask_rcnn_r50_fpn_1x", [], detection.MaskRCNN_ResNet50_FPN_Weights),
        ("lsj_r50_fpn_100ep", ["model.norm=bn"], detection.MaskRCNN_ResNet50_FPN_V2_Weights),
        ("mask_rcnn_r50_fpn_1x", ["model.mask_head.enabled=false"], detection.FasterRCNN_ResNet50_FPN_Weights),
        ("lsj_r50_fpn_100ep", ["model.mask_head.enabled=false"], detection.FasterRCNN_ResNet50_FPN_V2_Weights),
        ("keypoint_rcnn_r50_fpn_1x", [], detection.KeypointRCNN_ResNet50_FPN_Weights),
    ],
)
def test_torchvisions_documented_counts(recipe: str, changes: list[str], weights: type) -> None:
    # torchvision's classes count the background, for which it predicts a box as well, and a mask
    meta = weights.DEFAULT.meta  # type: ignore[attr-defined]
    classes = len(meta["categories"]) - 1
    model = compose([f"recipe={recipe}", *RANDOM, *changes]).model
    of_background = 4 * 1025 + (257 if model.mask_head.enabled else 0)
    assert count(model, classes).total + of_background == meta["num_params"]


def batch_for(model: ModelConfig, batch: Batch) -> Batch:
    """With what the model's branches learn from: keypoints along every box, the boxes as proposals."""
    if model.keypoint_head.enabled:
        places = torch.linspace(0.1, 0.9, model.keypoint_head.keypoints)[:, None]
        points = batch.boxes[:, :, None, :2] * (1 - places) + batch.boxes[:, :, None, 2:] * places
        batch = replace(batch, keypoints=torch.cat([points, torch.full_like(points[..., :1], 2.0)], -1))
    if model.rpn.mode == "precomputed":
        scores = torch.where(batch.labels >= 0, 0.0, -torch.inf)[..., None]
        batch = replace(batch, proposals=torch.cat([batch.boxes, scores], -1))
    return batch


def test_a_narrow_copy_of_every_network_learns_from_a_step(paint: Callable[..., Batch]) -> None:
    painted = paint(side=64, instances=3)
    found = distinct(narrow)
    for model, names in found:
        torch.manual_seed(0)
        net = build_network(model, 4).train()
        batch = batch_for(model, painted)
        before = {name: value.detach().clone() for name, value in net.named_parameters() if value.requires_grad}
        terms = net(batch)
        loss = torch.stack([term.sum / term.count.clamp(min=1) for term in terms.values()]).sum()
        loss.backward()
        torch.optim.SGD(net.parameters(), lr=1e-3).step()
        assert bool(torch.isfinite(loss)), names
        assert bool(torch.stack([p.isfinite().all() for p in net.parameters()]).all()), names
        moved = {name for name, value in net.named_parameters() if name in before and not value.equal(before[name])}
        parts = {name.partition(".")[0] for name in before}
        assert {name.partition(".")[0] for name in moved} == parts, names
        wanted = {
            "rpn_box": model.rpn.mode != "precomputed",
            "mask": model.mask_head.enabled and model.rpn.mode != "only",
            "keypoint": model.keypoint_head.enabled and model.rpn.mode != "only",
        }
        assert {key: key in terms for key in wanted} == wanted, names
    assert len(found) > 30
