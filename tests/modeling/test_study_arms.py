"""The small scale of the studies that come along: every arm's network learns from a step."""

from collections.abc import Callable
from dataclasses import asdict, replace

import torch

from mrbench.config.composer import Composer
from mrbench.config.identity import canonical_json
from mrbench.config.schema import ModelConfig
from mrbench.data.batch import Batch
from mrbench.modeling.build import build_network
from mrbench.study.ablation import load_study, study_names


def networks() -> dict[str, tuple[ModelConfig, list[str]]]:
    """Every distinct network of a small arm, with random weights, and the arms that have it."""
    composer = Composer()
    found: dict[str, tuple[ModelConfig, list[str]]] = {}
    for name in study_names():
        study = load_study(name).at_scale()
        for arm in study.arms:
            model = composer.compose([*study.base, *arm.overrides, "model.backbone.weights=null"]).model
            key = canonical_json(asdict(model) | {"inference": None})
            found.setdefault(key, (model, []))[1].append(f"{name}: {arm.name}")
    return found


def with_keypoints(batch: Batch, keypoints: int) -> Batch:
    """Along the diagonal of every box, all of them visible."""
    places = torch.linspace(0.1, 0.9, keypoints)[:, None]
    points = batch.boxes[:, :, None, :2] * (1 - places) + batch.boxes[:, :, None, 2:] * places
    return replace(batch, keypoints=torch.cat([points, torch.full_like(points[..., :1], 2.0)], -1))


def test_every_small_arms_network_learns_from_a_step(paint: Callable[..., Batch]) -> None:
    painted = paint(side=64, instances=3)
    batch = with_keypoints(painted, 17)
    found = networks()
    for model, arms in found.values():
        torch.manual_seed(0)
        net = build_network(model, 4).train()
        before = {name: value.detach().clone() for name, value in net.named_parameters() if value.requires_grad}
        terms = net(batch if model.keypoint_head.enabled else painted)
        loss = torch.stack([term.sum / term.count.clamp(min=1) for term in terms.values()]).sum()
        loss.backward()
        torch.optim.SGD(net.parameters(), lr=1e-3).step()
        assert bool(torch.isfinite(loss)), arms
        moved = {name.partition(".")[0] for name, value in net.named_parameters() if not value.equal(before[name])}
        assert moved == {name.partition(".")[0] for name in before}, arms
        assert ("mask" in terms, "keypoint" in terms) == (model.mask_head.enabled, model.keypoint_head.enabled), arms
    assert len(found) > 25
