"""The training loop of one process: steps, and what is due after some of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import check_same_categories, open_split
from mrbench.engine import checkpoint
from mrbench.engine.distributed import (
    World,
    choose_device,
    from_main,
    is_of_exchange,
    largest,
    main_process_first,
    process_group,
    set_threads,
)
from mrbench.engine.evaluate import Result, evaluate_model, write_result
from mrbench.engine.failures import NonFiniteLoss, OutOfMemory
from mrbench.engine.means import Means
from mrbench.engine.nonfinite import LossGuard, check_weights
from mrbench.engine.nvml import EnergyMeter, run_gpus
from mrbench.engine.progress import Reporter, Throughput, peak_memory
from mrbench.engine.signals import Preempted, StopSignal
from mrbench.engine.step import TrainStep
from mrbench.engine.tracking import Tracking
from mrbench.errors import UserError
from mrbench.evaluation.gather import gather
from mrbench.modeling.build import build_network
from mrbench.runs import metrics, provenance
from mrbench.runs.record import Run

HEARTBEAT_SECONDS = 20.0
NOT_DETERMINISTIC = "does not have a deterministic implementation"  # as torch says it of an operation


def train_process(world: World, store: dist.Store | None, folder: Path, config: RunConfig) -> None:
    """Train, resuming where a checkpoint lies, evaluate, and write the final weights, as one of `world.size`.

    Raises:
        Preempted: SIGTERM or SIGINT came; a checkpoint of that moment is written.
        NonFiniteLoss, OutOfMemory: training cannot go on.
        ProcessDied, ProcessSilent: another process is gone, or hangs.
        UserError: data, weights or files that cannot be used.
    """
    run = Run(folder)
    track = config.runtime.track if world.main else []
    with (
        StopSignal() as stop,
        Reporter(run, world.main) as reporter,
        Tracking(run, config, track, reporter.say) as tracking,
    ):
        device = choose_device(config.runtime, world)
        set_threads(config.runtime, world.local_size)
        try:
            with process_group(world, device, config.runtime, store):
                Loop(world, device, run, config, stop, reporter, tracking).run_to_end()
        except torch.OutOfMemoryError as error:
            raise OutOfMemory(f"{error}; try runtime.accumulate={2 * config.runtime.accumulate}") from error
        except RuntimeError as error:
            if config.runtime.deterministic and NOT_DETERMINISTIC in str(error):
                raise UserError(str(error).partition(".")[0], "Set runtime.deterministic=false.") from error
            raise


class Loop:
    """One process's part of a run. `done` counts the updates made, over all attempts."""

    def __init__(
        self,
        world: World,
        device: torch.device,
        run: Run,
        config: RunConfig,
        stop: StopSignal,
        reporter: Reporter,
        tracking: Tracking,
    ) -> None:
        self.world, self.device, self.run, self.config = world, device, run, config
        self.stop, self.reporter, self.tracking = stop, reporter, tracking
        self.total = config.schedule.iterations
        with main_process_first(world):
            self.dataset = open_split(config.data, "train")
            # Opened now, so that what is wrong with it is known before hours of training.
            self.validation = open_split(config.data, "val")
            check_same_categories(self.dataset, self.validation)
            self.category_names = [category.name for category in self.dataset.categories]
            # Every process makes the same initial weights.
            torch.manual_seed(config.seed)
            model = build_network(config.model, len(self.dataset.categories), reporter.say)
        if config.model.weights is not None:
            by_name = self.category_names if config.model.weights_classes == "by_name" else None
            path, mismatch = Path(config.model.weights), config.model.weights_mismatch
            loaded = checkpoint.load_model_weights(path, model, mismatch, by_name)
            for line in loaded.lines():
                reporter.say(line)
        if world.main:
            sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
            trained = sum(size for size, wanted in sizes if wanted)
            provenance.add(run, parameters=sum(size for size, _ in sizes), trained_parameters=trained)
        self.step = TrainStep(model, config, device, world.size)
        self.guard = LossGuard()
        self.means = Means(device)
        self.throughput = Throughput(config.schedule.images_per_batch)
        self.energy = EnergyMeter(run_gpus(device, world) if world.main else [], run.status().energy)
        self.done = self._resume()

    def _resume(self) -> int:
        path = checkpoint.newest(self.run.checkpoint_dir, self.reporter.say) if self.world.main else None
        path = from_main(path, self.world)
        if path is None:
            return 0
        state = checkpoint.load(path)
        self.step.load_state_dict(state)
        self.means.load_state_dict(state["means"])
        done = int(state["iteration"])
        self.reporter.say(f"goes on from iteration {done} ({path.name})")
        return done

    def run_to_end(self) -> None:
        """All steps that are left, then the final evaluation."""
        if self.world.main:
            self.tracking.start(self._history())
        if self._evaluation_due() and not self._evaluated():
            self._evaluate()  # the last attempt saved a checkpoint, but died before its evaluation was logged
        for batch in self._batches():
            try:
                losses = self.step(batch)
            except RuntimeError as error:
                # Of the end of a loader's worker, which torch reports anywhere. torchrun also sends SIGTERM where
                # another process has died: that is no request to stop.
                if self.stop.received is not None and not is_of_exchange(error):
                    raise Preempted(self.stop.received) from None
                raise
            self.done += 1
            self._after_step(batch, losses)
        result = self._evaluate()
        if result is not None:
            write_result(self.run, self.config, result, self.done)
            checkpoint.save_weights(self.run.checkpoint_dir, self.step.evaluated(), self.done, self.category_names)

    def _batches(self) -> Iterator[Batch]:
        batches = train_loader(self.dataset, self.config, self.world.rank, self.world.size, self.done)
        while True:
            try:
                batch = next(batches, None)
            except RuntimeError:
                # Whoever stops a whole process group stops the loader's workers too, and torch reports that.
                if self.stop.received is not None and self.world.size == 1:
                    self._save()
                    raise Preempted(self.stop.received, self.done) from None
                raise
            if batch is None:
                return
            yield batch

    def _after_step(self, batch: Batch, losses: dict[str, Tensor]) -> None:
        self.means.add(losses)
        self.guard.add(self.done, losses, batch.image_ids)
        self.throughput.iteration_done()
        last = self.done == self.total
        logging = last or self.done % self.config.runtime.log_period == 0
        looking = logging or self.device.type == "cpu"  # where a look costs no wait
        if looking:
            self._check()
        if logging:
            self._log()
        elif self.done == 1 and self.world.main:  # a sign of life; the record's lines stay means over log_period
            memory = peak_memory(self.device)
            self.reporter.show(1, self.total, self.means.now(), None, self.config.schedule.images_per_batch, memory)
        stopped = 0
        if looking or self.world.size == 1:
            stopped = largest(self.stop.received or 0, self.world)
        if last or stopped or self.done % self.config.runtime.checkpoint_period == 0:
            with self.throughput.paused():
                self._check()
                self._save(batch.image_ids)
        if stopped:
            raise Preempted(stopped, self.done)
        if self._evaluation_due():
            self._evaluate()

    def _check(self) -> None:
        with self._all_image_ids():
            self.guard.check()

    @contextmanager
    def _all_image_ids(self) -> Iterator[None]:
        """Completes a NonFiniteLoss of the block with the image ids of the other processes.

        All of them see the same global losses and the same weights, and meet here.
        """
        try:
            yield
        except NonFiniteLoss as error:
            ids = gather(error.image_ids) or error.image_ids
            raise NonFiniteLoss(error.iteration, error.loss, error.value, ids) from None

    def _save(self, image_ids: list[int] | None = None) -> None:
        with self._all_image_ids():
            check_weights(self.step.model, self.done, image_ids or [])
        if self.world.main:
            state = {**self.step.state_dict(), "means": self.means.state_dict(), "categories": self.category_names}
            checkpoint.save(self.run.checkpoint_dir, self.done, state, self.config.runtime.keep_checkpoints)

    def _log(self) -> None:
        losses = self.means.take()
        if not self.world.main:
            return
        lap, overall, memory = self.throughput.lap(), self.throughput.overall(), peak_memory(self.device)
        entry = {
            "kind": "train",
            "iteration": self.done,
            **losses,
            "lr": self.step.learning_rate(self.done - 1),
            "time": round(time.time(), 3),
            "images_per_second": lap,
            "peak_memory": memory,
        }
        self._record(entry)
        joules = self.energy.joules()
        spent = {} if joules is None else {"energy": round(joules, 1)}
        self.run.update(iteration=self.done, images_per_second=overall, peak_memory=memory, **spent)
        self.reporter.show(self.done, self.total, losses, overall, self.config.schedule.images_per_batch, memory)

    def _history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that this attempt does not write again: it evaluates at the end in any case."""
        lines = (line for line in self.run.metrics() if line["iteration"] <= self.done)
        return [line for line in lines if line["kind"] == "train" or line["iteration"] < self.total]

    def _record(self, entry: dict[str, Any]) -> None:
        metrics.append(self.run.metrics_file, entry)
        self.tracking.add(entry)

    def _evaluation_due(self) -> bool:
        period = self.config.evaluation.period
        return period > 0 and 0 < self.done < self.total and self.done % period == 0

    def _evaluated(self) -> bool:
        logged = ((line["kind"], line["iteration"]) for line in self.run.metrics()) if self.world.main else ()
        return bool(from_main(("evaluation", self.done) in set(logged), self.world))

    def _evaluate(self) -> Result | None:
        self.reporter.say(f"iteration {self.done}: evaluating {len(self.validation)} images")
        with self.throughput.paused():
            result = evaluate_model(
                self.step.evaluated(), self.config, self.validation, self.device, self.world, self._heartbeat()
            )
        if result is not None:
            entry = {"kind": "evaluation", "iteration": self.done, **result.evaluation.metrics}
            self._record({**entry, "time": round(time.time(), 3)})
            shown = ("box/AP", "mask/AP", "proposal/AR100", "proposal/AR1000")
            found = (f"{name} {value:.2f}" for name, value in entry.items() if name in shown and value is not None)
            self.reporter.say(f"iteration {self.done}: {', '.join(found)} ({result.seconds:.1f} s)")
        return result

    def _heartbeat(self) -> "Heartbeat":
        return Heartbeat(self.run if self.world.main else None, self.stop)


class Heartbeat:
    """Called as an evaluation goes on: keeps status.json's `updated` fresh, and ends it when asked to stop."""

    def __init__(self, run: Run | None, stop: StopSignal) -> None:
        self._run = run
        self._stop = stop
        self._last = time.monotonic()

    def __call__(self, images: int) -> None:
        if self._stop.received is not None:
            raise Preempted(self._stop.received)
        if self._run is not None and time.monotonic() - self._last > HEARTBEAT_SECONDS:
            self._run.update()
            self._last = time.monotonic()
