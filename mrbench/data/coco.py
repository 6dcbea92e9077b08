"""A split of a data set in COCO format: pictures, categories and annotations, checked when it is opened."""

import gc
import json
import os
import pickle
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrbench.data.broken import Broken
from mrbench.data.entries import (
    Annotation,
    Category,
    ImageInfo,
    annotation_id,
    read_annotation,
    read_category,
    read_image,
)
from mrbench.data.keypoints import Keypoints, count_visible
from mrbench.data.proposals import SplitProposals
from mrbench.errors import UserError


@dataclass(frozen=True)
class Problem:
    """An annotation that cannot be used."""

    file: Path
    annotation_id: Any
    kind: str  # a word of `mrbench.data.findings`
    reason: str

    def __str__(self) -> str:
        return f"{self.file}: annotation {self.annotation_id}: {self.reason}"


class CocoDataset:
    """The pictures of one split and what is annotated in them.

    Broken annotations are collected in `problems`; `on_error="raise"` makes them a UserError, "skip" leaves them
    out. A file that is not COCO's JSON, pictures listed twice and picture files that are not there are a UserError
    in either case. The presence of files is asked of the folder, once, not of every file.

    `images` is in the file's order, `categories` in the order of their ids. `proposals` is set where the configuration
    names a file of them. `annotated` is False for a file without the list of annotations, as COCO has for test-dev.
    """

    proposals: SplitProposals | None = None

    def __init__(self, annotation_file: Path, image_folder: Path, on_error: str = "raise") -> None:
        self.annotation_file = annotation_file
        self.image_folder = image_folder
        self.problems: list[Problem] = []
        with no_garbage_collection():
            content = read_coco(annotation_file)
            self.images = _read_images(content["images"], annotation_file, image_folder)
            self.categories = _read_categories(content["categories"], annotation_file)
            _check_files([image.file for image in self.images], image_folder)
            self.annotated = "annotations" in content
            grouped = self._read_annotations(content.get("annotations", []))
        if self.problems and on_error == "raise":
            raise UserError(*describe_problems(self.problems))
        # Instances of each image that can be learned from, int64 [images]; and the ids of those that have a box only.
        self.trainable = np.array([sum(not a.iscrowd for a in group) for group in grouped], dtype=np.int64)
        # Keypoints of each image that can be learned from, int64 [images].
        self.visible_keypoints = np.array(
            [sum(count_visible(a.keypoints) for a in group if not a.iscrowd) for group in grouped], dtype=np.int64
        )
        self.without_mask = [a.id for g in grouped for a in g if a.segmentation is None and not a.iscrowd]
        # One buffer instead of a million objects: worker processes that are forked read it without touching
        # reference counts, so that its memory stays shared (as Detectron2's NumpySerializedList).
        packed = [pickle.dumps(group, protocol=pickle.HIGHEST_PROTOCOL) for group in grouped]
        self._ends = np.cumsum([0, *map(len, packed)])
        self._packed = np.frombuffer(b"".join(packed), dtype=np.uint8)

    def __len__(self) -> int:
        return len(self.images)

    def annotations(self, index: int) -> list[Annotation]:
        """What is annotated in `images[index]`, crowds included, in the file's order."""
        group: list[Annotation] = pickle.loads(self._packed[self._ends[index] : self._ends[index + 1]].data)
        return group

    def ground_truth(self) -> dict[str, Any]:
        """What was kept, as a COCO dictionary: to be evaluated against where the file has broken annotations."""
        annotations = [
            {
                "id": a.id,
                "image_id": image.id,
                "category_id": self.categories[a.label].id,
                "bbox": [a.bbox[0], a.bbox[1], a.bbox[2] - a.bbox[0], a.bbox[3] - a.bbox[1]],
                "area": a.area,
                "iscrowd": int(a.iscrowd),
                **({} if a.segmentation is None else {"segmentation": a.segmentation}),
                **_coco_keypoints(a.keypoints),
            }
            for index, image in enumerate(self.images)
            for a in self.annotations(index)
        ]
        images = [{"id": i.id, "width": i.width, "height": i.height, "file_name": i.file.name} for i in self.images]
        categories = [
            {"id": c.id, "name": c.name, **({"keypoints": list(c.keypoints)} if c.keypoints else {})}
            for c in self.categories
        ]
        return {"images": images, "annotations": annotations, "categories": categories}

    def _read_annotations(self, entries: list[Any]) -> list[list[Annotation]]:
        images = {image.id: image for image in self.images}
        place = {image.id: i for i, image in enumerate(self.images)}
        labels = {category.id: i for i, category in enumerate(self.categories)}
        grouped: list[list[Annotation]] = [[] for _ in self.images]
        seen: set[int] = set()
        for number, entry in enumerate(entries):
            identity: Any = f"(number {number} in the list)"
            try:
                identity = annotation_id(entry, number)
                if identity in seen:
                    raise Broken("duplicate-annotation-id", "another annotation has the same id")
                seen.add(identity)
                annotation = read_annotation(entry, images, labels, self.categories)
                grouped[place[entry["image_id"]]].append(annotation)
            except Broken as broken:
                self.problems.append(Problem(self.annotation_file, identity, broken.kind, broken.reason))
        return grouped


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Millions of new objects and no cycles among them: looking for some takes as long as reading them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def describe_problems(problems: list[Problem], shown: int = 5) -> tuple[str, str]:
    """(what, hint) for a UserError: the first few problems, and how many there are."""
    lines = [f"{len(problems)} broken annotation{'s' * (len(problems) > 1)} in {problems[0].file}"]
    lines += [f"  annotation {p.annotation_id}: {p.reason}" for p in problems[:shown]]
    if len(problems) > shown:
        lines.append(f"  and {len(problems) - shown} more")
    return "\n".join(lines), "Mend the file, or leave these annotations out with data.on_error=skip."


def read_coco(path: Path) -> dict[str, Any]:
    """The content of an instances JSON, or of one without annotations (COCO's image_info_*.json).

    Raises UserError where it cannot be read or is something else.
    """
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}", "Check data.root and the file's name.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}", "Was it downloaded and unpacked whole?") from error
    parts = ("images", "annotations", "categories")
    missing = [k for k in parts if not (isinstance(content, dict) and isinstance(content.get(k), list))]
    # COCO's lists of test images (image_info_*.json) have none.
    if missing == ["annotations"] and "annotations" not in content:
        return content
    if missing:
        raise UserError(
            f"{path} is JSON, but not in COCO format: no list {', '.join(repr(k) for k in missing)}",
            "An instances file is an object with the lists images, annotations and categories.",
        )
    return content


def _read_images(entries: list[Any], path: Path, folder: Path) -> list[ImageInfo]:
    try:
        images = [read_image(entry, number, folder) for number, entry in enumerate(entries)]
    except Broken as broken:
        raise UserError(f"{path}: {broken.reason}") from None
    if not images:
        raise UserError(f"{path} lists no images")
    _check_unique([image.id for image in images], "image", path)
    return images


def _read_categories(entries: list[Any], path: Path) -> list[Category]:
    try:
        categories = [read_category(entry, number) for number, entry in enumerate(entries)]
    except Broken as broken:
        raise UserError(f"{path}: {broken.reason}") from None
    if not categories:
        raise UserError(f"{path} lists no categories")
    _check_unique([category.id for category in categories], "category", path)
    return sorted(categories, key=lambda c: c.id)


def _coco_keypoints(keypoints: Keypoints | None) -> dict[str, Any]:
    return {} if keypoints is None else {"keypoints": list(keypoints), "num_keypoints": count_visible(keypoints)}


def _check_unique(ids: list[int], what: str, path: Path) -> None:
    if len(set(ids)) < len(ids):
        twice = [identity for identity, count in Counter(ids).items() if count > 1]
        raise UserError(f"{path}: {len(twice)} {what} ids are used more than once, the first is {twice[0]}")


def _check_files(files: list[Path], folder: Path) -> None:
    present: dict[Path, set[str]] = {}
    missing = []
    for file in files:
        if file.parent not in present:
            try:
                with os.scandir(file.parent) as entries:
                    present[file.parent] = {entry.name for entry in entries}
            except OSError:
                present[file.parent] = set()
        if file.name not in present[file.parent]:
            missing.append(file)
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} image files are missing, the first is {missing[0]}",
            f"Images were looked for in {folder}: fetch what is missing, or name another folder with "
            "data.train.images or data.val.images.",
        )
