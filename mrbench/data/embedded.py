"""The embedded data set on disk: made in the user's cache on first use, in COCO format, and checked when opened."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from mrbench.config.schema import ShapesConfig
from mrbench.data.shapes import CLASSES, CROWD, FIRST_INSTANCE, SPLITS, VERSION, Scene, draw_scene
from mrbench.errors import UserError
from mrbench.runs.lock import NO_LOCKS

MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """$MRBENCH_CACHE, else $XDG_CACHE_HOME/mrbench, else ~/.cache/mrbench."""
    if own := os.environ.get("MRBENCH_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mrbench"


def shapes_folder(settings: ShapesConfig) -> Path:
    """The data set of these settings, made if it is not there or damaged.

    It holds images/train, images/val and annotations/instances_{train,val}.json like any COCO folder, and is named
    by a fingerprint of the settings and the generator's version. What is checked on opening: the SHA-256 of both
    annotation files, and the number and total bytes of the pictures. It appears whole or not at all; of several
    processes one makes it while the others wait. Raises UserError where the cache cannot be written.
    """
    _check(settings)
    known = {"version": VERSION, "settings": asdict(settings)}
    name = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:12]
    cache = cache_folder()
    folder = cache / f"shapes-{name}"
    if _intact(folder):
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with _only_one(cache / f"shapes-{name}.lock") as alone:
            if not _intact(folder):
                _make(settings, folder, alone)
    except OSError as error:
        raise UserError(
            f"Cannot make the embedded data set in {cache}: {error.strerror or error}",
            "Name a folder that can be written, with some 100 MB free: MRBENCH_CACHE=FOLDER.",
        ) from error
    return folder


def _check(settings: ShapesConfig) -> None:
    for name, (low, high), least in (
        ("instances", settings.instances, 1),
        ("diameters", settings.diameters, 4),
    ):
        if not least <= low <= high:
            raise UserError(f"data.shapes.{name}=[{low}, {high}] is not a range from {least} upwards")


def _make(settings: ShapesConfig, folder: Path, alone: bool) -> None:
    # Holding the lock, whatever lies here was left by a process that was killed.
    for leftover in (*folder.parent.glob(f"{folder.name}.partial*"), folder) if alone else ():
        if leftover.exists():
            shutil.rmtree(leftover)
    partial = folder.with_name(f"{folder.name}.partial-{socket.gethostname()}-{os.getpid()}")
    (partial / "annotations").mkdir(parents=True)
    counts = {"train": settings.train_images, "val": settings.val_images}
    with _progress(sum(counts.values())) as advance:
        for split in SPLITS:
            _write_split(settings, split, counts[split], partial, advance)
    (partial / MANIFEST).write_text(json.dumps(_survey(partial), indent=1))
    try:
        partial.rename(folder)
    except OSError:
        shutil.rmtree(partial)
        if not _intact(folder):  # another process, which no lock held back, was quicker
            raise


def _write_split(settings: ShapesConfig, split: str, count: int, root: Path, advance: Any) -> None:
    pictures = root / "images" / split
    pictures.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number in range(count):
        scene = draw_scene(settings, split, number)
        image_id, name = number + 1, f"{number + 1:06d}.png"
        pixels = scene.pixels.astype(np.uint8)
        # Noise does not compress; trying harder takes ten times as long for a tenth of the bytes.
        Image.fromarray(pixels).save(pictures / name, compress_level=1)
        height, width = pixels.shape[:2]
        images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for annotation in scene_annotations(scene):
            annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
        advance()
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES[: settings.classes])]
    content = {
        "info": {"description": f"mrbench shapes, generator version {VERSION}", "settings": asdict(settings)},
        "images": images,
        "annotations": annotations,
        "categories": categories,
    }
    path = root / "annotations" / f"instances_{split}.json"
    path.write_text(json.dumps(content, separators=(",", ":")))


def scene_annotations(scene: Scene) -> list[dict[str, Any]]:
    """COCO annotations of what is in sight, without ids of annotation and image."""
    owners = [(FIRST_INSTANCE + i, label, 0) for i, label in enumerate(scene.labels)]
    if scene.crowd_label is not None and scene.mask(CROWD).any():
        owners.append((CROWD, scene.crowd_label, 1))
    if not owners:
        return []
    masks = np.stack([scene.mask(owner) for owner, _, _ in owners], axis=-1)
    rles = coco_mask.encode(np.asfortranarray(masks, dtype=np.uint8))
    boxes, areas = coco_mask.toBbox(rles), coco_mask.area(rles)
    return [
        {
            "category_id": label + 1,
            "iscrowd": crowd,
            "bbox": box.tolist(),
            "area": float(area),
            "segmentation": {"size": rle["size"], "counts": rle["counts"].decode()},
        }
        for (_, label, crowd), rle, box, area in zip(owners, rles, boxes, areas, strict=True)
    ]


def _survey(folder: Path) -> dict[str, Any]:
    """What is checked on opening, as it is on the disk."""
    survey: dict[str, Any] = {}
    for split in SPLITS:
        annotations = folder / "annotations" / f"instances_{split}.json"
        with os.scandir(folder / "images" / split) as entries:
            sizes = [entry.stat().st_size for entry in entries]
        digest = hashlib.sha256(annotations.read_bytes()).hexdigest()
        survey[split] = {"annotations": digest, "pictures": len(sizes), "bytes": sum(sizes)}
    return survey


def _intact(folder: Path) -> bool:
    try:
        return json.loads((folder / MANIFEST).read_text()) == _survey(folder)
    except (OSError, ValueError):
        return False


@contextmanager
def _only_one(path: Path) -> Iterator[bool]:
    """Waits until no other process holds the lock; a process that is killed lets go of it. Yields False where the
    file system has no locks."""
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            yield False
            return
        yield True


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yields a function to be called after each picture; the bar is on stderr and goes away when it is full."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Drawing the embedded data set", total=total)
        yield lambda: progress.advance(task)
