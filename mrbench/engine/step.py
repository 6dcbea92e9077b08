"""One training step: forward, losses over the batch, backward, update.

The host waits for a GPU only at the suppression of the RPN's proposals (torchvision's NMS, once for a few images),
with batch norm over RoIs in the heads, and in a mask branch of fully connected layers.
"""

import inspect
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import fp16_compress_hook
from torch.nn.parallel import DistributedDataParallel

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.engine.averaging import WeightAverage
from mrbench.engine.execution import check_algorithms, place, set_algorithms, speed_up
from mrbench.engine.optimizer import build_optimizer, set_learning_rate, update
from mrbench.engine.precision import autocast, build_scaler, check_precision, set_matmul_precision
from mrbench.engine.schedule import factor
from mrbench.modeling.build import Network
from mrbench.modeling.losses import LossTerm
from mrbench.modeling.widen import at_least_float32

# Renamed in torch 2.15, which warns of the old name.
SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel.__init__).parameters
)


class TrainStep:
    """Trains `model` by one batch a call.

    Each loss is a sum over its samples divided by their number in the *global* batch, whatever the number of
    processes and of parts (`runtime.accumulate`): the result depends on neither (DESIGN section 1.3). With
    `schedule.loss_normalisation` per_device it is the mean over the processes of the sum of each divided by its own
    number. With more than one process the default process group must be up, and every process calls with its share of
    the batch.

    Args:
        model: moved to `device`, and put into training mode.
        config: the run; its schedule gives the learning rate at `batch.iteration`.
        world_size: processes that share a batch.

    Raises UserError where the device cannot compute in the precision or the fixed order asked for, or there is no
    compiler.
    """

    def __init__(self, model: Network, config: RunConfig, device: torch.device, world_size: int = 1) -> None:
        check_precision(config.precision.kind, device)
        check_algorithms(config, device)
        set_matmul_precision(config.precision.kind)
        set_algorithms(config.runtime, device)
        self.model = place(model, config.runtime, device).train()
        self.device = device
        self.world_size = world_size
        self._precision = config.precision.kind
        self._schedule = config.schedule
        self._optimizer_config = config.optimizer
        self._parts = config.runtime.accumulate
        self._per_device = config.schedule.loss_normalisation == "per_device"
        ema = config.optimizer.ema
        self._average = WeightAverage(model, ema) if ema else None
        speed_up(model, config.runtime, device)
        self.optimizer = build_optimizer(model, config.optimizer)
        self.scaler = build_scaler(config.precision, device)
        self._network: nn.Module = model
        if world_size > 1:
            ids = [device.index] if device.type == "cuda" else None
            # Buffers are not sent around at each step: only the running statistics of plain batch norm would
            # differ between processes, and they play no part in training.
            options: dict[str, Any] = {SYNC_BUFFERS: False}
            self._network = DistributedDataParallel(model, ids, gradient_as_bucket_view=True, **options)
            if config.precision.fp16_gradients:
                self._network.register_comm_hook(None, fp16_compress_hook)

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        """Train on this process's share of a batch.

        Returns what is minimised, detached scalars on the device, the same in every process: each loss by its name,
        and their sum as `loss`.
        """
        batch = batch.to(self.device, non_blocking=True)
        self.optimizer.zero_grad(set_to_none=True)
        losses = self._accumulate(batch) if self._parts > 1 else self._at_once(batch)
        self._update(batch.iteration)
        return {"loss": torch.stack(list(losses.values())).sum(), **losses}

    def _at_once(self, batch: Batch) -> dict[str, Tensor]:
        terms = self._forward(batch)
        names = list(terms)
        sums = torch.stack([at_least_float32(terms[name].sum.detach()) for name in names])
        counts = torch.stack([at_least_float32(terms[name].count) for name in names])
        if self._per_device:
            totals = self._own_totals(counts)
            means = self._over_processes(sums / totals)
        else:  # in one exchange
            sums, counts = self._over_processes(torch.stack([sums, counts])).unbind()
            totals = counts.clamp(min=1)
            means = sums / totals
        self._backward(terms, dict(zip(names, totals.unbind(), strict=True)))
        return dict(zip(names, means.unbind(), strict=True))

    def _accumulate(self, batch: Batch) -> dict[str, Tensor]:
        """The same in parts. What to divide by must be known before the first part's backward pass, hence a
        forward pass of each part that only counts its samples."""
        parts = batch.chunk(self._parts)
        with torch.no_grad(), autocast(self._precision, self.device):
            counted = [self.model.count_samples(part) for part in parts]
        names = list(counted[0])
        counts = torch.stack([sum_of([part[name].float() for part in counted]) for name in names])
        totals = self._own_totals(counts) if self._per_device else self._over_processes(counts).clamp(min=1)
        by_name = dict(zip(names, totals.unbind(), strict=True))
        sums = torch.zeros(len(names), device=self.device)
        for index, part in enumerate(parts):
            last = index == len(parts) - 1
            with nullcontext() if last or self.world_size == 1 else self._network.no_sync():  # type: ignore[operator]
                terms = self._forward(part)
                self._backward(terms, by_name)
            sums = sums + torch.stack([at_least_float32(terms[name].sum.detach()) for name in names])
        means = self._over_processes(sums / totals)
        return dict(zip(names, means.unbind(), strict=True))

    def _own_totals(self, counts: Tensor) -> Tensor:
        """What this process's sums are divided by, so that the processes' quotients add up to the mean of their own
        losses."""
        return counts.clamp(min=1) * self.world_size

    def _forward(self, batch: Batch) -> Mapping[str, LossTerm]:
        with autocast(self._precision, self.device):
            terms: Mapping[str, LossTerm] = self._network(batch)
        return terms

    def _backward(self, terms: Mapping[str, LossTerm], totals: Mapping[str, Tensor]) -> None:
        loss = sum_of([at_least_float32(term.sum) / totals[name] for name, term in terms.items()])
        # DistributedDataParallel averages gradients over the processes, where the loss is the sum of what they have.
        self.scaler.scale(loss * self.world_size).backward()

    def _update(self, iteration: int) -> None:
        set_learning_rate(self.optimizer, self.learning_rate(iteration))
        update(self.optimizer, self.scaler, self._optimizer_config)
        if self._average is not None:
            self._average.update()

    def _over_processes(self, values: Tensor) -> Tensor:
        if self.world_size > 1:
            dist.all_reduce(values)
        return values

    def learning_rate(self, iteration: int) -> float:
        """Of the update at `iteration`, counted from 0; `optimizer.lr_factors` give parts a multiple of it."""
        return self._optimizer_config.lr * factor(self._schedule, iteration)

    def evaluated(self) -> Network:
        """The network as it would be used now: that with averaged weights under `optimizer.ema`, else `model`."""
        return self.model if self._average is None else self._average.model()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on besides its batch. `model` are the weights to use; where these are
        averaged, `trained` are those that training goes on with."""
        trained = {} if self._average is None else {"trained": self.model.state_dict()}
        return {
            "model": self.evaluated().state_dict(),
            **trained,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.model.load_state_dict(state.get("trained", state["model"]))
        if self._average is not None:
            self._average.model().load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def sum_of(values: list[Tensor]) -> Tensor:
    """The sum of scalars, added up in their order."""
    return torch.stack(values).sum()
