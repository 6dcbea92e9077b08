"""Validation pictures on which an arm and the baseline differ most: ground truth, baseline and arm side by side."""

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mrbench.config.schema import DataConfig
from mrbench.data.coco import CocoDataset
from mrbench.data.pictures import read_picture
from mrbench.data.sources import locate_split
from mrbench.errors import UserError
from mrbench.evaluation.drawing import draw_coco
from mrbench.evaluation.matches import KindMatches, Matches, unpack
from mrbench.report.build import Report
from mrbench.report.run_record import RunRecord
from mrbench.report.words import verdict
from mrbench.runs.record import Run

PICTURES = 3  # an arm
ARMS = 5
SIDE = 480  # pixels of a panel's longer side
QUALITY = 78  # of JPEG
MOST_BYTES = 2_500_000  # of all pictures; text makes a third more of them
LARGEST_FILE = 400 * 2**20  # bytes of detections that are worth reading for a few pictures
SCORES = (0.5, 0.3, 0.1)  # the first at which the baseline finds something in half of the cases is the least drawn
IOU = 0.5

Ints = NDArray[np.integer]
_ITEM = re.compile(r'\{"image_id": (\d+),')  # as an evaluation writes it


@dataclass(frozen=True)
class Counts:
    """What one run makes of one picture: instances found, wrong detections, and how many instances there are."""

    found: int
    wrong: int
    instances: int

    def __str__(self) -> str:
        return f"{self.found} of {self.instances} found, {self.wrong} wrong"


@dataclass(frozen=True)
class Panel:
    """`picture` is a JPEG; `said` is what there is to be seen, for those who do not see it."""

    title: str
    said: str
    picture: bytes
    size: tuple[int, int]


@dataclass(frozen=True)
class Row:
    """One picture: ground truth, baseline, arm."""

    arm: str
    seed: int
    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Gallery:
    """`notes` say how pictures were chosen, or why there are none."""

    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Outcome:
    """Of each image of a run, by image id: found and wrong detections of a least score, instances."""

    ids: Ints
    found: Ints
    wrong: Ints
    instances: Ints

    def counts(self, image: int) -> Counts:
        place = int(np.flatnonzero(self.ids == image)[0])
        return Counts(int(self.found[place]), int(self.wrong[place]), int(self.instances[place]))

    def quality(self) -> NDArray[np.floating]:
        """F1: found instances against what was and what should have been found."""
        return 2 * self.found / np.maximum(self.found + self.wrong + self.instances, 1)


def gather(report: Report, pictures: int = PICTURES) -> Gallery:
    """At most `pictures` for each of the first `ARMS` arms, decided ones before the others. Never raises for what is
    not there: a note says it."""
    if not report.challengers or not pictures:
        return Gallery((), ())
    pairs = [(arm, pair) for arm in _first(report) if (pair := _pair(report, arm))]
    if not pairs:
        return Gallery((), ("No pictures: two runs with detections and matches.npz on record are needed.",))
    try:
        return _gather(report.study.baseline, pairs, pictures)
    except (UserError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        what = error.what if isinstance(error, UserError) else str(error)
        return Gallery((), (f"No pictures: {what.splitlines()[0] if what else 'the detections cannot be read'}",))


def _first(report: Report) -> list[str]:
    """Decided arms before undecided ones, by the size of their first difference."""

    def size(arm: str) -> float:
        return max((abs(a.differences[arm].mean or 0.0) for a in report.answers), default=0.0)

    decided = ("better", "worse", "mixed")
    return sorted(report.challengers, key=lambda arm: (verdict(report, arm) not in decided, -size(arm)))


def _pair(report: Report, arm: str) -> tuple[RunRecord, RunRecord] | None:
    """A run of the baseline and one of the arm that can be shown, of the same seed if that can be."""
    base = {run.seed: run for run in report.study.arm(report.study.baseline).runs if _showable(run)}
    own = {run.seed: run for run in report.study.arm(arm).runs if _showable(run)}
    if not base or not own:
        return None
    seed = next((seed for seed in sorted(own) if seed in base), min(own))
    return base.get(seed, base[min(base)]), own[seed]


def _showable(run: RunRecord) -> bool:
    return run.folder is not None and run.matches is not None and Run(run.folder).detections_file().is_file()


def _gather(baseline: str, pairs: Sequence[tuple[str, tuple[RunRecord, RunRecord]]], pictures: int) -> Gallery:
    first = pairs[0][1][0]
    dataset = _dataset(first)
    kind = "mask" if "mask" in _matches(first).kinds else "box"
    score = _least_score(_matches(first), kind)
    chosen: list[tuple[str, RunRecord, int, Counts, Counts]] = []
    wanted: dict[Path, set[int]] = {}
    bases: dict[str, _Outcome] = {}
    for arm, (base, own) in pairs[:ARMS]:
        reference = bases.setdefault(base.run_id or "", _outcome(_matches(base), kind, score))
        other = _outcome(_matches(own), kind, score)
        for image in differing(reference, other, pictures):
            chosen.append((arm, own, image, reference.counts(image), other.counts(image)))
            for run in (base, own):
                wanted.setdefault(_file(run), set()).add(image)
    detections = {file: _read(file, images, score) for file, images in wanted.items()}
    base_of = {arm: base for arm, (base, _) in pairs}
    rows: list[Row] = []
    taken = 0
    for arm, own, image, before, after in chosen:
        runs = ((baseline, base_of[arm], before), (arm, own, after))
        row = _row(
            dataset, arm, own.own_seed, image, [(t, detections[_file(r)].get(image, []), c) for t, r, c in runs]
        )
        taken += sum(len(panel.picture) for panel in row.panels)
        if taken > MOST_BYTES:
            break
        rows.append(row)
    if not rows:
        return Gallery((), ("No pictures: baseline and arms find the same in all of them.",))
    shown = f" Of {len(pairs)} arms, {ARMS} are shown." if len(pairs) > ARMS else ""
    note = (
        f"Chosen for differing most in what is found ({kind} IoU {IOU:g}, score {score:g} and more), gains and losses "
        f"alike, from one seed each: they show what changes, not how often.{shown}"
    )
    return Gallery(tuple(rows), (note,))


def _file(run: RunRecord) -> Path:
    assert run.folder is not None
    return Run(run.folder).detections_file()


def _dataset(run: RunRecord) -> CocoDataset:
    assert run.folder is not None
    data: DataConfig = Run(run.folder).config().data
    return CocoDataset(*locate_split(data, "val"), on_error="skip")


def _matches(run: RunRecord) -> Matches:
    assert run.matches is not None
    return Matches.load(run.matches)


def _least_score(matches: Matches, kind: str) -> float:
    found = matches.kinds[kind]
    half = found.ground_truth[:, :, 0].sum() / 2
    return next((score for score in SCORES if np.count_nonzero(found.score >= score) >= half), SCORES[-1])


def _outcome(matches: Matches, kind: str, score: float) -> _Outcome:
    found: KindMatches = matches.kinds[kind]
    place = int(np.argmin(np.abs(matches.iou_thresholds - IOU)))
    areas = found.ground_truth.shape[2]
    count = len(matches.iou_thresholds)
    keep = found.score >= score
    matched = unpack(found.matched[keep], areas, count)[:, 0, place]
    ignored = unpack(found.ignored[keep], areas, count)[:, 0, place]
    image, images = found.image[keep], len(matches.image_ids)
    return _Outcome(
        ids=matches.image_ids,
        found=np.bincount(image[matched & ~ignored], minlength=images),
        wrong=np.bincount(image[~matched & ~ignored], minlength=images),
        instances=found.ground_truth[:, :, 0].sum(1),
    )


def differing(base: _Outcome, own: _Outcome, count: int) -> list[int]:
    """Ids of the images whose F1 differs most: the largest gain and loss, then by size; none that is equal."""
    ids, first, second = np.intersect1d(base.ids, own.ids, return_indices=True)
    change = own.quality()[second] - base.quality()[first]
    order = [int(place) for place in np.argsort(-np.abs(change), kind="stable") if change[place]]
    gain = next((place for place in order if change[place] > 0), None)
    loss = next((place for place in order if change[place] < 0), None)
    picked = list(dict.fromkeys([*(place for place in (gain, loss) if place is not None), *order]))[:count]
    return [int(ids[place]) for place in picked]


def _read(file: Path, images: set[int], score: float) -> dict[int, list[dict[str, Any]]]:
    """The detections of these images, without reading those of the others: there may be half a million."""
    if file.stat().st_size > LARGEST_FILE:
        raise UserError(f"{file} has {file.stat().st_size / 2**20:.0f} MiB, which is too much to show a few pictures.")
    text = file.read_text(encoding="utf-8")
    items = [(int(match[1]), match.start()) for match in _ITEM.finditer(text)]
    if not items and text.strip() != "[]":
        raise UserError(f"{file} is not a list of detections.")
    decoder, found = json.JSONDecoder(), dict[int, list[dict[str, Any]]]()
    for image, place in items:
        if image in images:
            item, _ = decoder.raw_decode(text, place)
            if item["score"] >= score:
                found.setdefault(image, []).append(item)
    return found


def _row(
    dataset: CocoDataset,
    arm: str,
    seed: int,
    image: int,
    shown: Iterable[tuple[str, list[dict[str, Any]], Counts]],
) -> Row:
    place = next(i for i, info in enumerate(dataset.images) if info.id == image)
    info = dataset.images[place]
    picture = Image.fromarray(read_picture(info))
    categories = [(category.id, category.name) for category in dataset.categories]
    truth = [
        {
            "bbox": [a.bbox[0], a.bbox[1], a.bbox[2] - a.bbox[0], a.bbox[3] - a.bbox[1]],
            "category_id": categories[a.label][0],
            **({} if a.segmentation is None else {"segmentation": a.segmentation}),
        }
        for a in dataset.annotations(place)
        if not a.iscrowd
    ]
    shown = list(shown)
    beside = [*truth, *(item for _, items, _ in shown for item in items)]
    panels = [_panel("ground truth", f"{len(truth)} instances", draw_coco(picture, truth, categories, beside))]
    panels += [
        _panel(title, str(counts), draw_coco(picture, items, categories, beside)) for title, items, counts in shown
    ]
    return Row(arm, seed, info.file.name, tuple(panels))


def _panel(title: str, said: str, picture: Image.Image) -> Panel:
    picture.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    stream = io.BytesIO()
    picture.save(stream, format="JPEG", quality=QUALITY, optimize=True)
    return Panel(title, said, stream.getvalue(), picture.size)
