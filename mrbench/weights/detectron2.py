"""Detectron2's names of an R-CNN with FPN (ResNet body), turned into ours."""

import re
from collections.abc import Mapping

from torch import Tensor

from mrbench.errors import UserError

# Detectron2's name -> ours; numbers in braces are moved by the given amount.
_RULES: list[tuple[str, str, int]] = [
    (r"backbone\.bottom_up\.stem\.conv1", "backbone.conv1", 0),
    (r"backbone\.bottom_up\.res{}\.(\d+)\.conv(\d)", r"backbone.layer{}.\2.conv\3", -1),
    (r"backbone\.bottom_up\.res{}\.(\d+)\.shortcut", r"backbone.layer{}.\2.downsample.0", -1),
    (r"backbone\.fpn_lateral{}", "neck.inner_blocks.{}.0", -2),
    (r"backbone\.fpn_output{}", "neck.layer_blocks.{}.0", -2),
    (r"proposal_generator\.rpn_head\.conv", "rpn.head.convs.0", 0),
    (r"proposal_generator\.rpn_head\.conv\.conv{}", "rpn.head.convs.{}", 0),
    (r"proposal_generator\.rpn_head\.objectness_logits", "rpn.head.objectness", 0),
    (r"proposal_generator\.rpn_head\.anchor_deltas", "rpn.head.deltas", 0),
    (r"roi_heads\.box_head\.conv{}", "box_head.convs.{}", -1),
    (r"roi_heads\.box_head\.fc{}", "box_head.fcs.{}", -1),
    (r"roi_heads\.box_predictor\.cls_score", "box_head.classes", 0),
    (r"roi_heads\.box_predictor\.bbox_pred", "box_head.deltas", 0),
    (r"roi_heads\.mask_head\.mask_fcn{}", "mask_head.convs.{}", -1),
    (r"roi_heads\.mask_head\.deconv", "mask_head.upsample", 0),
    (r"roi_heads\.mask_head\.predictor", "mask_head.predictor", 0),
]
_STATISTIC = r"(?P<norm>\.norm)?\.(?P<tensor>weight|bias|running_mean|running_var|num_batches_tracked)"
_PATTERNS = [(re.compile(r.replace("{}", r"(\d+)") + _STATISTIC), ours, by) for r, ours, by in _RULES]
# Constants that our configuration holds.
_SKIPPED = re.compile(r"pixel_mean|pixel_std|proposal_generator\.anchor_generator\..*")


def convert(state: Mapping[str, Tensor], pixel_order: str = "BGR") -> dict[str, Tensor]:
    """A Detectron2 state dict in our names, for `MaskRCNN.load_state_dict`.

    Classes are in the same order, the background last in both. With `pixel_order` "BGR" (Detectron2's default,
    INPUT.FORMAT) the first convolution's input channels are turned round, because our pictures are RGB; the
    configuration's pixel mean and deviation are to be given in RGB as well. Raises UserError, naming every tensor
    that has no place.
    """
    ours, unknown = {}, []
    for name, tensor in state.items():
        if _SKIPPED.fullmatch(name):
            continue
        place = _place(name)
        if place is None:
            unknown.append(name)
        else:
            ours[place] = tensor
    if unknown:
        raise UserError(
            f"Not a Detectron2 R-CNN with FPN on a ResNet: no place for {', '.join(unknown[:5])}"
            + (f" and {len(unknown) - 5} more." if len(unknown) > 5 else "."),
            "Models with FPN, a ResNet body and box or mask heads can be read.",
        )
    if pixel_order == "BGR" and "backbone.conv1.weight" in ours:
        ours["backbone.conv1.weight"] = ours["backbone.conv1.weight"].flip(1)
    return ours


def _place(name: str) -> str | None:
    for pattern, target, by in _PATTERNS:
        found = pattern.fullmatch(name)
        if found is None:
            continue
        if "{}" in target:
            number = int(found[1]) + by
            if target.startswith(("box_head.convs", "mask_head.convs")):
                number *= 3  # convolution, norm and ReLU stand in one sequence
            target = target.replace("{}", str(number))
        for group, text in enumerate(found.groups(), 1):
            target = target.replace(f"\\{group}", text or "")
        return f"{_norm_of(target) if found['norm'] else target}.{found['tensor']}"
    return None


def _norm_of(convolution: str) -> str:
    """The name of the norm that follows a convolution: bn2 after conv2, 1 after 0 in a sequence."""
    head, _, last = convolution.rpartition(".")
    if last.startswith("conv"):
        return f"{head}.bn{last.removeprefix('conv')}"
    return f"{head}.{int(last) + 1}"
