"""Initial weights of the body: torchvision's ImageNet weights, or a file with torchvision's ResNet names."""

import re
from pathlib import Path

import torch
from torch import Tensor
from torchvision.models import get_weight

from mrbench.config.schema import BackboneConfig
from mrbench.errors import UserError
from mrbench.modeling.body import Body

# by depth, groups and channels a group
IMAGENET = {(depth, 1, 64): f"ResNet{depth}_Weights.IMAGENET1K_V1" for depth in (18, 34, 50, 101, 152)}
IMAGENET |= {
    (50, 32, 4): "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
    (101, 32, 8): "ResNeXt101_32X8D_Weights.IMAGENET1K_V1",
    (101, 64, 4): "ResNeXt101_64X4D_Weights.IMAGENET1K_V1",
}
ADDED = re.compile(r"\.(non_local\d+|offset)\.")  # parts that a trained body is given, and that begin as nothing


def load_backbone(body: Body, config: BackboneConfig) -> None:
    """Fill `body` from `config.weights`: "imagenet" or a file, which may lack non-local blocks and the offsets
    of deformable convolutions. Raises UserError, naming what does not fit."""
    assert config.weights is not None
    given = _imagenet(config) if config.weights == "imagenet" else _read(Path(config.weights))
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
    problems = _some("missing", sorted(name for name in own_names - given_names if not ADDED.search(name)))
    problems += _some("not in the network", sorted(given_names - own_names)) + _some("of another shape", shapes)
    if problems:
        raise UserError(
            f"model.backbone.weights={config.weights} does not fit the body: {'; '.join(problems)}.",
            "Check model.backbone.depth, width, stem and norm, or start from model.backbone.weights=null.",
        )
    body.load_state_dict({name: given[name] for name in own_names & given_names}, strict=False)


def _some(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return [f"{what}: {', '.join(names[:3])}{more}"]


def _imagenet(config: BackboneConfig) -> dict[str, Tensor]:
    name = IMAGENET.get((config.depth, config.groups, config.width_per_group)) if config.kind == "resnet" else None
    if name is None:
        asked = f"depth={config.depth}" if config.kind == "resnet" else f"kind={config.kind}"
        if config.groups != 1:
            asked += f", groups={config.groups}, width_per_group={config.width_per_group}"
        raise UserError(
            f"There are no ImageNet weights for model.backbone.{asked}.",
            "There are some for depth 18, 34, 50, 101 and 152, and ResNeXt 101-32x8d, 101-64x4d and 50-32x4d; "
            "or set model.backbone.weights=null.",
        )
    try:
        return dict(get_weight(name).get_state_dict(progress=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The ImageNet weights {name} could not be fetched: {error}",
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
