"""A training step on a GPU never waits for it."""

import pytest
import torch

from mrbench.config.compose import compose
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.execution import set_algorithms
from mrbench.engine.nonfinite import LossGuard
from mrbench.engine.step import TrainStep
from mrbench.modeling.build import build_detector

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.mark.parametrize("kind", ["fp32", "tf32", "fp16", "bf16"])
def test_a_step_does_not_wait_for_the_device(kind: str) -> None:
    small = ("data.shapes.train_images=24", "data.shapes.val_images=2", "runtime.num_workers=0")
    config = compose([*small, f"precision={kind}", "optimizer.clip_norm=5", "optimizer.ema=0.9"])
    device = torch.device("cuda", 0)
    dataset = open_split(config.data, "train")
    torch.manual_seed(0)
    step = TrainStep(build_detector(config.model, len(dataset.categories)), config, device)
    loader = train_loader(dataset, config)
    batches = [next(loader).to(device) for _ in range(5)]
    guard = LossGuard()
    for batch in batches[:2]:  # the optimiser makes its state, cuDNN chooses its kernels
        step(batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[2:]:
            guard.add(batch.iteration, step(batch), batch.image_ids)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    guard.check()


def test_fixed_algorithms_give_the_same_bits_twice() -> None:
    small = ("data.shapes.train_images=24", "data.shapes.val_images=2", "runtime.num_workers=0")
    config = compose([*small, "runtime.deterministic=true", "runtime.channels_last=true"])
    device = torch.device("cuda", 0)
    dataset = open_split(config.data, "train")
    found = []
    try:
        for _ in range(2):
            torch.manual_seed(0)
            step = TrainStep(build_detector(config.model, len(dataset.categories)), config, device)
            loader = train_loader(dataset, config)
            losses = [float(step(next(loader))["loss"]) for _ in range(10)]
            found.append((losses, [parameter.detach().cpu() for parameter in step.model.parameters()]))
    finally:
        set_algorithms(compose().runtime, device)
    assert found[0][0] == found[1][0]
    assert all(torch.equal(a, b) for a, b in zip(found[0][1], found[1][1], strict=True))
