"""torchvision's own Mask R-CNN beside ours: the same architecture, weights, inputs, targets and proposals."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.ops import FeaturePyramidNetwork, FrozenBatchNorm2d, MultiScaleRoIAlign

from mrbench.config.schema import ModelConfig, RunConfig
from mrbench.data.batch import Batch, MaskWindows
from mrbench.engine.optimizer import build_optimizer, set_learning_rate, update
from mrbench.engine.precision import autocast, build_scaler
from mrbench.engine.schedule import factor
from mrbench.modeling.detector import MaskRCNN
from mrbench.weights.torchvision import NAMES

BLOCKS: dict[int, tuple[type[BasicBlock | Bottleneck], list[int]]] = {
    18: (BasicBlock, [2, 2, 2, 2]),
    34: (BasicBlock, [3, 4, 6, 3]),
    50: (Bottleneck, [3, 4, 6, 3]),
    101: (Bottleneck, [3, 4, 23, 3]),
    152: (Bottleneck, [3, 8, 36, 3]),
}
NORMS: dict[str, Callable[..., nn.Module]] = {"frozen_bn": FrozenBatchNorm2d, "bn": nn.BatchNorm2d}
LEVELS = 4


@dataclass
class PeerStep:
    """One step of the other implementation, and at the end what its steps did."""

    step: Callable[[], object]
    facts: Callable[[], dict[str, Any]]


def build_peer(config: ModelConfig, classes: int) -> TorchvisionMaskRCNN:
    """torchvision's network of the same architecture, with weights of its own. Pictures come at the network's size.
    `check_peer` tells whether there is one."""
    body, neck, rpn, roi, box = config.backbone, config.neck, config.rpn, config.roi, config.box_head
    kind, blocks = BLOCKS[body.depth]
    resnet = ResNet(
        kind, blocks, groups=body.groups, width_per_group=body.width_per_group, norm_layer=NORMS[body.norm]
    )
    channels = [64 * 2**k * kind.expansion for k in range(LEVELS)]
    layers = {f"layer{k + 1}": str(k) for k in range(LEVELS)}
    backbone = BackboneWithFPN(resnet, layers, channels, neck.channels)
    if neck.last_level == "none":
        backbone.fpn = FeaturePyramidNetwork(channels, neck.channels)
    anchors = AnchorGenerator(
        tuple((float(size),) for size in rpn.anchor_sizes), (tuple(rpn.anchor_ratios),) * len(rpn.anchor_sizes)
    )

    def pooler(size: int) -> MultiScaleRoIAlign:
        return MultiScaleRoIAlign(
            [str(k) for k in range(LEVELS)],
            size,
            config.pooler.sampling_ratio,
            canonical_scale=int(config.pooler.canonical_size),
            canonical_level=config.pooler.canonical_level,
        )

    mask = config.mask_head
    net = TorchvisionMaskRCNN(
        backbone,
        image_mean=[value / 255 for value in config.pixel_mean],
        image_std=[value / 255 for value in config.pixel_std],
        rpn_anchor_generator=anchors,
        rpn_head=RPNHead(neck.channels, len(rpn.anchor_ratios), rpn.convs),
        rpn_pre_nms_top_n_train=rpn.pre_nms_train,
        rpn_pre_nms_top_n_test=rpn.pre_nms_test,
        rpn_post_nms_top_n_train=rpn.post_nms_train,
        rpn_post_nms_top_n_test=rpn.post_nms_test,
        rpn_nms_thresh=rpn.nms_threshold,
        rpn_fg_iou_thresh=rpn.foreground_iou,
        rpn_bg_iou_thresh=rpn.background_iou,
        rpn_batch_size_per_image=rpn.samples,
        rpn_positive_fraction=rpn.positive_fraction,
        box_roi_pool=pooler(config.pooler.box_size),
        box_head=TwoMLPHead(neck.channels * config.pooler.box_size**2, box.fc_channels),
        box_predictor=FastRCNNPredictor(box.fc_channels, classes + 1),
        box_score_thresh=config.inference.score_threshold,
        box_nms_thresh=config.inference.nms_threshold,
        box_detections_per_img=config.inference.detections_per_image,
        box_fg_iou_thresh=roi.foreground_iou,
        box_bg_iou_thresh=roi.foreground_iou,
        box_batch_size_per_image=roi.samples,
        box_positive_fraction=roi.positive_fraction,
        bbox_reg_weights=tuple(roi.box_weights),
        mask_roi_pool=pooler(config.pooler.mask_size),
        mask_head=MaskRCNNHeads(neck.channels, [mask.channels] * mask.convs, 1),
        mask_predictor=MaskRCNNPredictor(mask.channels if mask.convs else neck.channels, mask.channels, classes + 1),
    )
    net.transform.resize = lambda image, target: (image, target)
    return net


@torch.no_grad()
def take_weights(peer: nn.Module, ours: nn.Module) -> None:
    """Give torchvision's network the weights of ours, with background first, and let it train the same ones."""
    state = ours.state_dict()
    trained = {name: parameter.requires_grad for name, parameter in ours.named_parameters()}
    parameters = dict(peer.named_parameters())
    for name, target in peer.state_dict().items():
        place = NAMES.ours(name)
        if place is None or place not in state:
            raise ValueError(f"torchvision's {name} has no counterpart")
        target.copy_(_background_first(place, state[place]))
        if name in parameters:
            parameters[name].requires_grad_(trained[place])


def _background_first(name: str, value: Tensor) -> Tensor:
    if name.startswith("box_head.classes."):
        return torch.cat([value[-1:], value[:-1]])
    if name.startswith("box_head.deltas."):
        return torch.cat([value.new_zeros(4, *value.shape[1:]), value])
    if name.startswith("mask_head.predictor."):
        return torch.cat([value.new_zeros(1, *value.shape[1:]), value])
    return value


def pictures(batch: Batch) -> list[Tensor]:
    """Float [3, h, w] in 0..1 each, without padding, as torchvision's models take them."""
    return [image[:, :h, :w].float() / 255 for image, (h, w) in zip(batch.images, batch.sizes.tolist(), strict=True)]


def targets(batch: Batch) -> list[dict[str, Tensor]]:
    """As torchvision's models take them: labels from 1, masks as whole pictures."""
    found = []
    for image, (height, width) in enumerate(batch.sizes.tolist()):
        real = batch.labels[image] >= 0
        one = {"boxes": batch.boxes[image][real], "labels": batch.labels[image][real] + 1}
        if batch.masks is not None:
            places = real.nonzero()[:, 0].tolist()
            masks = [full_mask(batch.masks, image, place, height, width) for place in places]
            empty = batch.labels.new_zeros(0, height, width, dtype=torch.uint8)
            one["masks"] = torch.stack(masks) if masks else empty
        found.append(one)
    return found


def full_mask(masks: MaskWindows, image: int, place: int, height: int, width: int) -> Tensor:
    """uint8 [height, width]: an instance's mask, out of its summed-area table."""
    (h, w), (y, x) = masks.size[image, place].tolist(), masks.origin[image, place].tolist()
    begin = int(masks.offset[image, place])
    table = masks.table[begin : begin + (h + 1) * (w + 1)].view(h + 1, w + 1)
    full = masks.table.new_zeros(height, width, dtype=torch.uint8)
    full[y : y + h, x : x + w] = table.diff(dim=0).diff(dim=1)
    return full


class _Theirs:
    """torchvision's network with our weights, and the proposals that ours is given."""

    def __init__(
        self, model: MaskRCNN, config: RunConfig, batches: list[Batch], stated: bool, device: torch.device
    ) -> None:
        self.config, self.device = config, device
        self.net = build_peer(config.model, model.num_classes).to(device)
        take_weights(self.net, model)
        if config.runtime.channels_last:
            self.net = self.net.to(memory_format=torch.channels_last)
        if config.runtime.compile:
            self.net.backbone.compile()
        self.inputs = [(pictures(batch), targets(batch), _proposals(batch) if stated else None) for batch in batches]
        self.turn = cycle(self.inputs)
        self.given: tuple[list[Tensor], list[Tensor]] | None = None
        rpn: Any = self.net.rpn
        filter_proposals = rpn.filter_proposals

        def instead(*arguments: Any) -> tuple[list[Tensor], list[Tensor]]:
            found: tuple[list[Tensor], list[Tensor]] = filter_proposals(*arguments)
            return found if self.given is None else self.given

        rpn.filter_proposals = instead

    def call(self, of: tuple[Any, ...], with_targets: bool) -> Any:
        images, wanted, self.given = of
        # It puts pictures and targets into new lists and dicts, and leaves the tensors as they are.
        return self.net(images, [dict(one) for one in wanted] if with_targets else None)


def _proposals(batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
    assert batch.proposals is not None
    kept = [one[one[:, 4] > -torch.inf] for one in batch.proposals]
    return [one[:, :4].contiguous() for one in kept], [one[:, 4] for one in kept]


def training_peer(
    model: MaskRCNN, config: RunConfig, batches: list[Batch], stated: bool, device: torch.device
) -> PeerStep:
    """Forward, backward and optimiser of torchvision's network, with our optimiser, precision and learning rate."""
    theirs = _Theirs(model, config, batches, stated, device)
    theirs.net.train()
    optimizer, scaler = build_optimizer(theirs.net, config.optimizer), build_scaler(config.precision, device)
    set_learning_rate(optimizer, config.optimizer.lr * factor(config.schedule, 0))
    last: dict[str, Tensor] = {}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(config.precision.kind, device):
            losses: Mapping[str, Tensor] = theirs.call(next(theirs.turn), True)
        loss = torch.stack([value.float() for value in losses.values()]).sum()
        scaler.scale(loss).backward()
        update(optimizer, scaler, config.optimizer)
        last["loss"] = loss.detach()

    return PeerStep(step, lambda: {"loss_is_finite": bool(torch.isfinite(last["loss"]))})


def inference_peer(
    model: MaskRCNN, config: RunConfig, batches: list[Batch], stated: bool, device: torch.device
) -> PeerStep:
    """Detection by torchvision's network, masks in their boxes; pasting them is left out, as of ours."""
    theirs = _Theirs(model, config, batches, stated, device)
    net: Any = theirs.net.eval()
    net.transform.postprocess = lambda result, *_: result
    net.roi_heads.score_thresh = model.inference.score_threshold

    def detect(of: tuple[Any, ...]) -> list[dict[str, Tensor]]:
        with torch.inference_mode(), autocast(config.precision.kind, device):
            found: list[dict[str, Tensor]] = theirs.call(of, False)
        return found

    def facts() -> dict[str, Any]:
        counts = [len(found["boxes"]) for of in theirs.inputs for found in detect(of)]
        return {"detections_per_image": sum(counts) / len(counts)}

    return PeerStep(lambda: detect(next(theirs.turn)), facts)
