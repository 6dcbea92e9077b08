"""Studies on disk as `mrbench sweep` leaves them, with results drawn from a generator instead of a network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mrbench.evaluation.coco import evaluate
from mrbench.evaluation.matches import KindMatches, Matches, average_precision, pack

QUALITY = {"gn": 0.62, "bn": 0.5, "roi_pool": 0.57, "class_agnostic": 0.62, "longer": 0.8}
IMAGES = 60


def fake_matches(quality: float, images: int = IMAGES, seed: int = 0) -> Matches:
    """One class; every image has four objects, each found with a chance that differs by image and falls with IoU.

    What an image is like depends on `seed` of the data alone (1), so runs share their easy and hard images.
    """
    data = np.random.default_rng(1)
    ease = data.normal(0, 0.12, images)
    generator = np.random.default_rng(seed)
    thresholds = np.linspace(0.5, 0.95, 10)
    kinds = {}
    for kind, offset in (("box", 0.0), ("mask", -0.03)):
        iou = np.clip(generator.normal(quality + offset + ease[:, None], 0.15, (images, 4)), 0, 0.99).ravel()
        noise = generator.uniform(0, 0.45, images * 2)
        score = np.r_[np.clip(iou * 0.8 + generator.uniform(0, 0.2, iou.size), 0, 1), noise]
        image = np.r_[np.repeat(np.arange(images), 4), np.repeat(np.arange(images), 2)]
        hit = np.r_[iou, np.zeros(noise.size)][:, None] >= thresholds
        matched = np.repeat(hit[:, None, :], 4, axis=1)
        order = np.lexsort((-score, image))
        kinds[kind] = KindMatches(
            image=image[order].astype(np.int32),
            category=np.zeros(len(order), np.int16),
            score=score[order],
            matched=pack(matched[order]),
            ignored=pack(np.zeros_like(matched)),
            ground_truth=np.full((images, 1, 4), 4, np.int32),
        )
    return Matches(np.arange(images), ["thing"], (1024.0, 9216.0), 100, thresholds, kinds)


def write_run(
    root: Path, run_id: str, *, arm: str, seed: int, quality: float, state: str = "completed", **options: Any
) -> Path:
    """A run's folder. `options`: error, matches (default True), packages, iteration."""
    folder = root / "runs" / run_id
    folder.mkdir(parents=True)
    iteration = options.get("iteration", 500 if state == "completed" else 200)
    (folder / "config.yaml").write_text(
        f"seed: {seed}\nmodel:\n  name: mask_rcnn_small\n  norm: {'bn' if arm == 'bn' else 'gn'}\n  pooler:\n"
        f"    kind: {'roi_pool' if arm == 'roi_pool' else 'roi_align'}\nschedule:\n"
        f"  iterations: {1000 if arm == 'longer' else 500}\nruntime:\n  device: cpu\n  threads: 1\n"
    )
    status = {
        "state": state,
        "attempt": 1,
        "iteration": iteration,
        "iterations": 500,
        "started": "2026-03-01T10:00:00+00:00",
        "updated": "2026-03-01T10:01:10+00:00",
        "ended": "2026-03-01T10:01:10+00:00" if state in ("completed", "failed") else None,
        "error": options.get("error"),
        "images_per_second": 33.4 - seed,
        "peak_memory": 900 * 2**20,
    }
    (folder / "status.json").write_text(json.dumps(status))
    provenance = {
        "command": f"mrbench train model.norm={arm} seed={seed}",
        "code": {"version": "0.1.0", "commit": "0123456789abcdef0123", "uncommitted_sha256": None},
        "python": "3.11.9",
        "platform": "Linux",
        "packages": options.get("packages", {"torch": "2.11.0", "torchvision": "0.26.0"}),
        "hardware": {"host": "here", "cpu": "A processor", "cores": 2, "memory": 8 * 2**30, "gpus": []},
    }
    (folder / "provenance.json").write_text(json.dumps(provenance))
    generator = np.random.default_rng(seed)
    with (folder / "metrics.jsonl").open("w") as stream:
        for i in range(20, iteration + 1, 20):
            loss = 1.2 + 2.5 * np.exp(-i / 120) - quality + generator.normal(0, 0.08)
            stream.write(json.dumps({"kind": "train", "iteration": i, "loss": loss, "lr": 0.02}) + "\n")
        for i in range(100, iteration + 1, 100):
            ap = 55 * quality * (1 - np.exp(-i / 250)) + generator.normal(0, 0.4)
            line = {"kind": "evaluation", "iteration": i, "box/AP": ap, "mask/AP": ap - 1}
            stream.write(json.dumps(line) + "\n")
    if state == "completed":
        matches = fake_matches(quality + 0.006 * generator.normal(), seed=1000 * (seed + 1) + len(arm))
        numbers = {
            f"{kind}/{name}": value
            for kind in ("box", "mask")
            for name, value in average_precision(matches, kind).items()
        }
        (folder / "evaluation.json").write_text(
            json.dumps(
                {"iteration": iteration, "images": IMAGES, "metrics": numbers, "notes": options.get("notes", [])}
            )
        )
        if options.get("matches", True):
            matches.save(folder / "matches.npz")
    return folder


def write_study(root: Path, name: str, arms: dict[str, dict[str, Any]], **fields: Any) -> None:
    record = {
        "study": name,
        "title": "What a small Mask R-CNN gains and loses",
        "question": "Which parts of the recipe matter when training is short?",
        "baseline": "gn",
        "metrics": ["box/AP", "mask/AP"],
        "base": ["data=shapes", "model=mask_rcnn_small"],
        "note": "500 iterations say nothing about long schedules.",
        "arms": {
            arm: {"overrides": [], "published": None, "note": "", "runs": {}} | given for arm, given in arms.items()
        },
    }
    (root / "studies").mkdir(parents=True, exist_ok=True)
    (root / "studies" / f"{name}.json").write_text(json.dumps(record | fields))


@pytest.fixture(scope="session", name="fake_matches")
def give_fake_matches() -> Callable[..., Matches]:
    return fake_matches


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Path]:
    """A root with the study `demo`: five arms, `seeds` seeds."""

    def make(root: Path, seeds: int = 3, **options: Any) -> Path:
        arms: dict[str, dict[str, Any]] = {}
        for arm, quality in QUALITY.items():
            runs = {}
            for seed in range(seeds):
                run_id = f"mask_rcnn_small-shapes-{arm[:4]}{seed:06x}"
                write_run(root, run_id, arm=arm, seed=seed, quality=quality, **options)
                runs[str(seed)] = run_id
            arms[arm] = {"runs": runs, "overrides": [f"model.norm={arm}"] if arm in ("gn", "bn") else [f"arm={arm}"]}
        arms["gn"]["published"] = "lsj/table/gn"
        arms["bn"]["published"] = "lsj/table/baseline"
        arms["class_agnostic"]["note"] = "Published gains need long training."
        write_study(root, "demo", arms)
        return root

    return make


@pytest.fixture(scope="session")
def demo(make_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a complete study `demo`. Not to be changed."""
    return make_study(tmp_path_factory.mktemp("demo"))


PLACES = ((4, 4), (40, 4), (4, 30), (40, 30))  # of four squares of 16 pixels in a picture of 64 x 48
FOUND = {  # image id -> squares that an arm finds, with a score of 0.9; and one where nothing is with 0.2
    "gn": {1: 4, 2: 1, 3: 3, 4: 2},
    "bn": {1: 0, 2: 3, 3: 3, 4: 1},
}


def square(image: int, place: tuple[int, int], **more: Any) -> dict[str, Any]:
    x, y = place
    ring = [[x, y, x + 16, y, x + 16, y + 16, x, y + 16]]
    return {"image_id": image, "category_id": 1, "bbox": [x, y, 16, 16], "segmentation": ring, **more}


@pytest.fixture(scope="session")
def pictured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with the study `pictured`: two arms of a seed, four pictures of four squares, and what each arm found."""
    root = tmp_path_factory.mktemp("pictured")
    data = root / "data"
    (data / "val").mkdir(parents=True)
    (data / "annotations").mkdir()
    images = [{"id": i, "width": 64, "height": 48, "file_name": f"{i}.png"} for i in (1, 2, 3, 4)]
    truth = [square(i["id"], place, area=256, iscrowd=0) for i in images for place in PLACES]
    for number, item in enumerate(truth, 1):
        item["id"] = number
    content = {"images": images, "annotations": truth, "categories": [{"id": 1, "name": "square"}]}
    (data / "annotations" / "instances_val.json").write_text(json.dumps(content))
    for item in images:
        Image.new("RGB", (64, 48), (60 * item["id"], 90, 90)).save(data / "val" / item["file_name"])
    for arm, found in FOUND.items():
        folder = write_run(root, f"mask_rcnn_small-squares-{arm}", arm=arm, seed=0, quality=0.5)
        with (folder / "config.yaml").open("a") as stream:
            stream.write(f"data:\n  kind: coco_folder\n  name: squares\n  root: {data}\n")
        places = [(image, place) for image, count in found.items() for place in PLACES[:count]]
        results = [square(image, place, score=0.9) for image, place in places]
        results += [square(image["id"], (22, 16), score=0.2) for image in images]
        done = evaluate(content, results, ("box", "mask"))
        done.matches.save(folder / "matches.npz")
        (folder / "evaluation.json").write_text(json.dumps({"iteration": 500, "images": 4, "metrics": done.metrics}))
        (folder / "detections").mkdir()
        (folder / "detections" / "val.json").write_text(json.dumps(results))
    arms = {arm: {"runs": {"0": f"mask_rcnn_small-squares-{arm}"}} for arm in FOUND}
    write_study(root, "pictured", arms)
    return root
