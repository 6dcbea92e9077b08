"""Averaged weights: what they are, that they are what is evaluated and kept, and that a resume goes on with them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.step import TrainStep
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector
from mrbench.runs.record import open_run

Tiny = Callable[..., RunConfig]
AVERAGED = ("optimizer.ema=0.75", "model.norm=bn", "model.backbone.freeze_at=2")


def start(config: RunConfig) -> TrainStep:
    torch.manual_seed(config.seed)
    return TrainStep(build_detector(config.model, 4), config, torch.device("cpu"))


def batches(config: RunConfig, count: int) -> list[Batch]:
    loader = train_loader(open_split(config.data, "train"), config)
    return [next(loader) for _ in range(count)]


def test_the_average_is_torchs_and_its_buffers_the_models(tiny: Tiny) -> None:
    step = start(tiny(*AVERAGED))
    reference = AveragedModel(step.model, multi_avg_fn=get_ema_multi_avg_fn(0.75))
    reference.update_parameters(step.model)  # torch's begins with the first weights it is shown
    for batch in batches(tiny(*AVERAGED), 3):
        step(batch)
        reference.update_parameters(step.model)
    found = step.evaluated()
    for (name, ours), theirs in zip(found.named_parameters(), reference.module.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=name)
    moved = [n for n, p in step.model.named_parameters() if not torch.equal(p, found.get_parameter(n))]
    assert any(name.startswith("neck") for name in moved)
    assert not any(name.startswith("backbone.layer1") for name in moved), "frozen weights have no other average"
    for (name, ours), theirs in zip(found.named_buffers(), step.model.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_training_itself_does_not_see_the_average(tiny: Tiny) -> None:
    steps = start(tiny(*AVERAGED[1:])), start(tiny(*AVERAGED))
    for batch in batches(tiny(*AVERAGED), 3):
        plain, averaged = (step(batch) for step in steps)
        assert all(torch.equal(plain[name], averaged[name]) for name in plain)


def test_a_resumed_run_has_the_same_average_and_keeps_it(tmp_path: Path, tiny: Tiny) -> None:
    whole, parts = tiny(*AVERAGED, "schedule.iterations=5"), tiny(*AVERAGED, "schedule.iterations=5")
    data = batches(whole, 5)
    through, first, second = start(whole), start(parts), start(parts)
    for batch in data:
        through(batch)
    for batch in data[:3]:
        first(batch)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for batch in data[3:]:
        second(batch)
    for key in ("model", "trained"):
        expected, found = through.state_dict()[key], second.state_dict()[key]
        assert all(torch.equal(found[name], value) for name, value in expected.items()), key


def test_a_runs_final_weights_are_the_averaged_ones(tmp_path: Path, tiny: Tiny) -> None:
    config = tiny(*AVERAGED, "schedule.iterations=4", "evaluation.period=0")
    run = open_run(tmp_path, config)
    train(run, config)
    step = start(config)
    for batch in batches(config, 4):
        step(batch)
    kept = torch.load(run.checkpoint_dir / "final.pt", weights_only=True)["model"]
    saved = torch.load(run.checkpoint_dir / "00000004.pt", weights_only=True)
    for name, value in step.evaluated().state_dict().items():
        assert torch.equal(kept[name], value), name
        assert torch.equal(saved["model"][name], value), name
        assert torch.equal(saved["trained"][name], step.model.state_dict()[name]), name


def test_an_average_that_would_never_move_is_refused(tiny: Tiny) -> None:
    with pytest.raises(UserError, match=r"optimizer\.ema"):
        tiny("optimizer.ema=1")
