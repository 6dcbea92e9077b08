"""Runs narrow Detectron2 networks and writes down what they say: python make_detectron2.py [NAME ...].

Needs Detectron2; README.md beside this file says which version was used, and what is in the files.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import FrozenBatchNorm2d
from detectron2.modeling import BACKBONE_REGISTRY, build_model
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from detectron2.modeling.backbone.regnet import AnyNet, ResBottleneckBlock, SimpleStem
from detectron2.structures import BitMasks, Boxes, Instances, Keypoints
from detectron2.utils.events import EventStorage
from rule import CLASSES, ORIGINAL, example, weights
from torch import Tensor, nn

FOLDER = Path(__file__).resolve().parent
EXAMPLES = [example(number) for number in range(2)]

COMMON = [
    *("MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", "MODEL.MASK_ON", True),
    *("MODEL.ROI_HEADS.NUM_CLASSES", CLASSES, "MODEL.ROI_MASK_HEAD.CONV_DIM", 16),
    # few regions, and no anchor or region left out by chance
    *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", 200, "MODEL.RPN.PRE_NMS_TOPK_TEST", 200),
    *("MODEL.RPN.POST_NMS_TOPK_TRAIN", 100, "MODEL.RPN.POST_NMS_TOPK_TEST", 60),
    *("MODEL.RPN.BATCH_SIZE_PER_IMAGE", 8192, "TEST.DETECTIONS_PER_IMAGE", 12),
]
NARROW = [
    "MODEL.RESNETS.STEM_OUT_CHANNELS",
    8,
    "MODEL.RESNETS.WIDTH_PER_GROUP",
    8,
    "MODEL.RESNETS.RES2_OUT_CHANNELS",
    32,
]
PYRAMID = [
    *("MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone", "MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"]),
    *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.FPN.OUT_CHANNELS", 16),
    *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
    *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"], "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
    *("MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
]
HEADS = [
    *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", 2),
    *("MODEL.ROI_BOX_HEAD.FC_DIM", 32, "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", 7),
    *("MODEL.ROI_BOX_HEAD.CONV_DIM", 16, "MODEL.ROI_MASK_HEAD.NUM_CONV", 4),
    *("MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 14),
]
FOUR_CONVS = ["MODEL.ROI_BOX_HEAD.NUM_CONV", 4, "MODEL.ROI_BOX_HEAD.NUM_FC", 1]


def normed(kind: str) -> list[Any]:
    parts = ("RESNETS", "FPN", "ROI_BOX_HEAD", "ROI_MASK_HEAD")
    return [item for part in parts for item in (f"MODEL.{part}.NORM", kind)]


# As conf/model/*.yaml has them in full width; tests/modeling/test_references_detectron2.py says which is which.
FPN_50 = [*COMMON, *NARROW, *PYRAMID, *HEADS]
NETWORKS: dict[str, list[Any]] = {
    "new_baselines": [
        *FPN_50,
        *FOUR_CONVS,
        *normed("BN"),
        "MODEL.BACKBONE.FREEZE_AT",
        0,
        "MODEL.RPN.CONV_DIMS",
        [-1, -1],
    ],
    "c4": [*COMMON, *NARROW],
    "cascade": [*FPN_50, "MODEL.ROI_HEADS.NAME", "CascadeROIHeads", "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True],
    "keypoint": [
        *(*FPN_50, "MODEL.KEYPOINT_ON", True, "MODEL.ROI_HEADS.NUM_CLASSES", 1),
        *("MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS", 5, "MODEL.ROI_KEYPOINT_HEAD.CONV_DIMS", [16] * 8),
        *("MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA", 0.5),
    ],
    "gn": [
        *(*FPN_50, *FOUR_CONVS, *normed("GN"), "MODEL.RESNETS.STRIDE_IN_1X1", False),
        *("MODEL.RESNETS.STEM_OUT_CHANNELS", 32, "MODEL.RESNETS.WIDTH_PER_GROUP", 32),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 128, "MODEL.FPN.OUT_CHANNELS", 32),
        *("MODEL.ROI_BOX_HEAD.CONV_DIM", 64, "MODEL.ROI_MASK_HEAD.CONV_DIM", 32),
    ],
    "dc5": [
        *(*COMMON, *NARROW, *HEADS, "MODEL.RESNETS.OUT_FEATURES", ["res5"], "MODEL.RESNETS.RES5_DILATION", 2),
        *("MODEL.RPN.IN_FEATURES", ["res5"], "MODEL.ROI_HEADS.NAME", "StandardROIHeads"),
        *("MODEL.ROI_HEADS.IN_FEATURES", ["res5"]),
    ],
    "resnext": [
        *(*FPN_50, "MODEL.PIXEL_STD", [57.375, 57.120, 58.395], "MODEL.RESNETS.STRIDE_IN_1X1", False),
        *("MODEL.RESNETS.NUM_GROUPS", 4, "MODEL.RESNETS.WIDTH_PER_GROUP", 4, "MODEL.RESNETS.STEM_OUT_CHANNELS", 16),
        *("MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
    ],
}
for letter in "xy":
    NETWORKS[f"regnet{letter}"] = [
        *NETWORKS["new_baselines"],
        *("MODEL.BACKBONE.NAME", f"narrow_regnet{letter}", "MODEL.PIXEL_STD", [57.375, 57.120, 58.395]),
    ]


def narrow_regnet(
    cfg: CfgNode, _: object, stem: int, depths: list[int], groups: list[int], width: int, se: float
) -> nn.Module:
    """As many blocks and groups as a published RegNet has, of `width` channels instead of 40 (X) or 64 (Y)."""
    body = AnyNet(
        stem_class=SimpleStem,
        stem_width=stem,
        block_class=ResBottleneckBlock,
        depths=depths,
        widths=[n * width for n in groups],
        group_widths=[width] * 4,
        strides=[2] * 4,
        bottleneck_ratios=[1.0] * 4,
        se_ratio=se,
        activation_class=lambda: nn.ReLU(inplace=True),
        norm="BN",
        out_features=["s1", "s2", "s3", "s4"],
    )
    return FPN(body, ["s1", "s2", "s3", "s4"], cfg.MODEL.FPN.OUT_CHANNELS, "BN", LastLevelMaxPool())


def _register(name: str, *parts: Any) -> None:
    def build(cfg: CfgNode, shape: object) -> nn.Module:
        return narrow_regnet(cfg, shape, *parts)

    build.__name__ = name
    BACKBONE_REGISTRY.register(build)


_register("narrow_regnetx", 4, [2, 5, 14, 2], [2, 6, 14, 34], 5, 0.0)
_register("narrow_regnety", 8, [2, 6, 12, 2], [2, 3, 8, 17], 16, 0.25)

# Mean and deviation that a predictor's outputs get over the positions or regions of the two pictures.
PREDICTORS = {
    "objectness_logits": (-1.0, 2.0),
    "anchor_deltas": (0.0, 0.1),
    "cls_score": (0.0, 1.5),
    "bbox_pred": (0.0, 0.5),
    "mask_head.predictor": (0.0, 2.0),
    "score_lowres": (0.0, 3.0),
}


def calibrate(model: nn.Module, inputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Sets the running statistics of norms near those of the pictures, and predictors such that regions differ; all
    in one pass, each layer before it is first used. Returns these tensors by name, in the half precision that they
    are set in."""
    stored: dict[str, Tensor] = {}
    hooks = []

    def once(name: str, layer: nn.Module, set_layer: Callable[[nn.Module, Tensor], None]) -> None:
        def before(layer: nn.Module, args: tuple[Tensor]) -> None:
            if f"{name}.done" not in stored and len(args[0]):
                set_layer(layer, args[0])
                stored[f"{name}.done"] = torch.zeros(())
                for part, value in layer.state_dict().items():
                    if value.is_floating_point() and ("running" in part or isinstance(layer, PREDICTING)):
                        value.copy_(value.half())
                        stored[f"{name}.{part}"] = value

        hooks.append(layer.register_forward_pre_hook(before))

    def set_norm(layer: nn.Module, x: Tensor) -> None:
        variance, mean = torch.var_mean(x, (0, 2, 3))
        # neither all of a batch's own nor far from it; layer.running_* are by the rule here
        layer.running_mean.mul_(variance.sqrt()).add_(mean)
        layer.running_var.mul_(variance + 1e-3)

    def set_predictor(layer: nn.Module, x: Tensor, centre: float, spread: float) -> None:
        layer.bias.zero_()
        out = layer.forward(x).transpose(0, 1).flatten(1)
        across = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
        scale = spread / out.std(1)
        layer.weight.mul_(scale.view([-1 if d == across else 1 for d in range(layer.weight.dim())]))
        layer.bias.copy_(centre - scale * out.mean(1))

    for name, layer in model.named_modules():
        if isinstance(layer, FrozenBatchNorm2d | nn.BatchNorm2d):
            once(name, layer, set_norm)
        for end, (centre, spread) in PREDICTORS.items():
            if name.endswith(end) or f".{end}" in name:
                once(name, layer, partial(set_predictor, centre=centre, spread=spread))
    with torch.no_grad():
        model.eval()(inputs)
    for hook in hooks:
        hook.remove()
    return {name: value.detach().half().numpy() for name, value in stored.items() if not name.endswith(".done")}


PREDICTING = (nn.Conv2d, nn.Linear, nn.ConvTranspose2d)


def inputs_of(cfg: CfgNode) -> list[dict[str, Any]]:
    """The two pictures as Detectron2's data mapper puts them out, with bit masks."""
    found = []
    for one, (height, width) in zip(EXAMPLES, ORIGINAL, strict=True):
        truth = Instances(one.picture.shape[:2])
        truth.gt_boxes = Boxes(torch.from_numpy(one.boxes))
        truth.gt_classes = torch.from_numpy(one.labels).clamp(max=cfg.MODEL.ROI_HEADS.NUM_CLASSES - 1)
        truth.gt_masks = BitMasks(torch.from_numpy(one.masks))
        if cfg.MODEL.KEYPOINT_ON:
            truth.gt_keypoints = Keypoints(torch.from_numpy(one.keypoints))
        picture = torch.from_numpy(one.picture[:, :, ::-1].copy()).permute(2, 0, 1)  # BGR
        found.append({"image": picture, "height": height, "width": width, "instances": truth})
    return found


def run_inference(model: nn.Module, inputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What is found, before and after it is moved to the files' pixels."""
    numbers: dict[str, np.ndarray] = {}
    with torch.no_grad():
        plain = model.eval().inference(inputs, do_postprocess=False)
        moved = model.inference(inputs)
    for i, (before, after) in enumerate(zip(plain, moved, strict=True)):
        after = after["instances"]
        assert len(before) == len(after)
        numbers[f"found/{i}/boxes"] = after.pred_boxes.tensor.numpy()
        numbers[f"found/{i}/scores"] = after.scores.numpy()
        numbers[f"found/{i}/classes"] = after.pred_classes.numpy().astype(np.uint8)
        numbers[f"found/{i}/masks"] = (before.pred_masks[:, 0] * 65535).round().numpy().astype(np.uint16)
        numbers[f"found/{i}/areas"] = after.pred_masks.sum((1, 2)).numpy().astype(np.int32)
        if after.has("pred_keypoints"):
            numbers[f"found/{i}/keypoints"] = after.pred_keypoints.numpy()
    return numbers


def run_training(model: nn.Module, inputs: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Losses of one forward pass, norms of their sum's gradients, and running statistics after it."""
    numbers: dict[str, np.ndarray] = {}
    model.train()
    with EventStorage():
        losses = model(inputs)
    for name, loss in losses.items():
        numbers[f"loss/{name}"] = np.float64(loss.item())
    sum(losses.values()).backward()
    learning = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    numbers["gradient/names"] = np.array([name for name, _ in learning])
    numbers["gradient/norms"] = np.array([p.grad.norm().item() for _, p in learning], dtype=np.float32)
    tracked = [name.removesuffix("num_batches_tracked") for name in model.state_dict() if name.endswith("tracked")]
    if tracked:
        state = model.state_dict()
        numbers["after/names"] = np.array(tracked)
        numbers["after/mean_norms"] = np.array([state[f"{n}running_mean"].norm().item() for n in tracked], np.float32)
        numbers["after/var_norms"] = np.array([state[f"{n}running_var"].norm().item() for n in tracked], np.float32)
    return numbers


def far(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """How far two runs' numbers are from each other at most: relatively for losses and gradients' norms, infinite
    where not the same things were found."""
    worst: dict[str, float] = {}
    for name, value in a.items():
        kind = name.split("/")[0 if name.startswith("loss") else -1]
        if kind == "names":
            continue
        apart = np.inf
        if value.shape == b[name].shape:
            difference = np.abs(value.astype(float) - b[name].astype(float))
            relative = kind in ("loss", "norms", "mean_norms", "var_norms")
            apart = (difference / np.maximum(np.abs(value), 1e-4) if relative else difference).max(initial=0)
        worst[kind] = max(worst.get(kind, 0), float(apart))
    return worst


# Between a network and one whose weights are 3e-7 off, about as much as another order of sums makes.
NOISE, TRIALS = 3e-7, 4
LIMITS = {"boxes": 2e-3, "scores": 1e-4, "classes": 0, "masks": 30, "areas": 2, "keypoints": 2e-3, "norms": 3e-3}


def make(name: str) -> None:
    """The first draw of weights for which neighbouring networks say the same, and in which nothing is dead."""
    cfg = get_cfg()
    cfg.merge_from_list(NETWORKS[name])
    torch.manual_seed(0)
    model = build_model(cfg)
    inputs = inputs_of(cfg)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}

    def run(stored: dict[str, np.ndarray], draw: int, noise: float) -> dict[str, np.ndarray]:
        fill(model, weights(shapes, stored, draw))
        model.zero_grad()
        with torch.no_grad():
            for value in model.parameters():
                value.mul_(1 + noise * torch.randn_like(value))
        return run_inference(model, inputs) | run_training(model, inputs)

    for draw in range(100):
        fill(model, weights(shapes, {}, draw))
        stored = calibrate(model, inputs)
        numbers = run(stored, draw, 0.0)
        # a softmax over positions does not change with their common shift
        dead = numbers["gradient/norms"] < 1e-5
        if any(not text.endswith("score_lowres.bias") for text in numbers["gradient/names"][dead]):
            continue
        trials = [far(numbers, run(stored, draw, NOISE)) for _ in range(TRIALS)]
        worst = {kind: max(trial[kind] for trial in trials) for kind in trials[0]}
        if all(worst.get(kind, 0) <= limit for kind, limit in LIMITS.items()):
            break
        print(
            "not", name, draw, {kind: f"{apart:.1e}" for kind, apart in worst.items() if apart > LIMITS.get(kind, 1)}
        )
    else:
        raise SystemExit(f"{name}: every draw is too sensitive")
    print(name, draw, {kind: f"{apart:.1e}" for kind, apart in worst.items()})
    numbers["draw"] = np.int64(draw)
    numbers["names"] = np.array(list(shapes))
    numbers["shapes"] = np.array([" ".join(map(str, shape)) for shape in shapes.values()])
    numbers |= {f"stored/{key}": value for key, value in stored.items()}
    np.savez_compressed(FOLDER / f"detectron2_{name}.npz", **numbers)


def fill(model: nn.Module, state: dict[str, np.ndarray]) -> None:
    model.load_state_dict({key: torch.from_numpy(np.asarray(value)) for key, value in state.items()})


if __name__ == "__main__":
    for chosen in sys.argv[1:] or NETWORKS:
        make(chosen)
