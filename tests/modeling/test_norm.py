"""Normalisation: joined statistics over processes, empty batches, statistics held still."""

import copy
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from mrbench.errors import UserError
from mrbench.modeling.norm import BatchNorm2d, SyncBatchNorm2d, held_statistics, make_norm

CHANNELS = 3
SHARES = ([5, 2], [4, 0])  # samples of the two processes


def _layer() -> SyncBatchNorm2d:
    layer = SyncBatchNorm2d(CHANNELS)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        layer.bias.copy_(torch.tensor([-1.0, 0.0, 1.0]))
    return layer


def _data(samples: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = 3 * torch.randn(samples, CHANNELS, 4, 5, generator=g) + 2
    return x, torch.randn(x.shape, generator=g)


def _process(rank: int, store: str, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    results = []
    for shares in SHARES:
        x, weights = _data(sum(shares))
        mine = slice(sum(shares[:rank]), sum(shares[: rank + 1]))
        layer = _layer()
        part = x[mine].clone().requires_grad_()
        out = layer(part)
        (out * weights[mine]).sum().backward()
        with held_statistics(layer), torch.no_grad():
            layer(part + 10)
        parameters = [layer.weight.grad, layer.bias.grad]
        results.append([out.detach(), part.grad, *parameters, layer.running_mean, layer.running_var])
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def test_sync_bn_over_two_processes_is_batch_norm_of_the_joined_batch(tmp_path: Path) -> None:
    mp.spawn(_process, (str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    both = zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2)), strict=True)
    for shares, (a, b) in zip(SHARES, both, strict=True):
        joined = nn.BatchNorm2d(CHANNELS)
        joined.load_state_dict(_layer().state_dict())
        x, weights = _data(sum(shares))
        x.requires_grad_()
        out = joined(x)
        (out * weights).sum().backward()
        close = {"rtol": 1e-5, "atol": 1e-5}
        torch.testing.assert_close(torch.cat([a[0], b[0]]), out.detach(), **close)
        torch.testing.assert_close(torch.cat([a[1], b[1]]), x.grad, **close)
        # a process has its own share of the parameters' gradient
        torch.testing.assert_close(a[2] + b[2], joined.weight.grad, **close)
        torch.testing.assert_close(a[3] + b[3], joined.bias.grad, **close)
        for one in (a, b):
            torch.testing.assert_close(one[4], joined.running_mean, **close)
            torch.testing.assert_close(one[5], joined.running_var, **close)


def test_sync_bn_alone_is_plain_batch_norm() -> None:
    layer, x = _layer(), _data(4)[0]
    plain = nn.BatchNorm2d(CHANNELS)
    plain.load_state_dict(layer.state_dict())
    assert torch.equal(layer(x), plain(x))
    assert torch.equal(layer.eval()(x), plain.eval()(x))


@pytest.mark.parametrize("kind", ["bn", "sync_bn", "gn", "frozen_bn"])
def test_no_samples_leave_statistics_and_give_zero_gradients(kind: str) -> None:
    layer = make_norm(kind, 8, 4)
    before = copy.deepcopy(layer.state_dict())
    x = torch.zeros(0, 8, 3, 3, requires_grad=True)
    layer(x).sum().backward()
    assert all(p.grad is not None and not p.grad.any() for p in layer.parameters())
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_held_statistics_stay_and_the_output_is_the_same() -> None:
    layer, x = BatchNorm2d(CHANNELS), _data(4)[0]
    before = copy.deepcopy(layer.state_dict())
    with held_statistics(layer):
        held = layer(x)
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())
    assert torch.equal(held, layer(x))
    assert not torch.equal(layer.running_mean, before["running_mean"])


def test_group_norm_has_32_groups_or_groups_of_the_given_size() -> None:
    assert make_norm("gn", 256).num_groups == 32
    assert make_norm("gn", 64, 8).num_groups == 8
    with pytest.raises(UserError, match="48 channels"):
        make_norm("gn", 48)
