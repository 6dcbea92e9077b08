"""A step: losses over the whole batch, whatever it is cut into, in every number format."""

import dataclasses
from collections.abc import Callable

import pytest
import torch

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.precision import check_precision
from mrbench.engine.step import TrainStep
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.modeling.losses import LossTerm

CPU = torch.device("cpu")


def start(config: RunConfig) -> TrainStep:
    torch.manual_seed(config.seed)
    return TrainStep(build_detector(config.model, 4), config, CPU)


def batches(config: RunConfig, count: int) -> list[Batch]:
    loader = train_loader(open_split(config.data, "train"), config)
    return [next(loader) for _ in range(count)]


@pytest.mark.parametrize("norm", ["gn", "frozen_bn"])
def test_a_batch_in_parts_is_the_same_batch(
    tiny: Callable[..., RunConfig], every_proposal: tuple[str, ...], norm: str
) -> None:
    changes = (f"model.norm={norm}", "optimizer=sgd", *every_proposal)
    whole = tiny(*changes)
    data = batches(whole, 6)
    reference = start(whole)
    expected = [reference(batch) for batch in data]
    for parts in (2, 4):
        step = start(tiny(*changes, f"runtime.accumulate={parts}"))
        for batch, losses in zip(data, expected, strict=True):
            found = step(batch)
            assert {k: float(v) for k, v in found.items()} == pytest.approx(
                {k: float(v) for k, v in losses.items()}, abs=1e-4
            )


def test_losses_are_sums_over_the_samples_of_the_batch(tiny: Callable[..., RunConfig]) -> None:
    config = tiny()
    (batch,) = batches(config, 1)
    step = start(config)
    with torch.no_grad():
        terms = step.model(batch)
    expected = {name: float(term.sum / max(float(term.count), 1.0)) for name, term in terms.items()}
    found = {name: float(value) for name, value in step(batch).items()}
    assert found.pop("loss") == pytest.approx(sum(expected.values()), rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["bf16", "fp16"])
def test_half_precision_follows_fp32(tiny: Callable[..., RunConfig], kind: str) -> None:
    data = batches(tiny(), 3)
    full, half = start(tiny("optimizer=sgd")), start(tiny("optimizer=sgd", f"precision={kind}"))
    for batch in data:
        expected, found = full(batch)["loss"], half(batch)["loss"]
        assert found.dtype == torch.float32
        assert float(found) == pytest.approx(float(expected), rel=0.03)


def test_an_overflow_in_fp16_skips_the_update_and_halves_the_scale(
    tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("precision=fp16", "precision.initial_scale=1024")
    (batch,) = batches(config, 1)
    step = start(config)
    before = [parameter.detach().clone() for parameter in step.model.parameters()]
    forward = step.model.forward

    def with_infinite_gradient(batch: Batch) -> dict[str, LossTerm]:
        terms = forward(batch)
        spoilt = terms["mask"]
        # Finite itself; its gradient is not.
        return {**terms, "mask": LossTerm(spoilt.sum + (spoilt.sum * 0).sqrt(), spoilt.count)}

    with monkeypatch.context() as patch:
        patch.setattr(step.model, "forward", with_infinite_gradient)
        step(batch)
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
    assert step.scaler.get_scale() == 512.0
    other = start(config)
    other.load_state_dict(step.state_dict())
    assert other.scaler.get_scale() == 512.0
    step(batch)
    assert not all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))


def test_tf32_on_a_cpu_is_refused(tiny: Callable[..., RunConfig]) -> None:
    with pytest.raises(UserError, match="tf32"):
        start(tiny("precision=tf32"))


def test_tf32_on_a_gpu_without_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    with pytest.raises(UserError, match="Tesla V100 does not compute in tf32"):
        check_precision("tf32", gpu)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_precision("tf32", gpu)


def test_the_rate_is_that_of_the_batchs_iteration(tiny: Callable[..., RunConfig]) -> None:
    config = tiny("schedule.warmup_iterations=0", "schedule.decay=steps", "schedule.milestones=[5]")
    (batch,) = batches(config, 1)
    step = start(config)
    for iteration, rate in ((4, config.optimizer.lr), (5, config.optimizer.lr * config.schedule.gamma)):
        step(dataclasses.replace(batch, iteration=iteration))
        assert [group["lr"] for group in step.optimizer.param_groups] == [pytest.approx(rate)] * 2
