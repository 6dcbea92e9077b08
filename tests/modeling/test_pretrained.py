"""Initial weights of the body from torchvision's files."""

from pathlib import Path

import pytest
import torch
from torchvision.models import resnet18, resnet50

from mrbench.config.schema import BackboneConfig
from mrbench.errors import UserError
from mrbench.modeling.build import build_backbone


@pytest.mark.parametrize("depth,make", [(18, resnet18), (50, resnet50)])
def test_a_torchvision_resnet_from_a_file_gives_its_features(depth: int, make: type, tmp_path: Path) -> None:
    theirs = make(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "r.pt")
    body = build_backbone(BackboneConfig(depth=depth, weights=str(tmp_path / "r.pt")), None).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(x))))
        for i, ours in enumerate(body(x), 1):
            wanted = getattr(theirs, f"layer{i}")(wanted)
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    torch.save(resnet18(weights=None).state_dict(), tmp_path / "r.pt")
    with pytest.raises(UserError, match=r"another shape: bn1\.bias is \(64,\), needs \(32,\)"):
        build_backbone(BackboneConfig(depth=18, width=32, weights=str(tmp_path / "r.pt")), None)
    with pytest.raises(UserError, match="missing: bn2"):
        build_backbone(BackboneConfig(depth=18, stem="3x3", weights=str(tmp_path / "r.pt")), None)
    with pytest.raises(UserError, match="no file"):
        build_backbone(BackboneConfig(weights=str(tmp_path / "absent.pt")), None)
    (tmp_path / "text.pt").write_text("no tensors")
    with pytest.raises(UserError, match="plain tensors"):
        build_backbone(BackboneConfig(weights=str(tmp_path / "text.pt")), None)
    with pytest.raises(UserError, match="no ImageNet weights"):
        build_backbone(BackboneConfig(depth=10, weights="imagenet"), None)
