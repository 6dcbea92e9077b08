"""Initial weights of the body: torchvision's ImageNet weights, or a file of any project's (docs/weights.md)."""

import re
from pathlib import Path

from torchvision.models import get_weight

from mrbench.config.schema import BackboneConfig, ModelConfig
from mrbench.errors import UserError
from mrbench.modeling.body import Body
from mrbench.modeling.load import stride_of
from mrbench.weights import torchvision
from mrbench.weights.files import WeightFile, inspect
from mrbench.weights.fill import Loaded, contradictions, fill
from mrbench.weights.layout import Translated

# by depth, groups and channels a group
IMAGENET = {(depth, 1, 64): f"ResNet{depth}_Weights.IMAGENET1K_V1" for depth in (18, 34, 50, 101, 152)}
IMAGENET |= {
    (50, 32, 4): "ResNeXt50_32X4D_Weights.IMAGENET1K_V1",
    (101, 32, 8): "ResNeXt101_32X8D_Weights.IMAGENET1K_V1",
    (101, 64, 4): "ResNeXt101_64X4D_Weights.IMAGENET1K_V1",
}
ADDED = re.compile(r"\.(non_local\d+|offset)\.")  # parts that a trained body is given, and that begin as nothing


def load_backbone(body: Body, config: ModelConfig) -> Loaded:
    """Fill `body` from `config.backbone.weights`: "imagenet" or a file, which may lack non-local blocks and the
    offsets of deformable convolutions.

    Raises UserError, naming what does not fit, and where pixel mean, deviation or the place of the stride are not as
    the weights were trained, unless `config.weights_mismatch` is tell.
    """
    weights = config.backbone.weights
    assert weights is not None
    file = _imagenet(config.backbone) if weights == "imagenet" else inspect(Path(weights))
    whole = file.translated()
    found = Translated(unplaced=whole.unplaced)
    for name, tensor in whole.tensors.items():
        if name.startswith("backbone."):
            found.tensors[name.removeprefix("backbone.")] = tensor
        else:
            found.unplaced.append(name)
    has = {"model.pixel_mean": list(config.pixel_mean), "model.pixel_std": list(config.pixel_std), **stride_of(body)}
    contradicted = contradictions(has, file.settings)
    partial = config.weights_mismatch == "tell"
    return fill(body, file, found, contradicted, partial, lambda name: ADDED.search(name) is not None)


def _imagenet(config: BackboneConfig) -> WeightFile:
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
        tensors = dict(get_weight(name).get_state_dict(progress=True))
    except (OSError, RuntimeError) as error:
        raise UserError(
            f"The ImageNet weights {name} could not be fetched: {error}",
            "Connect this machine, put the file into torch hub's cache, or give model.backbone.weights=FILE.",
        ) from error
    layout = torchvision.CLASSIFIER
    return WeightFile(Path(name), "torch", layout, tensors, layout.settings(tensors), None)
