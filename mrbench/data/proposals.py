"""Proposals in files: those of `mrbench proposals`, which are mapped into memory, and Detectron2's pickles."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from mrbench.data.augmentation import Plan
from mrbench.errors import UserError
from mrbench.runs.files import replacing
from mrbench.weights.unpickle import unpickle

Array = np.ndarray[Any, Any]
HINT = "`mrbench proposals RUN --split train,val -o FILE` writes such a file (docs/stagewise.md)."
XYXY, XYWH = 0, 1  # Detectron2's BoxMode, structures/boxes.py


@dataclass
class ProposalTable:
    """The proposals of I images, one after another: those of image i are offsets[i] to offsets[i + 1]."""

    image_ids: Array  # int64 [I]
    offsets: Array  # int64 [I + 1]
    boxes: Array  # float32 [N, 4] xyxy in the pixels of the image files
    objectness: Array  # float32 [N]: before the sigmoid


NAMES = [f.name for f in fields(ProposalTable)]


def make_table(image_ids: Sequence[int], boxes: Sequence[Array], objectness: Sequence[Array]) -> ProposalTable:
    """From the boxes [n, 4] and objectness [n] of each image."""
    return ProposalTable(
        np.array(image_ids, np.int64),
        np.cumsum([0, *map(len, boxes)], dtype=np.int64),
        np.concatenate([np.zeros((0, 4)), *boxes], dtype=np.float32),
        np.concatenate([np.zeros(0), *objectness], dtype=np.float32),
    )


def write_proposals(path: Path, tables: Mapping[str, ProposalTable]) -> None:
    """A table for each split into an uncompressed npz of arrays such as "val/boxes", which takes `path`'s place as a
    whole. Raises UserError where it cannot be written."""
    arrays = {f"{split}/{name}": getattr(table, name) for split, table in tables.items() for name in NAMES}
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_proposals(path: Path, split: str) -> ProposalTable:
    """The proposals of `split`: of an npz mapped into memory, so that processes share its pages, or of a pickle of
    Detectron2, which holds one split only. Raises UserError where the file is neither."""
    try:
        with path.open("rb") as file:
            head = file.read(4)
            if head.startswith(b"\x80"):
                file.seek(0)
                table = _from_detectron2(unpickle(file, path), path)
            elif head == b"PK\x03\x04":
                table = _from_npz(path, split)
            else:
                raise UserError(f"{path} is not a file of proposals.", HINT)
    except OSError as error:
        raise UserError(f"The proposals {path} cannot be read: {error.strerror}.", HINT) from error
    _check(table, path)
    return table


def _from_npz(path: Path, split: str) -> ProposalTable:
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            if f"{split}/boxes.npy" not in members:
                has = sorted({name.partition("/")[0] for name in members if name.endswith("/boxes.npy")})
                raise UserError(f"{path} has no proposals of the {split} split, but of: {', '.join(has)}.", HINT)
            return ProposalTable(*(_mapped(path, members[f"{split}/{name}.npy"]) for name in NAMES))
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a whole file of proposals: {error}.", HINT) from error


def _mapped(path: Path, info: zipfile.ZipInfo) -> Array:
    """A member of an npz as a memory map, which `np.load` does for single arrays only."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    with path.open("rb") as file:
        # The local header: 26 bytes, the lengths of name and extra field, then these.
        file.seek(info.header_offset + 26)
        name, extra = np.frombuffer(file.read(4), "<u2").tolist()
        file.seek(name + extra, 1)
        version = np.lib.format.read_magic(file)
        read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in read_header:
            raise ValueError(f"{info.filename} is of npy version {version}")
        shape, fortran, dtype = read_header[version](file)
        if dtype.kind not in "if" or fortran:
            raise ValueError(f"{info.filename} is an array of {dtype}, or not in C order")
        if 0 in shape:
            return np.zeros(shape, dtype)
        return np.memmap(path, dtype, "r", offset=file.tell(), shape=shape)


def _from_detectron2(content: Any, path: Path) -> ProposalTable:
    """ids, boxes, objectness_logits and bbox_mode, or the older names indexes and scores (Detectron2, data/build.py,
    `load_proposals_into_dataset`)."""
    try:
        ids = content["ids"] if "ids" in content else content["indexes"]
        scores = content["objectness_logits"] if "objectness_logits" in content else content["scores"]
        boxes = [np.asarray(of_image, np.float32).reshape(-1, 4) for of_image in content["boxes"]]
        mode = content.get("bbox_mode", XYXY)
        logits = [np.asarray(of_image, np.float32).ravel() for of_image in scores]
        matching = [len(b) == len(s) for b, s in zip(boxes, logits, strict=True)]
        table = make_table([int(i) for i in ids], boxes, logits)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"{path} is not a pickle of Detectron2's proposals: {error!r}.", HINT) from error
    if mode not in (XYXY, XYWH):
        raise UserError(f"{path} has boxes in bbox_mode {mode}.", "Read are 0 (x, y, x, y) and 1 (x, y, w, h).")
    if mode == XYWH:
        table.boxes[:, 2:] += table.boxes[:, :2]
    if not all(matching):
        raise UserError(f"{path} has other numbers of boxes than of scores.", HINT)
    return table


def _check(table: ProposalTable, path: Path) -> None:
    count = int(table.offsets[-1]) if table.offsets.ndim == 1 and len(table.offsets) else -1
    fits = (
        table.image_ids.ndim == 1
        and table.offsets.shape == (len(table.image_ids) + 1,)
        and table.offsets[0] == 0
        and bool((np.diff(table.offsets) >= 0).all())
        and table.boxes.shape == (count, 4)
        and table.objectness.shape == (count,)
    )
    if not fits:
        raise UserError(f"{path} is not a file of proposals: its arrays do not fit together.", HINT)


class SplitProposals:
    """What a file proposes for the images of one split.

    Handed to another process it is its file's name, and the file is read there.

    Raises UserError where images are missing.
    """

    def __init__(self, path: Path, split: str, image_ids: Sequence[int]) -> None:
        self._made_of = (path, split, list(image_ids))
        self._table = read_proposals(path, split)
        order = np.argsort(self._table.image_ids, kind="stable")
        known = np.asarray(self._table.image_ids)[order]
        wanted = np.asarray(image_ids, np.int64)
        place = np.searchsorted(known, wanted)
        lacking = np.ones(len(wanted), bool)
        lacking[place < len(known)] = known[place[place < len(known)]] != wanted[place < len(known)]
        if lacking.any():
            shown = ", ".join(map(str, wanted[lacking][:5]))
            raise UserError(
                f"{path} has no proposals for {int(lacking.sum())} of the {len(wanted)} images of the {split} split, "
                f"the first with ids {shown}",
                "It must be of the same images: " + HINT,
            )
        self._rows = order[place]

    def __reduce__(self) -> Any:
        return SplitProposals, self._made_of

    def of(self, index: int, plan: Plan, most: int) -> Array:
        """For the split's image number `index`: float32 [most, 5], best first, as `Batch.proposals` has them.

        Boxes follow the plan; those left without area drop out, then the best `most` remain (Detectron2,
        data/detection_utils.py, `transform_proposals`).
        """
        row = self._rows[index]
        here = slice(int(self._table.offsets[row]), int(self._table.offsets[row + 1]))
        scores = np.array(self._table.objectness[here])
        boxes = np.array(self._table.boxes[here], np.float64)
        good = np.isfinite(boxes).all(1) & np.isfinite(scores)
        # In the file's pixels, before a flip exchanges left and right of a box that is turned round.
        good &= (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
        boxes, scores = boxes[good], scores[good]
        boxes = plan.boxes(boxes).astype(np.float32)
        seen = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
        best = seen[np.argsort(-scores[seen], kind="stable")[:most]]
        found = np.zeros((most, 5), np.float32)
        found[:, 4] = -np.inf
        found[: len(best), :4], found[: len(best), 4] = boxes[best], scores[best]
        return found
