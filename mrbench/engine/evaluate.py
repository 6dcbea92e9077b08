"""COCO's numbers for a model or a finished run, computed by all its processes."""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from mrbench.config.schema import ModelConfig, RunConfig
from mrbench.data.coco import CocoDataset
from mrbench.data.loader import eval_loader
from mrbench.data.proposals import ProposalTable, write_proposals
from mrbench.data.sources import open_split
from mrbench.engine import checkpoint
from mrbench.engine.distributed import (
    World,
    choose_device,
    main_process_first,
    process_group,
    set_threads,
    share_buffers,
    together,
)
from mrbench.engine.execution import check_algorithms, set_algorithms
from mrbench.engine.precision import autocast, check_precision, set_matmul_precision
from mrbench.engine.processes import carry_out
from mrbench.errors import UserError
from mrbench.evaluation import bootstrap
from mrbench.evaluation.coco import Evaluation, evaluate, without_annotations
from mrbench.evaluation.inference import detect_as_configured, gather_results
from mrbench.evaluation.proposals import evaluate_proposals, gather_proposals, propose_dataset
from mrbench.modeling.build import Network, build_network, without_initial_weights
from mrbench.modeling.proposal_network import ProposalNetwork
from mrbench.runs.files import replacing, write_json
from mrbench.runs.record import Run
from mrbench.weights.files import inspect

Progress = Callable[[int], None]


@dataclass
class Result:
    """An evaluation, the detections (COCO results) or proposals that it is of, and the seconds that both took."""

    evaluation: Evaluation
    detections: list[dict[str, Any]] | ProposalTable
    seconds: float


def evaluate_model(
    model: Network,
    config: RunConfig,
    dataset: CocoDataset,
    device: torch.device,
    world: World,
    progress: Progress | None = None,
) -> Result | None:
    """Detect, or propose, on all images of `dataset`, each by one of the processes, and evaluate at rank 0; None
    elsewhere.

    Images without annotations are detected on and not evaluated. All processes call together, with the same weights.
    `progress` is called with the images that this process has done; what it raises ends the evaluation, and Preempted
    that of all processes.
    """
    start = time.perf_counter()
    share_buffers(model, world)
    context = partial(autocast, config.precision.kind, device)
    if isinstance(model, ProposalNetwork):
        loader = eval_loader(dataset, config, world.rank, world.size)
        propose = partial(propose_dataset, model, loader, device, context, progress)
        table = gather_proposals(together(propose, world))
        if table is None:
            return None
        recall = evaluate_proposals(dataset.ground_truth(), table, config.evaluation.areas)
        return Result(recall, table, time.perf_counter() - start)
    detect = partial(detect_as_configured, model, dataset, config, device, context, progress, world.rank, world.size)
    detections = gather_results(together(detect, world))
    if detections is None:
        return None
    if not dataset.annotated:
        return Result(without_annotations(len(dataset)), detections, time.perf_counter() - start)
    evaluation = evaluate(
        dataset.ground_truth(),
        detections,
        kinds_of(config.model),
        config.evaluation.areas,
        config.evaluation.max_detections,
    )
    return Result(evaluation, detections, time.perf_counter() - start)


def kinds_of(model: ModelConfig) -> list[str]:
    """What a model finds besides boxes, as `evaluate` names it."""
    branches = {"box": True, "mask": model.mask_head.enabled, "keypoint": model.keypoint_head.enabled}
    return [kind for kind, enabled in branches.items() if enabled]


def write_result(run: Run, config: RunConfig, result: Result, iteration: int | None) -> None:
    """Write detections and matches, or proposals, and evaluation.json into the run's folder, the last one last; then
    what a report asks of the matches, which it could make itself."""
    if isinstance(result.detections, ProposalTable):
        write_proposals(run.proposals_file(), {"val": result.detections})
    else:
        with replacing(run.detections_file()) as temporary, temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(result.detections))
    if result.evaluation.matches is not None:
        result.evaluation.matches.save(run.matches_file)
    content = {
        "iteration": iteration,
        "images": result.evaluation.images,
        "metrics": result.evaluation.metrics,
        "per_category": result.evaluation.per_category,
        "per_threshold": result.evaluation.per_threshold,
        "errors": {kind: asdict(found) for kind, found in result.evaluation.errors.items()},
        "areas": list(config.evaluation.areas),
        "max_detections": config.evaluation.max_detections,
        "tta": asdict(config.evaluation.tta) if config.evaluation.tta.enabled else None,
        "notes": result.evaluation.notes,
        "seconds": round(result.seconds, 3),
    }
    write_json(run.evaluation_file, content)
    if result.evaluation.matches is not None:
        bootstrap.keep(result.evaluation.matches, run.matches_file)


def evaluate_run(run: Run, config: RunConfig, weights: Path | None = None) -> dict[str, Any] | None:
    """Evaluate a model on the run's validation images, write it into the run, and return evaluation.json.

    The model is built from `config` with `weights`, by default the run's own: its final weights, else its newest
    checkpoint. The images are shared by `runtime.devices` processes, or by those that torchrun or srun started, of
    which all but the main one get None; their number does not change the numbers.

    Raises:
        UserError: there are no weights, or they do not fit.
        RunFailed, Preempted: as `run_processes`.
    """
    weights = weights or run_weights(run)
    arguments = (run.folder, config, weights, inspect(weights).iteration)
    return run.evaluation() if carry_out(_evaluate_process, config.runtime.devices, arguments) else None


def run_weights(run: Run) -> Path:
    """The run's final weights, else its newest checkpoint. Raises UserError where it has neither."""
    final = run.checkpoint_dir / checkpoint.FINAL
    found = final if checkpoint.verifies(final) else checkpoint.newest(run.checkpoint_dir, lambda text: None)
    if found is None:
        raise UserError(f"{run.run_id} has no weights yet", "train it first, or give others with --weights")
    return found


@contextmanager
def testing_process(world: World, store: dist.Store | None, config: RunConfig) -> Iterator[torch.device]:
    """The device of this process, set up as configured, in the process group that the block has."""
    device = choose_device(config.runtime, world)
    check_precision(config.precision.kind, device)
    check_algorithms(config, device)
    set_matmul_precision(config.precision.kind)
    set_algorithms(config.runtime, device)
    set_threads(config.runtime, world.local_size)
    with process_group(world, device, config.runtime, store):
        yield device


def trained_network(config: RunConfig, weights: Path, classes: int, world: World) -> Network:
    """The network with these weights; the main process says on standard error what they lack. Raises UserError where
    they do not fit."""
    model = build_network(without_initial_weights(config.model), classes)
    loaded = checkpoint.load_model_weights(weights, model, config.model.weights_mismatch)
    if world.main:
        for line in loaded.lines():
            print(line, file=sys.stderr)
    return model


def _evaluate_process(
    world: World,
    store: dist.Store | None,
    folder: Path,
    config: RunConfig,
    weights: Path,
    iteration: int | None,
) -> None:
    with testing_process(world, store, config) as device:
        with main_process_first(world):
            dataset = open_split(config.data, "val")
        model = trained_network(config, weights, len(dataset.categories), world)
        result = evaluate_model(model.to(device), config, dataset, device, world)
        if result is not None:
            write_result(Run(folder), config, result, iteration)
