"""Normalisation layers by name: frozen_bn, bn, sync_bn, gn, none."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision import ops

from mrbench.errors import UserError
from mrbench.modeling.widen import at_least_float32

EPS = 1e-5
MOMENTUM = 0.1


class FrozenBatchNorm2d(ops.FrozenBatchNorm2d):
    """torchvision's: a fixed scale and shift of every channel. The convolution before it may do its work
    (mrbench.modeling.folding); then it passes on what it is given."""

    folded = False

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Both [C], in the buffers' precision."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape."""
        return x if self.folded else super().forward(x)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch norm that lets nothing through when there is no RoI, and whose statistics can be held still."""

    hold_statistics = False

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[0] == 0:
            return x * self.weight[:, None, None] + self.bias[:, None, None]
        if self.training and self.hold_statistics:
            # With momentum 0, and not without them: what is kept for the gradients then is the same as otherwise.
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, True, 0.0, self.eps)
        return super().forward(x)


class _SumOverProcesses(torch.autograd.Function):
    """Sum of a tensor over the processes; the gradient is summed likewise."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        total = grad.clone()
        dist.all_reduce(total)
        return total


class SyncBatchNorm2d(BatchNorm2d):
    """Batch norm over the joined batch of all processes, on CPUs (gloo) as on GPUs (nccl).

    torch.nn.SyncBatchNorm runs on GPUs only and does not take an empty batch; this is the differentiable all-reduce
    of Detectron2's NaiveSyncBatchNorm (layers/batch_norm.py, stats_mode "N"), so processes may hold different
    numbers of samples, none included. Without a process group it is plain batch norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not (self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
            return super().forward(x)
        channels = x.shape[1]
        wide = at_least_float32(x)
        count = wide.new_full((1,), wide.numel() / channels)
        local = torch.cat([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3)), count])
        total = _SumOverProcesses.apply(local)
        n = total[-1].detach().clamp(min=1)
        mean = total[:channels] / n
        variance = (total[channels:-1] / n - mean.square()).clamp(min=0)
        if not self.hold_statistics:
            self._follow(mean.detach(), variance.detach(), total[-1].detach())
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (wide * scale[:, None, None] + shift[:, None, None]).to(x.dtype)

    @torch.no_grad()
    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        momentum = MOMENTUM if self.momentum is None else self.momentum
        some = (count > 0).to(mean.dtype) * momentum  # no sample anywhere: nothing was learnt
        assert self.running_mean is not None
        assert self.running_var is not None
        unbiased = variance * count / (count - 1).clamp(min=1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), some)
        self.running_var.lerp_(unbiased.to(self.running_var.dtype), some)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)


@contextmanager
def held_statistics(model: nn.Module) -> Iterator[None]:
    """Within this context a forward pass leaves every running mean and variance as it is."""
    layers = [m for m in model.modules() if isinstance(m, BatchNorm2d)]
    for layer in layers:
        layer.hold_statistics = True
    try:
        yield
    finally:
        for layer in layers:
            layer.hold_statistics = False


def make_norm(kind: str, channels: int, group_size: int | None = None) -> nn.Module:
    """A normalisation layer for `channels` channels.

    `group_size` is for gn: channels a group; None means 32 groups (Wu & He 2018, section 4). Raises UserError where
    the channels do not divide.
    """
    if kind == "none":
        return nn.Identity()
    if kind == "frozen_bn":
        return FrozenBatchNorm2d(channels, eps=EPS)
    if kind == "bn":
        return BatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)
    if kind == "sync_bn":
        return SyncBatchNorm2d(channels, eps=EPS, momentum=MOMENTUM)
    if kind == "gn":
        groups, rest = divmod(channels, group_size) if group_size else (32, channels % 32)
        if rest or not groups:
            wanted = f"groups of {group_size}" if group_size else "32 groups"
            raise UserError(
                f"Group norm: {channels} channels cannot be cut into {wanted}.",
                "Set model.group_size to a divisor of every layer's channels, for example model.group_size=8.",
            )
        return nn.GroupNorm(groups, channels, eps=EPS)
    raise ValueError(f"unknown norm {kind!r}")


def norm_factory(kind: str, group_size: int | None = None) -> Callable[[int], nn.Module] | None:
    """A function from channels to a layer, as torchvision's modules take it; None for "none"."""
    return None if kind == "none" else lambda channels: make_norm(kind, channels, group_size)


def averages_over_samples(kind: str) -> bool:
    """Whether a sample's output depends on which other samples are in the batch."""
    return kind in ("bn", "sync_bn")
