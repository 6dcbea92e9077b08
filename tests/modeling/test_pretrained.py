"""Initial weights of the body, from the files that other projects' models begin with."""

import importlib.util
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import resnet18, resnet50

from mrbench.config.schema import BackboneConfig, ModelConfig
from mrbench.errors import UserError
from mrbench.modeling.body import Body
from mrbench.modeling.build import build_backbone, build_detector
from mrbench.modeling.pretrained import load_backbone

_spec = importlib.util.spec_from_file_location("layouts", Path(__file__).parents[1] / "weights" / "layouts.py")
assert _spec is not None
layouts = importlib.util.module_from_spec(_spec)
assert _spec.loader is not None
_spec.loader.exec_module(layouts)

State = dict[str, Tensor]


def configured(path: Path | None, **backbone: object) -> ModelConfig:
    weights = None if path is None else str(path)
    return ModelConfig(backbone=BackboneConfig(**{"width": 8, "weights": weights, **backbone}))  # type: ignore[arg-type]


def random_body(seed: int, **backbone: object) -> Body:
    """Norms random enough that any mistaken place would show."""
    torch.manual_seed(seed)
    body = build_backbone(configured(None, **backbone).backbone, None).eval()
    with torch.no_grad():
        for name, value in body.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                value.normal_(std=0.1)
            elif value.dim() == 1 and value.is_floating_point():
                value.uniform_(0.5, 1.0)
    return body


def arrays(state: State) -> dict[str, np.ndarray]:
    return {f"backbone.{name}": value.numpy() for name, value in state.items()}


def torchvision(state: State, path: Path) -> None:
    """models/resnet.py and models/regnet.py of torchvision."""
    torch.save({**state, "fc.weight": torch.zeros(3, 8), "fc.bias": torch.zeros(3)}, path)


def safetensors(state: State, path: Path) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, path)


def msra(state: State, path: Path) -> None:
    """As Detectron2's checkpoint/c2_model_loading.py reads it (`convert_basic_c2_names`): scale and shift alone."""
    classifier = {"fc1000_w": np.zeros((3, 8), np.float32), "fc1000_b": np.zeros(3, np.float32)}
    path.write_bytes(pickle.dumps({**layouts.detectron_body(arrays(state)), **classifier}, protocol=2))


def fair(state: State, path: Path) -> None:
    """The same with statistics (`_bn_rm`, `_bn_riv`, by the same function), and `pred_w` for the classifier."""
    blobs = layouts.detectron_body(arrays(state))
    norms = {"res_conv1_bn": "bn1"}
    for stage, count in layouts.BLOCKS.items():
        norms[f"res{stage}_0_branch1_bn"] = f"layer{stage - 1}.0.downsample.1"
        for block in range(count):
            for number, letter in ((1, "a"), (2, "b"), (3, "c")):
                norms[f"res{stage}_{block}_branch2{letter}_bn"] = f"layer{stage - 1}.{block}.bn{number}"
    for theirs, ours in norms.items():
        for ending, kind in (("s", "weight"), ("b", "bias"), ("rm", "running_mean"), ("riv", "running_var")):
            blobs[f"{theirs}_{ending}"] = state[f"{ours}.{kind}"].numpy()
    blobs["pred_w"] = np.zeros((3, 8), np.float32)
    path.write_bytes(pickle.dumps({"blobs": blobs}, protocol=2))


def converted(state: State, path: Path) -> None:
    """tools/convert-torchvision-to-d2.py of Detectron2."""
    theirs = {"stem.fc.weight": np.zeros((3, 8), np.float32)}
    for name, value in state.items():
        name = name if "layer" in name else f"stem.{name}"
        for number in (1, 2, 3, 4):
            name = name.replace(f"layer{number}", f"res{number + 1}").replace(f"bn{number}", f"conv{number}.norm")
        name = name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")
        theirs[name] = value.numpy()
    path.write_bytes(pickle.dumps({"model": theirs, "__author__": "torchvision", "matching_heuristics": True}))


def tensorpack(state: State, path: Path) -> None:
    """examples/FasterRCNN/modeling/backbone.py of tensorpack, and `linear` of its ImageNet examples."""
    np.savez(path, **layouts.tensorpack_body(arrays(state)), **{"linear/W": np.zeros((8, 3)), "linear/b": np.zeros(3)})


def pycls(state: State, path: Path) -> None:
    """pycls' models/anynet.py (stem, s1..s4, b1.., f.a, f.a_bn, ..., head); pictures are BGR (datasets/loader.py)."""
    theirs = {"head.fc.weight": torch.zeros(3, 8)}
    for name, value in state.items():
        name = name.replace("stem.0", "stem.conv").replace("stem.1", "stem.bn")
        for stage in range(1, 5):
            for block in range(20):
                name = name.replace(f"trunk_output.block{stage}.block{stage}-{block}.", f"s{stage}.b{block + 1}.")
        name = name.replace("proj.0", "proj").replace("proj.1", "bn")
        for letter in "abc":
            name = name.replace(f"f.{letter}.0", f"f.{letter}").replace(f"f.{letter}.1", f"f.{letter}_bn")
        name = name.replace("f.se.fc1", "f.se.f_ex.0").replace("f.se.fc2", "f.se.f_ex.2")
        theirs[name] = value.flip(1) if name == "stem.conv.weight" else value
    torch.save({"epoch": 100, "model_state": theirs}, path)


REGNET = {"kind": "regnet_y_4gf", "width": 16}
MSRA = {"stride_in_1x1": True}


@pytest.mark.parametrize(
    "write,backbone,std",
    [
        (torchvision, {}, None),
        (safetensors, {}, None),
        (torchvision, {"norm": "bn"}, None),
        (msra, MSRA, [1.0, 1.0, 1.0]),
        (fair, MSRA, [1.0, 1.0, 1.0]),
        (converted, {}, None),
        (tensorpack, {}, None),
        (torchvision, REGNET, None),
        (pycls, REGNET, None),
    ],
    ids=["torchvision", "safetensors", "bn", "msra", "fair", "converted", "tensorpack", "regnet", "pycls"],
)
def test_a_file_written_by_hand_gives_the_same_features(
    write: Callable[[State, Path], None], backbone: dict[str, object], std: list[float] | None, tmp_path: Path
) -> None:
    source = random_body(1, **backbone)
    path = tmp_path / ("body.npz" if write is tensorpack else "body")
    write(source.state_dict(), path)
    target = random_body(2, **backbone)
    config = configured(path, **backbone)
    config.pixel_std = std or config.pixel_std
    loaded = load_backbone(target, config)
    assert not loaded.uninitialised + loaded.unplaced + loaded.misshapen
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for found, wanted in zip(target(x), source(x), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth,make", [(18, resnet18), (50, resnet50)])
def test_a_torchvision_resnet_from_a_file_gives_its_features(
    depth: int, make: Callable[..., nn.Module], tmp_path: Path
) -> None:
    theirs = make(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "r.pt")
    config = configured(tmp_path / "r.pt", depth=depth, width=64)
    body = build_backbone(config.backbone, None).eval()
    load_backbone(body, config)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))  # type: ignore[operator]
        for i, ours in enumerate(body(x), 1):
            wanted = getattr(theirs, f"layer{i}")(wanted)
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_settings_that_contradict_the_file_are_refused_with_the_override_or_told(tmp_path: Path) -> None:
    source = random_body(1, **MSRA)
    msra(source.state_dict(), tmp_path / "R-50.pkl")
    config = configured(tmp_path / "R-50.pkl")
    with pytest.raises(UserError) as raised:
        build_detector(config, 2)
    assert "Add: 'model.pixel_std=[1,1,1]' model.backbone.stride_in_1x1=true" in raised.value.hint
    config.weights_mismatch = "tell"
    lines: list[str] = []
    model = build_detector(config, 2, lines.append)
    assert "not as the weights were trained: model.backbone.stride_in_1x1=true" in lines
    assert torch.equal(model.backbone.get_submodule("layer1.0.conv1").weight, source.layer1[0].conv1.weight)  # type: ignore[index, union-attr]


def test_a_grouped_body_of_caffe2_implies_imagenets_deviation_and_the_stride_in_the_3x3(tmp_path: Path) -> None:
    """COCO-InstanceSegmentation/mask_rcnn_X_101_32x8d_FPN_3x.yaml of Detectron2."""
    grouped = {"groups": 2, "width_per_group": 32}
    source = random_body(1, **grouped)
    msra(source.state_dict(), tmp_path / "X.pkl")
    target = random_body(2, **grouped)
    load_backbone(target, configured(tmp_path / "X.pkl", **grouped))
    assert torch.equal(target.state_dict()["layer2.1.conv2.weight"], source.state_dict()["layer2.1.conv2.weight"])


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r.pt")
    narrow = configured(tmp_path / "r.pt", depth=18, width=32)
    with pytest.raises(UserError, match=r"bn1\.bias of shape \(64,\), and the model \(32,\)"):
        build_detector(narrow, 1)
    with pytest.raises(UserError, match=r"has no conv2\.weight, bn2\.weight"):
        build_detector(configured(tmp_path / "r.pt", depth=18, width=64, stem="3x3"), 1)
    with pytest.raises(UserError, match="absent"):
        build_detector(configured(tmp_path / "absent.pt"), 1)
    (tmp_path / "text.pt").write_text("no tensors")
    with pytest.raises(UserError, match="not a checkpoint"):
        build_detector(configured(tmp_path / "text.pt"), 1)
    with pytest.raises(UserError, match="no ImageNet weights"):
        build_detector(ModelConfig(backbone=BackboneConfig(depth=10, weights="imagenet")), 1)
