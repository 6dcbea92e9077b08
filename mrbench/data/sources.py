"""Opening a split of whatever data set the configuration names."""

from pathlib import Path

from mrbench.config.layout import find_more, find_split
from mrbench.config.schema import DataConfig, SplitConfig
from mrbench.data.coco import CocoDataset
from mrbench.data.embedded import shapes_folder
from mrbench.data.joined import JoinedDataset
from mrbench.data.proposals import SplitProposals
from mrbench.errors import UserError


def open_split(data: DataConfig, split: str) -> CocoDataset:
    """The "train" or "val" split; the embedded data set is made on first use. `data.train_more` is part of "train".

    Raises UserError where files, or proposals of images, are missing or, unless data.on_error is skip, annotations are
    broken.
    """
    annotations, images = locate_split(data, split)
    dataset = CocoDataset(annotations, images, data.on_error)
    if split == "train" and not dataset.annotated:
        raise UserError(f"{annotations} has no list 'annotations': there is nothing to learn from")
    given: SplitConfig = getattr(data, split)
    if given.proposals is not None:
        ids = [image.id for image in dataset.images]
        dataset.proposals = SplitProposals(Path(given.proposals).expanduser(), split, ids)
    more = find_more(data) if split == "train" else []
    return JoinedDataset([dataset, *(CocoDataset(*places, data.on_error) for places in more)]) if more else dataset


def locate_split(data: DataConfig, split: str) -> tuple[Path, Path]:
    """(annotation file, picture folder) of the "train" or "val" split. Raises UserError."""
    if data.kind != "shapes":
        return find_split(data, split)
    root = shapes_folder(data.shapes)
    return root / "annotations" / f"instances_{split}.json", root / "images" / split


def check_same_categories(train: CocoDataset, val: CocoDataset) -> None:
    """Raises UserError where two splits number or name their categories differently: labels would not agree."""
    if train.categories == val.categories:
        return
    first = next((pair for pair in zip(train.categories, val.categories, strict=False) if pair[0] != pair[1]), None)
    detail = f"{first[0]} against {first[1]}" if first else "one has more than the other"
    raise UserError(
        f"{train.annotation_file} and {val.annotation_file} list different categories "
        f"({len(train.categories)} and {len(val.categories)}): {detail}",
        "Both splits must list the same categories with the same ids.",
    )
