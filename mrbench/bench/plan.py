"""From what a person types to a plan: what to measure, with defaults that fit the device."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mrbench.bench.record import Plan, is_finished
from mrbench.bench.session import describe_device
from mrbench.config.compose import compose, to_yaml
from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError

MODES = ("train", "infer")
PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
INPUTS = ("synthetic", "data")
BATCH = {"train": 2, "infer": 1}  # what most public tables use: 16 images on 8 GPUs, and one at a time
GPU_MODEL = "mask_rcnn_r50_fpn"
HEADROOM = 0.05
UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def words(option: str, text: str, choices: Sequence[str]) -> list[str]:
    """A list with commas, each word one of `choices`, none twice. Raises UserError."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    for word in found:
        if word not in choices:
            hint = did_you_mean(word, list(choices), f"There are: {', '.join(choices)}.")
            raise UserError(f"{option}: there is no '{word}'", hint)
    if not found:
        raise UserError(f"{option} is empty", f"There are: {', '.join(choices)}.")
    return found


def batch_sizes(text: str) -> list[int]:
    """'1,2,8' -> [1, 2, 8]. Raises UserError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]*", part) for part in parts):
        raise UserError(f"--batch {text}: not numbers of images", "Write one or more, as --batch 2 or --batch 1,2,8.")
    return list(dict.fromkeys(int(part) for part in parts))


def image_size(text: str) -> list[int]:
    """'800x1333' -> [800, 1333] (height, width). Raises UserError."""
    found = re.fullmatch(r"([1-9][0-9]*)[xX]([1-9][0-9]*)", text.strip())
    if not found:
        raise UserError(f"--image-size {text}: not a height and a width", "Write HxW in pixels, as 800x1333.")
    return [int(found[1]), int(found[2])]


def memory_size(text: str) -> int:
    """'2GiB', '500 MB', '1.5GiB' -> bytes. Raises UserError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not found or found[2].upper() not in UNITS or not float(found[1]):
        raise UserError(f"--memory-limit {text}: not a size", "Write a number with its unit, as 2GiB or 500MB.")
    return int(float(found[1]) * UNITS[found[2].upper()])


def usual_size(config: RunConfig) -> list[int]:
    """Height and width of the pictures that the configuration is tested on."""
    augmentation, shapes = config.augmentation, config.data.kind == "shapes"
    edge = augmentation.test_short_edge
    if edge is None:
        if augmentation.resize == "jitter":
            return [augmentation.jitter_size] * 2
        if shapes and augmentation.resize == "none":
            return [config.data.shapes.image_size] * 2
        edge = augmentation.short_edge[0]
    return [min(edge, augmentation.max_size)] * 2 if shapes else [edge, augmentation.max_size]


def names(overrides: Sequence[str], *keys: str) -> bool:
    """Whether one of the overrides sets one of these keys or groups."""
    return any(o.split("=")[0].strip() in keys for o in overrides)


def make_plan(
    overrides: Sequence[str],
    config_dir: Path | None = None,
    *,
    mode: str = "train,infer",
    precision: str | None = None,
    batch: str | None = None,
    size: str | None = None,
    instances: int = 7,
    inputs: str = "synthetic",
    repeats: int = 10,
    largest_batch: bool = False,
    memory_limit: str | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the device as `describe_device` tells it.

    What is not given follows the device: on a GPU Mask R-CNN R50-FPN at 800x1333 in all precisions that it has, on
    a CPU the configuration as it is. Raises UserError for what cannot be read, and where there is no GPU but one is
    asked for.
    """
    modes = words("--mode", mode, MODES)
    precisions = words("--precision", precision, PRECISIONS) if precision else None
    batches = batch_sizes(batch) if batch else None
    [kind_of_inputs] = words("--inputs", inputs, INPUTS)
    given_size = image_size(size) if size else None
    limit = memory_size(memory_limit) if memory_limit else None
    if given_size and kind_of_inputs == "data":
        raise UserError(
            "--image-size goes with synthetic inputs: a data set's pictures get theirs from augmentation",
            "Leave --image-size away, or set for example augmentation.short_edge=[800].",
        )
    config = compose(overrides, config_dir)
    device = describe_device(to_yaml(config))
    gpu = device["type"] == "cuda"
    if gpu and not names(overrides, "model", "recipe", "data", "model.name"):
        overrides = [f"model={GPU_MODEL}", *overrides]
        config = compose(overrides, config_dir)
        given_size = given_size or [800, 1333]
    if precisions is None:
        chosen = names(overrides, "precision", "precision.kind", "recipe") or not gpu
        precisions = [config.precision.kind] if chosen else [p for p in PRECISIONS if not device["refusals"][p]]
    return (
        Plan(
            config=to_yaml(config),
            model=config.model.name,
            device=device["type"],
            modes=modes,
            precisions=precisions,
            batches={m: batches or [BATCH[m]] for m in modes},
            image_size=given_size or usual_size(config),
            instances=instances,
            inputs=kind_of_inputs,
            repeats=repeats,
            largest_batch=largest_batch,
            memory_limit=limit,
            headroom=HEADROOM,
        ),
        device,
    )


def default_path(folder: Path, plan: Plan, device: dict[str, Any], torch_version: str) -> Path:
    """A name that tells model, device and torch: the unfinished record of this plan, else a new one."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", device.get("name", "cpu")).strip("-").lower()
    digest = hashlib.sha256(json.dumps(asdict(plan), sort_keys=True).encode()).hexdigest()[:8]
    stem = f"{plan.model}-{name}-torch{torch_version.split('+')[0]}-{digest}"
    path, count = folder / f"{stem}.json", 1
    while path.exists() and is_finished(path):
        count += 1
        path = folder / f"{stem}-{count}.json"
    return path
