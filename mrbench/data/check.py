"""Everything that is wrong with a data set, found without training on it: what `mrbench data check` does."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any

from mrbench.config.layout import data_root, find_more
from mrbench.config.schema import RunConfig
from mrbench.data.check_pictures import check_copies, check_pictures
from mrbench.data.check_split import Split, check_split
from mrbench.data.findings import SEVERITIES, Finding, Findings
from mrbench.data.sources import locate_split
from mrbench.data.summary import SplitSummary, count
from mrbench.errors import UserError

# With what is done and of how many it is: a context in which a function takes the number of those done.
Progress = Callable[[str, int | None], AbstractContextManager[Callable[[int], None]]]
# With the number of the data set's classes: the names of the weights' classes ("" where unknown), if they have any.
WeightClasses = Callable[[int], list[str] | None]

EXPECTED = (
    "Expected are annotations/instances_train*.json and annotations/instances_val*.json, and the pictures in "
    "images/train* and images/val*, or together in images/. For other places: data.train.annotations=FILE, "
    "data.train.images=FOLDER, and the same of val."
)


@dataclass
class Report:
    splits: dict[str, Split]
    summaries: dict[str, SplitSummary]
    findings: list[Finding]  # the gravest first

    @property
    def worst(self) -> str | None:
        """error, warning, note or None."""
        return self.findings[0].severity if self.findings else None

    def content(self) -> dict[str, Any]:
        """What --json writes."""
        return {
            "splits": {
                name: {
                    "annotation_file": str(split.annotation_file),
                    "image_folder": str(split.image_folder),
                    "categories": [{"id": c.id, "name": c.name} for c in split.categories],
                    **asdict(self.summaries[name]),
                }
                for name, split in self.splits.items()
            },
            "severity": self.worst,
            "counts": {s: sum(f.count for f in self.findings if f.severity == s) for s in SEVERITIES},
            "findings": [
                {"kind": f.kind, "severity": f.severity, "meaning": f.meaning, "count": f.count}
                | {"examples": [asdict(example) for example in f.examples]}
                for f in self.findings
            ],
        }


def check_data(
    config: RunConfig, progress: Progress, decode: bool = False, weight_classes: WeightClasses | None = None
) -> Report:
    """Checks all splits of the configuration's data set, against its model too.

    `decode` reads all pixels; without it only the files' first and last bytes are looked at. Raises UserError where
    the folder of the data set is not there, or is empty.
    """
    root = None if config.data.kind == "shapes" else data_root(config.data)
    findings = Findings()
    splits: dict[str, Split] = {}
    for name, find in _places(config).items():
        try:
            annotations, images = find()
        except UserError as error:
            findings.add("file", name, error.what)
            continue
        with progress(f"{name}: annotations", None):
            splits[name] = check_split(name, annotations, images, findings)
    if root is not None and not splits and not any(root.iterdir()):
        raise UserError(f"There is nothing in {root}", EXPECTED)
    pictures = {}
    for name, split in splits.items():
        with progress(f"{name}: pictures", len(split.images)) as advance:
            pictures[name] = check_pictures(split.images, name, findings, decode, advance)
    with progress("copies", None):
        check_copies(pictures, findings)
    _check_categories(splits, findings)
    _check_model(config, splits, findings, weight_classes)
    areas = config.evaluation.areas
    return Report(splits, {name: _summary(split, areas) for name, split in splits.items()}, findings.ranked())


def _places(config: RunConfig) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """By split, what finds its annotation file and its folder of pictures."""
    data = config.data
    return {
        "train": lambda: locate_split(data, "train"),
        **{f"train_more[{i}]": lambda i=i: find_more(data)[i] for i in range(len(data.train_more))},  # type: ignore[misc]
        "val": lambda: locate_split(data, "val"),
    }


def _check_categories(splits: dict[str, Split], findings: Findings) -> None:
    first = splits.get("train")
    for name, split in splits.items():
        if first is None or split is first or not (first.categories and split.categories):
            continue
        # Further training files may number them differently.
        own, other = ([c.name if name != "val" else (c.id, c.name) for c in s.categories] for s in (split, first))
        lacking, added = (sorted(map(str, set(a) - set(b))) for a, b in ((other, own), (own, other)))
        if lacking or added:
            parts = [f"only in train: {', '.join(lacking[:5])}"] if lacking else []
            parts += [f"only in {name}: {', '.join(added[:5])}"] if added else []
            findings.add("categories-differ", name, "; ".join(parts), file=split.annotation_file)


def _check_model(
    config: RunConfig, splits: dict[str, Split], findings: Findings, weight_classes: WeightClasses | None
) -> None:
    model = config.model
    for name, split in splits.items():
        if name != "val" and model.mask_head.enabled and split.instances_without_mask:
            text = f"{split.instances_without_mask} instances; model.mask_head.enabled=false trains without masks"
            findings.add("mask-wanted", name, text, file=split.annotation_file)
        if model.keypoint_head.enabled and split.categories:
            named = sorted({len(c.keypoints) for c in split.categories if c.keypoints})
            if named != [model.keypoint_head.keypoints]:
                text = f"model.keypoint_head.keypoints={model.keypoint_head.keypoints}, named are {named or 'none'}"
                findings.add("keypoints-model", name, text, file=split.annotation_file)
    train = splits.get("train")
    if weight_classes is not None and train is not None and train.categories:
        names = [category.name for category in train.categories]
        _check_weights(config, weight_classes(len(names)), names, findings)


def _check_weights(config: RunConfig, known: list[str] | None, wanted: list[str], findings: Findings) -> None:
    """Whether the classes of the weights are the data set's, as `model.weights_classes` would use them."""
    file = config.model.weights
    if known is None:
        return
    if config.model.weights_classes == "by_name":
        if {name.casefold() for name in known if name}.isdisjoint(name.casefold() for name in wanted):
            findings.add("categories-weights", "train", f"{file} and the data set share no category's name")
    elif len(known) != len(wanted):
        text = f"{file} is of {len(known)} classes, the data set has {len(wanted)}"
        findings.add("categories-weights", "train", text)
    else:
        other = [(a, b) for a, b in zip(known, wanted, strict=True) if a and a.casefold() != b.casefold()]
        for name, own in other:
            text = f"{name!r} in {file} where the data set has {own!r}"
            findings.add("category-names-weights", "train", text)


def _summary(split: Split, areas: list[float]) -> SplitSummary:
    empty = sum(image.id not in split.annotated for image in split.images)
    return count(split.images, empty, split.crowds, split.labels, len(split.categories), split.areas, areas)
