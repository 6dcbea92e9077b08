"""Files in other projects' layouts, written out by hand from one of our models."""

import pickle
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mrbench.config.schema import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, NeckConfig, PoolerConfig
from mrbench.data.batch import Batch
from mrbench.modeling.build import build_detector
from mrbench.modeling.detector import MaskRCNN

CLASSES = 5
BLOCKS = {2: 3, 3: 4, 4: 6, 5: 3}
Arrays = dict[str, np.ndarray]


def narrow(aligned: bool, points: int, stride_in_1x1: bool, mean: list[float], std: list[float]) -> ModelConfig:
    config = ModelConfig(
        pixel_mean=mean,
        pixel_std=std,
        backbone=BackboneConfig(width=8, stride_in_1x1=stride_in_1x1),
        neck=NeckConfig(channels=16),
        pooler=PoolerConfig(aligned=aligned, sampling_ratio=points),
        box_head=BoxHeadConfig(fc_channels=32),
        mask_head=MaskHeadConfig(channels=16, convs=2),
    )
    config.rpn.post_nms_test = 50
    return config


def random_model(config: ModelConfig, seed: int) -> MaskRCNN:
    """A model whose norms, biases and scores are random enough that any mistaken place would show."""
    torch.manual_seed(seed)
    model = build_detector(config, CLASSES).eval()
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith(("bias", "running_mean")):
                value.normal_(std=0.1)
            elif value.dim() == 1 and value.is_floating_point():
                value.uniform_(0.5, 1.0)
            if name.endswith("bn3.weight"):
                value.mul_(0.3)  # keeps random residuals from growing
        model.box_head.classes.weight.mul_(10)
        model.box_head.deltas.weight.mul_(20)
        model.rpn.head.objectness.weight.mul_(10)
        assert model.mask_head is not None
        model.mask_head.predictor.weight.mul_(100)
    return model


def pictures(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (2, 3, 128, 192), generator=g, dtype=torch.uint8)
    size = torch.tensor([[128, 192]] * 2)
    none = torch.zeros(2, 1, 4), torch.full((2, 1), -1)
    return Batch(images, size, size.clone(), *none, None, torch.tensor([1, 2]), [0, 1], 0)


def assert_same_function(ours: MaskRCNN, theirs: MaskRCNN) -> None:
    batch = pictures()
    with torch.no_grad():
        for a, b in zip(ours.eval().features(batch), theirs.eval().features(batch), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
        found, wanted = ours.detect(batch), theirs.detect(batch)
    for a, b in zip(found, wanted, strict=True):
        assert len(b) > 3
        assert a.labels.tolist() == b.labels.tolist()
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=1e-4, atol=1e-2)
        torch.testing.assert_close(a.masks, b.masks, rtol=1e-3, atol=1e-3)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().copy()


def _zeros_first(array: np.ndarray, rows: int) -> np.ndarray:
    """With `rows` in front that belong to the background, and say nothing."""
    return np.concatenate([np.full((rows, *array.shape[1:]), 7, array.dtype), array])


def detectron_body(state: Arrays) -> Arrays:
    """A ResNet-50's blobs, norms fused into `_bn_s` and `_bn_b`; the stem takes BGR."""
    blobs: Arrays = {}

    def fused(name: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + 1e-5)
        blobs[f"{name}_s"] = scale
        blobs[f"{name}_b"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    blobs["conv1_w"] = state["backbone.conv1.weight"][:, ::-1].copy()
    fused("res_conv1_bn", "backbone.bn1")
    for stage, count in BLOCKS.items():
        for block in range(count):
            ours = f"backbone.layer{stage - 1}.{block}"
            for number, letter in ((1, "a"), (2, "b"), (3, "c")):
                blobs[f"res{stage}_{block}_branch2{letter}_w"] = state[f"{ours}.conv{number}.weight"]
                fused(f"res{stage}_{block}_branch2{letter}_bn", f"{ours}.bn{number}")
        blobs[f"res{stage}_0_branch1_w"] = state[f"backbone.layer{stage - 1}.0.downsample.0.weight"]
        fused(f"res{stage}_0_branch1_bn", f"backbone.layer{stage - 1}.0.downsample.1")
    return blobs


def detectron_blobs(model: MaskRCNN) -> Arrays:
    """Caffe2's blobs, as Detectron's utils/net.py saves them."""
    state = {name: _array(value) for name, value in model.state_dict().items()}
    blobs = detectron_body(state)

    def put(name: str, layer: str) -> None:
        blobs[f"{name}_w"] = state[f"{layer}.weight"]
        if f"{layer}.bias" in state:
            blobs[f"{name}_b"] = state[f"{layer}.bias"]

    for stage, count in BLOCKS.items():
        last = f"res{stage}_{count - 1}_sum"
        put(f"fpn_inner_{last}" + ("" if stage == 5 else "_lateral"), f"neck.inner_blocks.{stage - 2}.0")
        put(f"fpn_{last}", f"neck.layer_blocks.{stage - 2}.0")
    put("conv_rpn_fpn2", "rpn.head.convs.0")
    put("rpn_cls_logits_fpn2", "rpn.head.objectness")
    put("rpn_bbox_pred_fpn2", "rpn.head.deltas")
    put("fc6", "box_head.fcs.0")
    put("fc7", "box_head.fcs.1")
    put("_[mask]_fcn1", "mask_head.convs.0")
    put("_[mask]_fcn2", "mask_head.convs.3")
    put("conv5_mask", "mask_head.upsample")
    for kind, letter in (("weight", "w"), ("bias", "b")):
        scores = state[f"box_head.classes.{kind}"]
        blobs[f"cls_score_{letter}"] = np.concatenate([scores[-1:], scores[:-1]])
        blobs[f"bbox_pred_{letter}"] = _zeros_first(state[f"box_head.deltas.{kind}"], 4)
        blobs[f"mask_fcn_logits_{letter}"] = _zeros_first(state[f"mask_head.predictor.{kind}"], 1)
    blobs["fc6_w_momentum"] = np.zeros_like(blobs["fc6_w"])
    return blobs


def write_detectron(model: MaskRCNN, path: Path) -> None:
    blobs = detectron_blobs(model)
    path.write_bytes(pickle.dumps({"cfg": "MODEL: {TYPE: generalized_rcnn}", "blobs": blobs}, protocol=2))


def tensorpack_body(state: Arrays) -> Arrays:
    """A ResNet-50's variables; the stem takes BGR."""
    out: Arrays = {}

    def put(name: str, layer: str) -> None:
        out[f"{name}/W"] = state[f"{layer}.weight"].transpose(2, 3, 1, 0)

    def norm(name: str, layer: str) -> None:
        out[f"{name}/bn/gamma"] = state[f"{layer}.weight"]
        out[f"{name}/bn/beta"] = state[f"{layer}.bias"]
        out[f"{name}/bn/mean/EMA"] = state[f"{layer}.running_mean"]
        out[f"{name}/bn/variance/EMA"] = state[f"{layer}.running_var"]

    out["conv0/W"] = state["backbone.conv1.weight"][:, ::-1].transpose(2, 3, 1, 0)
    norm("conv0", "backbone.bn1")
    for group, count in enumerate(BLOCKS.values()):
        for block in range(count):
            theirs, ours = f"group{group}/block{block}", f"backbone.layer{group + 1}.{block}"
            for c in (1, 2, 3):
                put(f"{theirs}/conv{c}", f"{ours}.conv{c}")
                norm(f"{theirs}/conv{c}", f"{ours}.bn{c}")
            if block == 0:
                put(f"{theirs}/convshortcut", f"{ours}.downsample.0")
                norm(f"{theirs}/convshortcut", f"{ours}.downsample.1")
    return out


def write_tensorpack(model: MaskRCNN, path: Path) -> None:
    """Variables of tensorpack's FasterRCNN example: (height, width, in, out) and (in, out)."""
    state = {name: _array(value) for name, value in model.state_dict().items()}
    out = tensorpack_body(state)

    def put(name: str, layer: str) -> None:
        weight = state[f"{layer}.weight"]
        out[f"{name}/W"] = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        if f"{layer}.bias" in state:
            out[f"{name}/b"] = state[f"{layer}.bias"]

    for group in range(len(BLOCKS)):
        put(f"fpn/lateral_1x1_c{group + 2}", f"neck.inner_blocks.{group}.0")
        put(f"fpn/posthoc_3x3_p{group + 2}", f"neck.layer_blocks.{group}.0")
    put("rpn/conv0", "rpn.head.convs.0")
    put("rpn/class", "rpn.head.objectness")
    put("rpn/box", "rpn.head.deltas")
    put("fastrcnn/fc6", "box_head.fcs.0")
    put("fastrcnn/fc7", "box_head.fcs.1")
    put("fastrcnn/outputs/class", "box_head.classes")
    put("fastrcnn/outputs/box", "box_head.deltas")
    for kind, letter in (("weight", "W"), ("bias", "b")):
        scores, deltas = state[f"box_head.classes.{kind}"], state[f"box_head.deltas.{kind}"]
        out[f"fastrcnn/outputs/class/{letter}"] = np.concatenate([scores[-1:], scores[:-1]]).T
        out[f"fastrcnn/outputs/box/{letter}"] = _zeros_first(deltas, 4).T
    put("maskrcnn/fcn0", "mask_head.convs.0")
    put("maskrcnn/fcn1", "mask_head.convs.3")
    put("maskrcnn/deconv", "mask_head.upsample")
    put("maskrcnn/conv", "mask_head.predictor")
    out["global_step"] = np.int64(90000)
    np.savez_compressed(path, **out)
