"""Files of other projects give the function that they were written from; what does not fit is named."""

import importlib.util
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torchvision.models.detection import keypointrcnn_resnet50_fpn

from mrbench.config.schema import BackboneConfig, BoxHeadConfig, MaskHeadConfig, ModelConfig, NeckConfig, PoolerConfig
from mrbench.data.batch import Batch
from mrbench.engine.checkpoint import load_model_weights
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.modeling.load import load_into, settings_of
from mrbench.weights import torchvision as torchvision_layout
from mrbench.weights.detectron2 import convert
from mrbench.weights.export import export_detectron2, export_safetensors
from mrbench.weights.files import inspect


def beside(name: str) -> ModuleType:
    """A file of this folder that holds no tests."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layouts, detectron_reference = beside("layouts"), beside("detectron_reference")

IMAGENET = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
DETECTRON = layouts.narrow(False, 2, True, [122.7717, 115.9465, 102.9801], [1.0, 1.0, 1.0])
DETECTRON.rpn.anchor_rounding, DETECTRON.rpn.anchor_offset, DETECTRON.pooler.inclusive = "sides", 0.5, True
TENSORPACK = layouts.narrow(True, 2, False, *IMAGENET)


@pytest.mark.parametrize(
    "config,write,ending,container",
    [
        (DETECTRON, layouts.write_detectron, "pkl", "pickle"),
        (TENSORPACK, layouts.write_tensorpack, "npz", "npz"),
    ],
    ids=["detectron", "tensorpack"],
)
def test_a_file_written_by_hand_gives_the_same_function(
    config: ModelConfig, write: Callable, ending: str, container: str, tmp_path: Path
) -> None:
    source = layouts.random_model(config, seed=1)
    path = tmp_path / f"model.{ending}"
    write(source, path)
    target = layouts.random_model(config, seed=2)
    loaded = load_into(target, path)
    assert loaded.file.container == container
    assert not loaded.uninitialised
    layouts.assert_same_function(target, source)


def test_detectrons_blobs_detect_what_detectron_detects(tmp_path: Path) -> None:
    """81 scores with the background first, boxes that hold their last pixel, its own anchors and mean, BGR."""
    source = layouts.random_model(DETECTRON, seed=1)
    with torch.no_grad():
        source.box_head.classes.weight.mul_(0.3)  # several classes pass the threshold
    layouts.write_detectron(source, tmp_path / "model.pkl")
    model = layouts.random_model(DETECTRON, seed=2)
    load_into(model, tmp_path / "model.pkl")
    reference = detectron_reference.Detectron(layouts.detectron_blobs(source), DETECTRON.rpn.post_nms_test)
    batch = layouts.pictures()
    for picture, ours in zip(batch.images, model.detect(batch), strict=True):
        boxes, scores, classes, masks = reference.detect(picture.flip(0).permute(1, 2, 0).numpy())
        assert len(scores) > 3
        assert len(set(classes)) > 1
        assert ours.labels.tolist() == (classes - 1).tolist()
        assert np.abs(ours.scores.numpy() - scores).max() < 2e-4
        assert np.abs(ours.boxes.numpy() - (boxes + [0, 0, 1, 1])).max() < 5e-3
        assert masks.std() > 0.01
        assert np.abs(ours.masks.numpy() - masks).max() < 1e-3


def detectron2_config() -> ModelConfig:
    return ModelConfig(
        pixel_std=[1.0, 1.0, 1.0],
        backbone=BackboneConfig(width=16, stride_in_1x1=True),
        neck=NeckConfig(channels=32),
        box_head=BoxHeadConfig(fc_channels=64),
        mask_head=MaskHeadConfig(channels=32),
    )


def write_zoo(state: dict[str, torch.Tensor], path: Path) -> None:
    """As Detectron2's model zoo publishes: arrays in a pickle, with the author's name."""
    arrays = {name: value.numpy() for name, value in state.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Detectron2 Model Zoo"}))


def test_a_detectron2_pickle_and_checkpoint_give_detectron2s_detections(shared: Path, tmp_path: Path) -> None:
    folder = shared / "parity/detectron2/frozenbn"
    state = torch.load(folder / "state_dict.pt", weights_only=True)
    write_zoo(state, tmp_path / "model.pkl")
    torch.save({"model": state, "iteration": 260, "optimizer": {"state": {}}}, tmp_path / "model.pth")
    picture = torch.from_numpy(np.load(folder / "image0.npy")).permute(2, 0, 1).flip(0)
    size = torch.tensor([picture.shape[1:]])
    images = torch.zeros(1, 3, 224, 320, dtype=torch.uint8)
    images[0, :, : picture.shape[1], : picture.shape[2]] = picture
    wanted = torch.load(folder / "inference.pt", weights_only=True)["single"][0]
    original = torch.tensor([json.loads((folder / "gt.json").read_text())[0]["orig_size"]])
    none = torch.zeros(1, 1, 4), torch.full((1, 1), -1)
    batch = Batch(images, size, original, *none, None, torch.tensor([1]), [0], 0)
    for name in ("model.pkl", "model.pth"):
        model = build_detector(detectron2_config(), num_classes=5).eval()
        loaded = load_into(model, tmp_path / name)
        assert loaded.file.layout.name == "Detectron2"
        assert not loaded.unplaced
        found = model.detect(batch)[0]
        assert found.labels.tolist() == wanted["classes"].tolist()
        torch.testing.assert_close(found.scores, wanted["scores"], rtol=0, atol=2e-4)
        torch.testing.assert_close(found.boxes, wanted["post_boxes"], rtol=0, atol=5e-3)
        torch.testing.assert_close(found.masks, wanted["mask_probs"], rtol=0, atol=1e-3)
    assert inspect(tmp_path / "model.pth").iteration == 260


def test_export_to_detectron2_gives_its_file_back(shared: Path, tmp_path: Path) -> None:
    state = torch.load(shared / "parity/detectron2/frozenbn/state_dict.pt", weights_only=True)
    export_detectron2(convert(state), tmp_path / "again.pth")
    again = torch.load(tmp_path / "again.pth", weights_only=True)["model"]
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], state[name]) for name in state)
    export_detectron2(convert(state), tmp_path / "again.pkl")
    with (tmp_path / "again.pkl").open("rb") as file:
        arrays = pickle.load(file)
    assert "__author__" in arrays
    assert np.array_equal(arrays["model"]["backbone.fpn_lateral2.bias"], state["backbone.fpn_lateral2.bias"].numpy())


def test_a_grouped_or_deeper_head_survives_the_way_to_detectron2_and_back(tmp_path: Path) -> None:
    config = detectron2_config()
    config.rpn.convs, config.box_head.convs, config.box_head.fcs = 2, 4, 1
    config.box_head.norm = config.mask_head.norm = config.neck.norm = "bn"
    config.box_head.conv_channels = 16
    source, target = build_detector(config, 5), build_detector(config, 5)
    export_detectron2(source.state_dict(), tmp_path / "model.pkl")
    load_into(target, tmp_path / "model.pkl")
    wanted = source.state_dict()
    assert all(torch.equal(v, wanted[k]) for k, v in target.state_dict().items() if "num_batches" not in k)


def torchvision_config() -> ModelConfig:
    config = ModelConfig(pooler=PoolerConfig(aligned=False, sampling_ratio=2))
    config.rpn.anchor_rounding, config.rpn.post_nms_test = "corners", 50
    return config


def test_cocos_classes_are_found_among_torchvisions_numbers() -> None:
    """The rows of class 13 ("stop sign") and 90 ("toothbrush") are the 12th and the last of the 80."""
    tensors = {
        "box_head.classes.weight": torch.arange(91.0)[:, None] + 1,  # row i holds category i + 1; 91 the background
        "box_head.classes.bias": torch.arange(91.0) + 1,
        "box_head.deltas.weight": (torch.arange(90.0) + 1).repeat_interleave(4)[:, None],
        "box_head.deltas.bias": (torch.arange(90.0) + 1).repeat_interleave(4),
    }
    torchvision_layout.coco_classes(tensors, 80)
    names = tensors["box_head.classes.bias"].tolist()
    assert len(names) == 81
    assert (names[0], names[11], names[79], names[80]) == (1, 13, 90, 91)
    assert tensors["box_head.deltas.bias"].view(80, 4)[11].tolist() == [13] * 4


def test_norms_without_epsilon_put_out_the_same() -> None:
    variance, scale = torch.tensor([0.01, 2.0]), torch.tensor([1.0, 3.0])
    tensors = {"backbone.bn1.running_var": variance, "backbone.bn1.weight": scale.clone()}
    torchvision_layout.add_eps(tensors)
    ours = tensors["backbone.bn1.weight"] / (variance + 1e-5).sqrt()
    torch.testing.assert_close(ours, scale / variance.sqrt())


def test_safetensors_carry_weights_and_settings(tmp_path: Path) -> None:
    source = layouts.random_model(TENSORPACK, seed=1)
    export_safetensors(source.state_dict(), settings_of(source), tmp_path / "m.safetensors")
    target = layouts.random_model(TENSORPACK, seed=2)
    loaded = load_into(target, tmp_path / "m.safetensors")
    assert loaded.file.container == "safetensors"
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())
    with pytest.raises(UserError, match=r"model\.backbone\.stride_in_1x1=false"):
        load_into(layouts.random_model(DETECTRON, seed=2), tmp_path / "m.safetensors")


def test_settings_that_contradict_the_format_are_refused_with_the_override(shared: Path, tmp_path: Path) -> None:
    state = torch.load(shared / "parity/detectron2/frozenbn/state_dict.pt", weights_only=True)
    write_zoo(state, tmp_path / "model.pkl")
    config = detectron2_config()
    config.backbone.stride_in_1x1, config.pixel_std = False, IMAGENET[1]
    model = build_detector(config, 5)
    with pytest.raises(UserError) as raised:
        load_model_weights(tmp_path / "model.pkl", model)
    assert "Add: 'model.pixel_std=[1,1,1]' model.backbone.stride_in_1x1=true" in raised.value.hint
    loaded = load_model_weights(tmp_path / "model.pkl", model, "tell")
    assert "not as the weights were trained: model.backbone.stride_in_1x1=true" in loaded.lines()
    assert torch.equal(model.box_head.deltas.weight, state["roi_heads.box_predictor.bbox_pred.weight"])


def test_what_is_left_over_missing_or_misshapen_is_named(shared: Path, tmp_path: Path) -> None:
    state = torch.load(shared / "parity/detectron2/frozenbn/state_dict.pt", weights_only=True)
    state["sem_seg_head.p2.0.weight"] = torch.zeros(1)
    del state["backbone.fpn_output3.bias"]
    write_zoo(state, tmp_path / "model.pkl")
    model = build_detector(detectron2_config(), 4)
    with pytest.raises(UserError) as raised:
        load_into(model, tmp_path / "model.pkl")
    for name in ("has no neck.layer_blocks.1.0.bias", "box_head.classes.weight of shape (6, 64)", "sem_seg_head.p2.0"):
        assert name in raised.value.what
    before = model.neck.layer_blocks[1][0].bias.clone()
    loaded = load_into(model, tmp_path / "model.pkl", allow_partial=True)
    assert loaded.uninitialised == ["neck.layer_blocks.1.0.bias"]
    assert loaded.unplaced == ["sem_seg_head.p2.0.weight"]
    assert len(loaded.misshapen) == 6
    assert torch.equal(model.neck.layer_blocks[1][0].bias, before)
    assert torch.equal(model.neck.layer_blocks[0][0].bias, state["backbone.fpn_output2.bias"])


def test_a_cascade_survives_the_way_to_detectron2_and_back(tmp_path: Path) -> None:
    config = detectron2_config()
    config.box_head.cascade, config.box_head.class_agnostic = [0.5, 0.6, 0.7], True
    source, target = build_detector(config, 5), build_detector(config, 5)
    export_detectron2(source.state_dict(), tmp_path / "model.pkl")
    names = inspect(tmp_path / "model.pkl").tensors
    assert names["roi_heads.box_predictor.2.bbox_pred.weight"].shape == (4, 64)
    assert "roi_heads.box_head.1.fc2.weight" in names
    load_into(target, tmp_path / "model.pkl")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())


def test_keypoint_weights_of_torchvision_and_detectron2_have_places(tmp_path: Path) -> None:
    config = torchvision_config()
    config.mask_head.enabled, config.keypoint_head.enabled = False, True
    theirs = keypointrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2)
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    model = build_detector(config, 1)
    loaded = load_into(model, tmp_path / "m.pth")
    assert not loaded.uninitialised + loaded.unplaced + loaded.misshapen
    x = torch.randn(2, 256, 14, 14)
    with torch.no_grad():
        wanted = theirs.roi_heads.keypoint_predictor(theirs.roi_heads.keypoint_head(x))
        torch.testing.assert_close(model.keypoint_head(x), wanted, rtol=1e-4, atol=1e-5)
    export_detectron2(model.state_dict(), tmp_path / "m.pkl")
    names = inspect(tmp_path / "m.pkl").tensors
    assert names["roi_heads.keypoint_head.conv_fcn8.weight"].shape == (512, 512, 3, 3)
    assert names["roi_heads.keypoint_head.score_lowres.weight"].shape == (512, 17, 4, 4)


def test_a_single_maps_anchors_and_fifth_stage_come_from_detectrons_order(tmp_path: Path) -> None:
    """Detectron's anchors 0 to 4 are all sizes of the first ratio; ours 0 to 2 all ratios of the first size."""
    blobs = {
        "res2_0_branch2a_w": np.zeros((4, 4, 1, 1), np.float32),
        "res5_0_branch2a_w": np.ones((4, 4, 1, 1), np.float32),
        "rpn_cls_logits_w": np.arange(15, dtype=np.float32)[:, None, None, None],
        "rpn_bbox_pred_b": np.arange(60, dtype=np.float32),
        "cls_score_b": np.arange(81, dtype=np.float32),
    }
    (tmp_path / "c4.pkl").write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))
    found = inspect(tmp_path / "c4.pkl").translated()
    assert not found.unplaced
    assert "res5.0.conv1.weight" in found.tensors
    assert "backbone.layer4.0.conv1.weight" not in found.tensors
    assert found.tensors["rpn.head.objectness.weight"].flatten()[:4].tolist() == [0, 5, 10, 1]
    assert found.tensors["rpn.head.deltas.bias"][:8].tolist() == [0, 1, 2, 3, 20, 21, 22, 23]
    assert found.tensors["box_head.classes.bias"][[0, 79, 80]].tolist() == [1, 80, 0]


@pytest.mark.parametrize(
    "changes,named",
    [
        ({"neck.kind": "c4", "box_head.kind": "res5", "mask_head.kind": "res5"}, "roi_heads.res5.2.conv3.norm.bias"),
        ({"neck.kind": "c5", "backbone.dilated_c5": True}, "backbone.res5.2.conv3.norm.bias"),
        ({"backbone.kind": "regnet_y_4gf"}, "backbone.bottom_up.s3.b12.f.se.f_ex.2.bias"),
    ],
    ids=["c4", "dilated_c5", "regnet"],
)
def test_other_architectures_survive_the_way_to_detectron2_and_back(
    changes: dict[str, object], named: str, tmp_path: Path
) -> None:
    config = detectron2_config()
    config.backbone.width = 8
    for key, value in changes.items():
        part, _, name = key.partition(".")
        setattr(getattr(config, part), name, value)
    if config.neck.kind == "c4":
        config.pooler.box_size, config.box_head.fcs, config.mask_head.convs = 14, 0, 0
    if config.backbone.kind != "resnet":
        config.pixel_std = IMAGENET[1]
    source, target = build_detector(config, 5), build_detector(config, 5)
    export_detectron2(source.state_dict(), tmp_path / "model.pkl")
    assert named in inspect(tmp_path / "model.pkl").tensors
    load_into(target, tmp_path / "model.pkl")
    assert all(torch.equal(v, source.state_dict()[k]) for k, v in target.state_dict().items())
