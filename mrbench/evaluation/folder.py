"""Pictures without annotations, as a data set that a model can be run on."""

from collections.abc import Sequence
from dataclasses import dataclass

from mrbench.data.coco import Category, ImageInfo
from mrbench.data.picture_files import PictureFile


@dataclass
class PictureSet:
    """What `eval_loader` and `detect_dataset` need of a data set. Image ids count from 1, in the order given."""

    images: list[ImageInfo]
    categories: list[Category]

    def __len__(self) -> int:
        return len(self.images)


def open_pictures(files: Sequence[PictureFile], categories: Sequence[Category]) -> PictureSet:
    """The pictures that `picture_files` found."""
    images = [ImageInfo(n, found.file, found.width, found.height) for n, found in enumerate(files, 1)]
    return PictureSet(images, list(categories))
