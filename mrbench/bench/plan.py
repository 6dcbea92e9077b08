"""From what a person types to a plan: what to measure, with defaults that fit the device."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mrbench.bench.budget import duration
from mrbench.bench.fitting import whole
from mrbench.bench.matrix import MODES, Case, combine
from mrbench.bench.peer_fits import check_peer
from mrbench.bench.record import Plan, is_finished
from mrbench.bench.session import describe_device
from mrbench.bench.trying import SEARCHED
from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean
from mrbench.cores import cores
from mrbench.errors import UserError

PRECISIONS = ("fp32", "tf32", "fp16", "bf16")
INPUTS = ("synthetic", "data")
PEERS = ("torchvision",)
SWITCH = ("off", "on")
# What most public tables use: 16 images on 8 GPUs, and one at a time. Metrics are of many images at once.
BATCH = {"train": [2], "infer": [1], "data": [2], "end-to-end": [2], "eval": [25]}
THROUGHPUT = 8  # images, on a GPU: one at a time leaves most of it idle
GPU_MODEL = "mask_rcnn_r50_fpn"
HEADROOM = 0.05
SMALLEST_BARE = 2**20  # bytes: a smaller number without a unit is a forgotten unit
UNITS = {  # a single letter as docker and systemd take it
    "": 1,
    "B": 1,
    **{name: 1024**k for k, letter in enumerate("KMGT", 1) for name in (letter, f"{letter}IB")},
    **{f"{letter}B": 1000**k for k, letter in enumerate("KMGT", 1)},
}


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


def numbers(option: str, text: str, what: str) -> list[int]:
    """'1,2,8' -> [1, 2, 8], none twice. Raises UserError."""
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(r"[1-9][0-9]*", part) for part in parts):
        raise UserError(
            f"{option} {text}: not numbers of {what}", f"Write one or more, as {option} 2 or {option} 1,2,8."
        )
    return list(dict.fromkeys(int(part) for part in parts))


def image_size(text: str) -> list[int]:
    """'800x1333' -> [800, 1333] (height, width). Raises UserError."""
    found = re.fullmatch(r"([1-9][0-9]*)[xX]([1-9][0-9]*)", text.strip())
    if not found:
        raise UserError(f"--image-size {text}: not a height and a width", "Write HxW in pixels, as 800x1333.")
    return [int(found[1]), int(found[2])]


def memory_size(text: str) -> int:
    """'2GiB', '4g', '500 MB', '1.5GiB' -> bytes; a single letter is binary. Raises UserError."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]*)", text.strip())
    if not found or found[2].upper() not in UNITS or not float(found[1]):
        raise UserError(f"--memory-limit {text}: not a size", "Write a number with its unit, as 2GiB, 4g or 500MB.")
    if not found[2] and float(found[1]) < SMALLEST_BARE:
        raise UserError(
            f"--memory-limit {text} means {text} bytes", f"Write its unit: --memory-limit {text}GiB, or {text}MiB."
        )
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
    arms: Mapping[str, Sequence[str]] | None = None,
    mode: str = "train,infer",
    precision: str | None = None,
    batch: str | None = None,
    size: str | None = None,
    channels_last: str | None = None,
    compiled: str | None = None,
    devices: str | None = None,
    instances: int = 7,
    positives: int | None = None,
    inputs: str = "synthetic",
    repeats: int = 10,
    largest_batch: bool = False,
    memory_limit: str | None = None,
    peer: str | None = None,
    budget: str | None = None,
) -> tuple[Plan, dict[str, Any]]:
    """The plan, and the device as `describe_device` tells it.

    `arms` are overrides, by the name of a model or recipe, on top of `overrides`; without them there is one. What is
    not given follows the device: on a GPU Mask R-CNN R50-FPN at 800x1333 in all precisions that it has, on a CPU the
    configuration as it is. Raises UserError for what cannot be read, and where there is no GPU but one is asked for.
    """
    modes = words("--mode", mode, MODES)
    precisions = words("--precision", precision, PRECISIONS) if precision else None
    layouts = [word == "on" for word in words("--channels-last", channels_last, SWITCH)] if channels_last else None
    codes = [word == "on" for word in words("--compile", compiled, SWITCH)] if compiled else None
    batches = numbers("--batch", batch, "images") if batch else None
    counts = numbers("--devices", devices, "devices") if devices else None
    [kind_of_inputs] = words("--inputs", inputs, INPUTS)
    given_sizes = [image_size(part) for part in size.split(",")] if size else None
    limit = memory_size(memory_limit) if memory_limit else None
    _check_peer(peer, modes, counts or [1])
    seconds = duration(budget) if budget else None
    if given_sizes and kind_of_inputs == "data":
        raise UserError(
            "--image-size goes with synthetic inputs: a data set's pictures get theirs from augmentation",
            "Leave --image-size away, or set for example augmentation.short_edge=[800].",
        )
    written = {name: [*overrides, *arm] for name, arm in (arms or {"": ()}).items()}
    configs = {name: compose(arm, config_dir) for name, arm in written.items()}
    first = next(iter(configs.values()))
    device = describe_device(to_yaml(first))
    gpu = device["type"] == "cuda"
    if gpu and not any(names(arm, "model", "recipe", "data", "model.name") for arm in written.values()):
        written = {name: [f"model={GPU_MODEL}", *arm] for name, arm in written.items()}
        configs = {name: compose(arm, config_dir) for name, arm in written.items()}
        given_sizes = given_sizes or [[800, 1333]]
    if peer is not None:
        for config in configs.values():
            check_peer(config.model)
    configs = {name or config.model.name: config for name, config in configs.items()}
    written = dict(zip(configs, written.values(), strict=True))
    _check_devices(counts or [], device)
    cases = combine(
        list(configs),
        modes,
        {m: batches or BATCH[m] + [THROUGHPUT] * (gpu and m == "infer") for m in modes},
        {name: given_sizes or [usual_size(config)] for name, config in configs.items()},
        {name: precisions or _precisions(config, written[name], device) for name, config in configs.items()},
        {name: layouts or [config.runtime.channels_last] for name, config in configs.items()},
        {name: codes or [config.runtime.compile] for name, config in configs.items()},
        counts or [1],
        kind_of_inputs == "data",
    )
    _check_precisions(cases, device)
    return (
        Plan(
            configs={name: to_yaml(config) for name, config in configs.items()},
            device=device["type"],
            cases=cases,
            inputs=kind_of_inputs,
            instances=instances,
            positives=positives,
            repeats=repeats,
            largest_batch=largest_batch and seconds is None,  # nobody knows how many tries it takes
            memory_limit=limit,
            headroom=HEADROOM,
            peer=peer,
            budget=seconds,
        ),
        device,
    )


def _check_peer(peer: str | None, modes: Sequence[str], counts: Sequence[int]) -> None:
    """Raises UserError where there is no such peer, or nothing that it could be measured in."""
    if peer is None:
        return
    words("--peer", peer, PEERS)
    if not set(modes) & set(SEARCHED):
        raise UserError(f"--peer {peer} is measured in {' and '.join(SEARCHED)}", "Give --mode train,infer.")
    if max(counts) > 1:
        raise UserError(f"--peer {peer} is measured on one device", "Leave --devices away.")


def _precisions(config: RunConfig, overrides: Sequence[str], device: Mapping[str, Any]) -> list[str]:
    """The configuration's own where it was chosen; otherwise all that a GPU has."""
    if names(overrides, "precision", "precision.kind", "recipe") or device["type"] != "cuda":
        return [config.precision.kind]
    return [kind for kind in PRECISIONS if not device["refusals"][kind]]


def _check_devices(counts: Sequence[int], device: Mapping[str, Any]) -> None:
    """Raises UserError where there are fewer GPUs, or cores, than processes."""
    there = device["count"] if device["type"] == "cuda" else cores()
    if counts and max(counts) > there:
        kind = "GPUs" if device["type"] == "cuda" else "cores, and a process takes one or more"
        raise UserError(f"--devices {max(counts)}, but there are {there} {kind}", f"Give --devices {there} or less.")


def _check_precisions(cases: Sequence[Case], device: Mapping[str, Any]) -> None:
    """Raises UserError where the device has none of the precisions, so that nothing could be measured."""
    refusals = [device["refusals"][case.precision] if case.precision else None for case in cases]
    if all(refusals):
        raise UserError(f"Nothing could be measured: {refusals[0]}", "Give another --precision.")


def default_path(folder: Path, plan: Plan, device: dict[str, Any], provenance: dict[str, Any]) -> Path:
    """A name that tells model, hardware and torch: the unfinished record of this plan, else a new one."""
    hardware = device.get("name") or f"cpu {provenance['hardware']['cpu']}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", re.sub(r"\((R|TM|C)\)", "", hardware)).strip("-").lower()
    torch_version = provenance["packages"].get("torch", "")
    digest = hashlib.sha256(json.dumps(asdict(whole(plan)), sort_keys=True).encode()).hexdigest()[:8]
    model = next(iter(plan.configs)) if len(plan.configs) == 1 else f"{len(plan.configs)}-models"
    stem = f"{model}-{name}-torch{torch_version.split('+')[0]}-{digest}"
    path, count = folder / f"{stem}.json", 1
    while path.exists() and is_finished(path):
        count += 1
        path = folder / f"{stem}-{count}.json"
    return path
