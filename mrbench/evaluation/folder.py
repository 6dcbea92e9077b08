"""Pictures without annotations, as a data set that a model can be run on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mrbench.data.coco import Category, ImageInfo
from mrbench.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass
class PictureSet:
    """What `eval_loader` and `detect_dataset` need of a data set. Image ids count from 1, in the order given."""

    images: list[ImageInfo]
    categories: list[Category]

    def __len__(self) -> int:
        return len(self.images)


def open_pictures(paths: Sequence[Path], categories: Sequence[Category]) -> PictureSet:
    """The picture files among `paths`, and those in the folders among them, by name.

    Raises UserError for paths that are not there, folders without pictures and files that are no pictures.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
            if not inside:
                raise UserError(f"There are no pictures in {path}.", f"Pictures end in {', '.join(ENDINGS)}.")
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"There is no file or folder {path}.", "Give picture files, or folders of them.")
    images = []
    for number, file in enumerate(files, 1):
        try:
            with Image.open(file) as picture:
                width, height = picture.size
        except UnidentifiedImageError:
            raise UserError(
                f"{file} is not a picture.", "Is the file whole? Fetch it again, or leave it out."
            ) from None
        except (OSError, ValueError) as error:
            raise UserError(f"{file} cannot be read: {error}.", "Fetch it again, or leave it out.") from None
        images.append(ImageInfo(number, file, width, height))
    return PictureSet(images, list(categories))
