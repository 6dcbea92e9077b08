"""Weights of any format into a network, with everything that does not fit named."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from mrbench.modeling.cascade import CascadeHead
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.proposal_network import ProposalNetwork
from mrbench.modeling.trunk import Trunk
from mrbench.weights import torchvision
from mrbench.weights.categories import ClassWise, carry_over
from mrbench.weights.files import inspect
from mrbench.weights.fill import Loaded, contradictions, fill
from mrbench.weights.layout import Settings


def load_into(
    model: nn.Module, path: Path, allow_partial: bool = False, categories: Sequence[str] | None = None
) -> Loaded:
    """Fill `model` from a file of any format that `inspect` reads.

    With `categories`, the names of the model's classes, those of the file may be others: see
    `mrbench.weights.categories.carry_over`.

    Raises UserError, naming them, where weights are missing, left over or of another shape, and where the model is
    set otherwise than the format implies, with the overrides to add. With `allow_partial` what fits is loaded, the
    rest stays as it is, and `Loaded` tells.
    """
    file = inspect(path)
    found = file.translated()
    carried = None
    if isinstance(model, MaskRCNN) and categories is not None:
        own = model.state_dict()
        carried = carry_over(file, found.tensors, own, class_wise(model, own), categories)
    elif isinstance(model, MaskRCNN) and file.layout is torchvision.LAYOUT:
        torchvision.coco_classes(found.tensors, model.num_classes)
    loaded = fill(model, file, found, contradictions(settings_of(model), file.settings), allow_partial)
    loaded.carried = carried
    return loaded


def class_wise(model: MaskRCNN, own: Mapping[str, Tensor]) -> list[ClassWise]:
    """Which of the model's tensors, `own`, have rows for each class."""
    heads = ["box_head"]
    if isinstance(model.box_head, CascadeHead):
        heads = [f"box_head.stages.{k}" for k in range(len(model.box_head.stages))]
    found = []
    for kind in ("weight", "bias"):
        for head in heads:
            found.append(ClassWise(f"{head}.classes.{kind}", 1, True))
            if not model.get_submodule(head).class_agnostic:
                found.append(ClassWise(f"{head}.deltas.{kind}", 4, False))
        masks = model.mask_head.masks if model.mask_head is not None else None
        name = f"mask_head.predictor.{kind}"
        if masks is not None and masks.classes == model.num_classes:
            rows = len(own[name]) // masks.channels
            found.append(ClassWise(name, rows, masks.channels > masks.classes))
    return found


def settings_of(model: nn.Module) -> Settings:
    """What of a model's configuration changes its answers and cannot be told from its weights' names and shapes."""
    if not isinstance(model, Trunk):
        return {}
    settings: Settings = {
        "model.pixel_mean": model.pixel_mean.flatten().tolist(),
        "model.pixel_std": model.pixel_std.flatten().tolist(),
    }
    if isinstance(model, MaskRCNN | ProposalNetwork) and model.rpn is not None:
        settings["model.rpn.anchor_rounding"] = model.rpn.config.anchor_rounding
        settings["model.rpn.anchor_offset"] = model.rpn.config.anchor_offset
    if isinstance(model, MaskRCNN):
        settings["model.pooler.inclusive"] = model.box_pooler.config.inclusive
        settings["model.pooler.aligned"] = model.box_pooler.config.aligned
        settings["model.pooler.sampling_ratio"] = model.box_pooler.config.sampling_ratio
    return settings | stride_of(model.backbone)


def stride_of(body: nn.Module) -> Settings:
    """Where a body's bottlenecks have their stride; nothing of other blocks, which have no choice."""
    block = dict(body.named_modules()).get("layer2.0")
    return {"model.backbone.stride_in_1x1": block.conv1.stride[0] == 2} if isinstance(block, Bottleneck) else {}
