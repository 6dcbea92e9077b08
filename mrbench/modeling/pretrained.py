"""Initial weights of the body: torchvision's ImageNet weights, or a file with torchvision's ResNet names."""

from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_weight

from mrbench.config.schema import BackboneConfig
from mrbench.errors import UserError
from mrbench.modeling.resnet import ResNet

IMAGENET = {depth: f"ResNet{depth}_Weights.IMAGENET1K_V1" for depth in (18, 34, 50, 101)}


def load_backbone(body: ResNet, config: BackboneConfig) -> None:
    """Fill `body` from `config.weights`: "imagenet" or a file. Raises UserError, naming what does not fit."""
    assert config.weights is not None
    given = _imagenet(config.depth) if config.weights == "imagenet" else _read(Path(config.weights))
    given = {name: value for name, value in given.items() if not name.startswith("fc.")}
    own = body.state_dict()
    # how many batches a norm has seen does not matter to what it puts out, and frozen ones do not count
    own_names = {name for name in own if not name.endswith("num_batches_tracked")}
    given_names = {name for name in given if not name.endswith("num_batches_tracked")}
    shapes = [
        f"{name} is {tuple(given[name].shape)}, needs {tuple(own[name].shape)}"
        for name in sorted(own_names & given_names)
        if given[name].shape != own[name].shape
    ]
    problems = _some("missing", sorted(own_names - given_names))
    problems += _some("not in the network", sorted(given_names - own_names)) + _some("of another shape", shapes)
    if problems:
        raise UserError(
            f"model.backbone.weights={config.weights} does not fit the body: {'; '.join(problems)}.",
            "Check model.backbone.depth, width, stem and norm, or start from model.backbone.weights=null.",
        )
    body.load_state_dict({name: given[name] for name in own_names}, strict=False)


def _some(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]


def _imagenet(depth: int) -> dict[str, Tensor]:
    if depth not in IMAGENET:
        raise UserError(
            f"There are no ImageNet weights for model.backbone.depth={depth}.",
            f"Depths with weights: {', '.join(map(str, IMAGENET))}; or set model.backbone.weights=null.",
        )
    try:
        return dict(get_weight(IMAGENET[depth]).get_state_dict(progress=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The ImageNet weights {IMAGENET[depth]} could not be fetched: {error}",
            "Connect this machine, put the file into torch hub's cache, or give model.backbone.weights=FILE.",
        ) from error


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise UserError(f"model.backbone.weights: there is no file {path}.", 'Give a file, or "imagenet".')
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(
            f"model.backbone.weights: {path} is not a file of plain tensors: {error}",
            "Save it with torch.save(model.state_dict(), path).",
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(
            f"model.backbone.weights: {path} does not hold a dictionary of tensors.",
            "Save it with torch.save(model.state_dict(), path).",
        )
    return content
