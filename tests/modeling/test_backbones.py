"""Bodies and necks against torchvision, published counts, and slow references."""

from collections import OrderedDict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet as tv
from torchvision.models.regnet import BlockParams
from torchvision.models.regnet import RegNet as TorchvisionRegNet

from mrbench.config.composer import compose
from mrbench.config.schema import BackboneConfig, ModelConfig
from mrbench.errors import UserError
from mrbench.modeling.build import build_backbone
from mrbench.modeling.fpn import FPN, AveragingFPN
from mrbench.modeling.non_local import NonLocal
from mrbench.modeling.pretrained import load_backbone
from mrbench.modeling.resnet import ResNet


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    "depth,groups,width,documented",
    [(101, 32, 8, 88_791_336), (101, 64, 4, 83_455_272), (152, 1, 64, 60_192_808), (50, 32, 4, 25_028_904)],
)
def test_parameters_are_those_that_torchvision_documents(depth: int, groups: int, width: int, documented: int) -> None:
    config = BackboneConfig(depth=depth, groups=groups, width_per_group=width, norm="bn", freeze_at=0)
    with torch.device("meta"):
        body = build_backbone(config, None)
    assert parameters(body) + 2048 * 1000 + 1000 == documented


def test_resnext_152_is_resnet_152_with_the_groups_of_32x8d() -> None:
    config = BackboneConfig(depth=152, groups=32, width_per_group=8, norm="bn", freeze_at=0)
    with torch.device("meta"):
        theirs = tv.ResNet(tv.Bottleneck, [3, 8, 36, 3], groups=32, width_per_group=8)
        assert parameters(build_backbone(config, None)) == parameters(theirs) - parameters(theirs.fc)


@pytest.mark.parametrize("dilated", [False, True])
def test_a_resnext_gives_torchvisions_features_with_its_weights(dilated: bool) -> None:
    torch.manual_seed(0)
    theirs = tv.ResNet(tv.Bottleneck, [3, 4, 6, 3], groups=4, width_per_group=8)
    if dilated:  # Detectron2's way, in which the first block is dilated as well
        for block in theirs.layer4:
            block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (2, 2), (2, 2)
        theirs.layer4[0].downsample[0].stride = (1, 1)
    config = BackboneConfig(groups=4, width_per_group=8, norm="bn", freeze_at=0, dilated_c5=dilated)
    body = build_backbone(config, None)
    body.load_state_dict({name: value for name, value in theirs.state_dict().items() if name[:3] != "fc."})
    body.eval(), theirs.eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        wanted = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i, ours in enumerate(body(x), 1):
            wanted = theirs.get_submodule(f"layer{i}")(wanted)
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
            assert ours.shape[-1] == 96 / body.strides[i - 1]
            assert ours.shape[1] == body.out_channels[i - 1]


@pytest.mark.parametrize(
    "kind,widths,count",
    [  # widths of the RegNet paper's release (pycls), counts of timm's regnetx_040 and regnety_040 with 1000 classes
        ("regnet_x_4gf", [80, 240, 560, 1360], 22_118_248),
        ("regnet_y_4gf", [128, 192, 512, 1088], 20_646_656),
    ],
)
def test_regnets_are_those_that_were_published(kind: str, widths: list[int], count: int) -> None:
    with torch.device("meta"):
        body = build_backbone(BackboneConfig(kind=kind, norm="bn", freeze_at=0), None)
    assert body.out_channels == widths
    assert parameters(body) + widths[-1] * 1000 + 1000 == count


@pytest.mark.parametrize("kind,depth,groups,width", [("x", (2, 5, 14, 2), (2, 6, 14, 34), 10),
                                                      ("y", (2, 6, 12, 2), (2, 3, 8, 17), 16)])  # fmt: skip
def test_a_regnet_of_a_quarter_of_the_width_gives_torchvisions_features(
    kind: str, depth: tuple[int, ...], groups: tuple[int, ...], width: int
) -> None:
    torch.manual_seed(0)
    params = BlockParams(
        list(depth), [g * width for g in groups], [width] * 4, [1.0] * 4, [2] * 4, 0.25 if kind == "y" else None
    )
    theirs = TorchvisionRegNet(params, stem_width=8).eval()
    config = BackboneConfig(kind=f"regnet_{kind}_4gf", width=16, norm="bn", freeze_at=0)
    body = build_backbone(config, None).eval()
    body.load_state_dict({name: value for name, value in theirs.state_dict().items() if name[:3] != "fc."})
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs.stem(x)
        for i, ours in enumerate(body(x), 1):
            wanted = theirs.trunk_output.get_submodule(f"block{i}")(wanted)
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
            assert ours.shape[-1] == 64 / body.strides[i - 1]


def test_frozen_stages_of_a_regnet_keep_their_weights() -> None:
    body = build_backbone(BackboneConfig(kind="regnet_x_4gf", width=16, norm="bn", freeze_at=2), None)
    free = {name.rsplit("-", 1)[0] for name, p in body.named_parameters() if p.requires_grad}
    assert free == {f"trunk_output.block{i}.block{i}" for i in (2, 3, 4)}


def narrow(**changes: object) -> ResNet:
    torch.manual_seed(0)
    config = BackboneConfig(width=8, norm="bn", freeze_at=0)
    for name, value in changes.items():
        setattr(config, name, value)
    body = build_backbone(config, 4)
    assert isinstance(body, ResNet)
    return body


@pytest.mark.parametrize("norm", ["none", "frozen_bn", "bn", "gn"])
def test_non_local_and_deformable_parts_begin_as_nothing_and_can_learn(norm: str) -> None:
    plain, with_parts = narrow(norm=norm), narrow(norm=norm, non_local=2, deformable=[3, 5])
    missing, unexpected = with_parts.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[1] for name in missing if "non_local" in name} == {"non_local4", "non_local5"}
    assert {name.split(".")[0] for name in missing if "offset" in name} == {"layer2", "layer4"}
    x = torch.randn(2, 3, 64, 64)
    for ours, wanted in zip(with_parts.eval()(x), plain.eval()(x), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)
    with_parts.train()(x)[-1].square().mean().backward()
    last = with_parts.layer3.non_local4.norm if norm in ("bn", "gn") else with_parts.layer3.non_local4.out
    for layer in (last, with_parts.layer2[0].conv2.offset):
        assert layer.weight.requires_grad
        assert layer.weight.grad.abs().sum() > 0


def test_one_non_local_block_stands_before_the_last_block_of_the_fourth_stage() -> None:
    names = [name for name, _ in narrow(non_local=1).layer3.named_children()]
    assert names == ["0", "1", "2", "3", "4", "non_local5", "5"]


def test_a_non_local_block_is_the_papers_equation() -> None:
    """Equation 6 of Wang et al. 2018 with the embedded Gaussian, position by position."""
    torch.manual_seed(0)
    block = NonLocal(6, "none", None).double()
    for layer in (block.query, block.key, block.value, block.out):
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    x = torch.randn(1, 6, 5, 4, dtype=torch.float64)
    pooled = F.max_pool2d(x, 2, ceil_mode=True)
    cells = [pooled[0, :, i, j] for i in range(pooled.shape[2]) for j in range(pooled.shape[3])]

    def through(layer: nn.Conv2d, v: Tensor) -> Tensor:
        return layer.weight[:, :, 0, 0] @ v + layer.bias

    wanted = torch.empty_like(x)
    for i in range(5):
        for j in range(4):
            query = through(block.query, x[0, :, i, j])
            like = torch.stack([(query @ through(block.key, cell) / 3**0.5).exp() for cell in cells])
            seen = sum(w * through(block.value, cell) for w, cell in zip(like / like.sum(), cells, strict=True))
            wanted[0, :, i, j] = x[0, :, i, j] + through(block.out, seen)
    torch.testing.assert_close(block(x), wanted)


def test_offsets_of_whole_cells_move_a_deformable_convolutions_input() -> None:
    layer = narrow(deformable=[4]).layer3[1].conv2
    x = torch.randn(1, layer.in_channels, 9, 9)
    with torch.no_grad():
        layer.offset.bias[0::2] = 1.0  # down
        layer.offset.bias[1::2] = -2.0  # left
        moved = F.conv2d(x.roll((-1, 2), (2, 3)), layer.weight, padding=1)
        torch.testing.assert_close(layer(x)[:, :, 1:-2, 3:-1], moved[:, :, 1:-2, 3:-1], rtol=1e-4, atol=1e-5)


def test_trained_weights_fill_a_body_with_added_parts(tmp_path: Path) -> None:
    torch.save(tv.resnet50(weights=None).state_dict(), tmp_path / "r.pt")
    config = ModelConfig(backbone=BackboneConfig(weights=str(tmp_path / "r.pt"), non_local=1, deformable=[4]))
    assert not load_backbone(build_backbone(config.backbone, None), config).uninitialised


@pytest.mark.parametrize("last_level", ["pool", "none"])
def test_an_averaging_pyramid_is_detectron2s(last_level: str) -> None:
    """FPN.forward with fuse_type avg, line by line; the sum otherwise, by the same weights."""
    torch.manual_seed(0)
    fpn = AveragingFPN([8, 16, 32, 64], 8, "gn", 4, last_level)
    c = [torch.randn(2, 8 * 2**i, 32 >> i, 48 >> i) for i in range(4)]

    def wanted(divisor: float) -> list[Tensor]:
        previous = fpn.inner_blocks[-1](c[-1])
        results = [fpn.layer_blocks[-1](previous)]
        for i in (2, 1, 0):
            previous = (fpn.inner_blocks[i](c[i]) + F.interpolate(previous, scale_factor=2.0)) / divisor
            results.insert(0, fpn.layer_blocks[i](previous))
        return [*results, F.max_pool2d(results[-1], 1, 2)] if last_level == "pool" else results

    for ours, theirs in zip(fpn(c), wanted(2), strict=True):
        torch.testing.assert_close(ours, theirs)
    summing = FPN([8, 16, 32, 64], 8, "gn", 4, last_level)
    summing.load_state_dict(OrderedDict(fpn.state_dict()))
    for ours, theirs in zip(summing(c), wanted(1), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    "changes,named",
    [
        (["model.backbone.deformable=[2]"], "deformable"),
        (["model.backbone.groups=32"], "no bottlenecks"),  # the small model has ResNet-10
        (["model.backbone.kind=regnet_x_4gf", "model.backbone.non_local=1"], "non_local"),
        (["model.backbone.depth=50", "model.backbone.dilated_c5=true"], "neck.kind=fpn"),
        (["model.neck.kind=c4"], "box_head.kind=fc"),
        (["model.box_head.kind=res5"], "neck.kind=fpn"),
        (["model.neck.kind=c4", "model.box_head.kind=res5"], "mask_head.kind=fcn"),
        (["model.neck.kind=c4", "model.box_head.kind=res5", "model.mask_head.kind=res5"], "box_size=7"),
    ],
)
def test_what_does_not_go_together_is_refused(changes: list[str], named: str) -> None:
    with pytest.raises(UserError, match=named):
        compose(["model=mask_rcnn_small", *changes])


def test_missing_imagenet_weights_are_told() -> None:
    for config in (
        BackboneConfig(kind="regnet_x_4gf", weights="imagenet"),
        BackboneConfig(depth=152, groups=32, width_per_group=8, weights="imagenet"),
    ):
        with pytest.raises(UserError, match="no ImageNet weights"):
            load_backbone(build_backbone(config, None), ModelConfig(backbone=config))
