"""Data sets whose instances are numbers in pictures, as COCO's JSON: Cityscapes and PASCAL VOC."""

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from mrbench.cores import cores
from mrbench.data.pictures import BROKEN
from mrbench.errors import UserError
from mrbench.runs.files import replacing

# Classes of Cityscapes' instance task by their label id: those of labels.py in cityscapesScripts that have instances
# and are not ignored in evaluation. Caravan (29) and trailer (30) are ignored there.
CITYSCAPES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# PASCAL VOC's, by the colour's number in SegmentationClass.
VOC_NAMES = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow "
    "diningtable dog horse motorbike person pottedplant sheep sofa train tvmonitor"
)
VOC = dict(enumerate(VOC_NAMES.split(), 1))
VOC_VOID = 255

Advance = Callable[[], None]
Region = tuple[int, bool, int]  # category id, whether a crowd, its number in the picture of regions


@dataclass(frozen=True)
class Labelled:
    """A picture with the files that say what is in it. `name`: relative to the folder of the split's pictures."""

    name: str
    instances: Path
    classes: Path | None = None  # PASCAL: which class a pixel is of


def convert_cityscapes(root: Path, split: str, advance: Advance) -> Path:
    """Writes annotations/instances_<split>.json of gtFine/<split> ("train" or "val"). Raises UserError.

    A number from 1000 on is label id * 1000 + instance; a smaller one a region of several objects that were not told
    apart, which becomes a crowd (json2instanceImg.py in cityscapesScripts).
    """
    end = "_gtFine_instanceIds.png"
    folder, pictures = root / "gtFine" / split, root / "leftImg8bit" / split
    found = sorted(folder.glob(f"*/*{end}"))
    if not found:
        raise UserError(
            f"No {folder}/*/*{end}",
            "Unpack gtFine_trainvaltest.zip and leftImg8bit_trainvaltest.zip in the folder.",
        )
    labelled = [Labelled(f"{path.parent.name}/{path.name.removesuffix(end)}_leftImg8bit.png", path) for path in found]
    return _write(root, split, pictures, labelled, CITYSCAPES, _cityscapes_regions, advance)


def convert_voc(root: Path, split: str, advance: Advance) -> Path:
    """Writes annotations/instances_<split>.json of the pictures that ImageSets/Segmentation/<split>.txt lists.

    An object's number is its colour in SegmentationObject, its class the most frequent colour of its pixels in
    SegmentationClass; the void about objects (255) is part of none. Raises UserError.
    """
    listed = root / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names = listed.read_text(encoding="utf-8").split()
    except OSError as error:
        raise UserError(
            f"Cannot read {listed}: {error.strerror}", "ROOT is the folder with JPEGImages/, as VOCdevkit/VOC2012."
        ) from None
    objects, classes = root / "SegmentationObject", root / "SegmentationClass"
    labelled = [Labelled(f"{name}.jpg", objects / f"{name}.png", classes / f"{name}.png") for name in names]
    return _write(root, split, root / "JPEGImages", labelled, VOC, _voc_regions, advance)


def _cityscapes_regions(numbers: NDArray[Any], labelled: Labelled) -> list[Region]:
    found = []
    for number in np.unique(numbers).tolist():
        label, crowd = (number, True) if number < 1000 else (number // 1000, False)
        if label in CITYSCAPES:
            found.append((label, crowd, number))
    return found


def _voc_regions(numbers: NDArray[Any], labelled: Labelled) -> list[Region]:
    assert labelled.classes is not None
    classes = _read(labelled.classes)
    found = []
    for number in np.unique(numbers).tolist():
        if number in (0, VOC_VOID):
            continue
        inside = classes[numbers == number]
        label = int(np.bincount(inside[inside != VOC_VOID], minlength=1).argmax())
        if label not in VOC:
            raise UserError(f"{labelled.classes}: object {number} is of class {label}, which PASCAL VOC has not")
        found.append((label, False, number))
    return found


def _write(
    root: Path,
    split: str,
    pictures: Path,
    labelled: Sequence[Labelled],
    categories: dict[int, str],
    regions: Callable[[NDArray[Any], Labelled], list[Region]],
    advance: Advance,
) -> Path:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    missing = [item.name for item in labelled if not (pictures / item.name).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(labelled)} pictures are missing in {pictures}, the first is {missing[0]}",
            "Unpack the archive of the pictures in the same folder.",
        )
    with ProcessPoolExecutor(min(cores(), len(labelled))) as pool:
        for item, (size, found) in zip(
            labelled, pool.map(_annotate, labelled, [regions] * len(labelled), chunksize=8), strict=True
        ):
            image_id = len(images) + 1
            images.append({"id": image_id, "file_name": item.name, "height": size[0], "width": size[1]})
            for annotation in found:
                annotations.append({"id": len(annotations) + 1, "image_id": image_id, **annotation})
            advance()
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
    }
    path = root / "annotations" / f"instances_{split}.json"
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    return path


def _annotate(
    labelled: Labelled, regions: Callable[[NDArray[Any], Labelled], list[Region]]
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """(height, width) and COCO annotations without ids."""
    numbers = _read(labelled.instances)
    found = []
    for category, crowd, number in regions(numbers, labelled):
        rle = coco_mask.encode(np.asfortranarray(numbers == number, dtype=np.uint8))
        found.append(
            {
                "category_id": category,
                "iscrowd": int(crowd),
                "bbox": coco_mask.toBbox(rle).tolist(),
                "area": float(coco_mask.area(rle)),
                "segmentation": {"size": list(rle["size"]), "counts": rle["counts"].decode()},
            }
        )
    height, width = numbers.shape
    return (height, width), found


def _read(path: Path) -> NDArray[Any]:
    """A picture's numbers int [height, width], those of colours in a palette as they are."""
    try:
        with Image.open(path) as picture:
            numbers = np.asarray(picture)
    except BROKEN as error:
        raise UserError(f"{path} cannot be read: {error}", "Is the file whole? Unpack it again.") from None
    if numbers.ndim != 2:
        raise UserError(f"{path} has colours where numbers of instances are expected")
    return numbers.astype(np.int64)
