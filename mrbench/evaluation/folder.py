"""Pictures without annotations, as a data set that a model can be run on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mrbench.data.coco import Category, ImageInfo
from mrbench.data.picture_files import picture_files


@dataclass
class PictureSet:
    """What `eval_loader` and `detect_dataset` need of a data set. Image ids count from 1, in the order given."""

    images: list[ImageInfo]
    categories: list[Category]

    def __len__(self) -> int:
        return len(self.images)


def open_pictures(paths: Sequence[Path], categories: Sequence[Category]) -> PictureSet:
    """The picture files among `paths`, and those in the folders among them, by name.

    Raises what `picture_files` does.
    """
    images = [ImageInfo(n, found.file, found.width, found.height) for n, found in enumerate(picture_files(paths), 1)]
    return PictureSet(images, list(categories))
