"""The picture files that a person names, looked at before anything slow is loaded: no torch here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from mrbench.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
KINDS = f"Pictures end in {', '.join(ENDINGS)}."


@dataclass(frozen=True)
class PictureFile:
    file: Path
    width: int
    height: int


def picture_files(paths: Sequence[Path]) -> list[PictureFile]:
    """The picture files among `paths`, and those in the folders among them, by name.

    Raises UserError for paths that are not there, folders without pictures and files that are no pictures.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in ENDINGS)
            if not inside:
                raise UserError(f"There are no pictures in {path}.", KINDS)
            files += inside
        elif path.is_file():
            files.append(path)
        else:
            raise UserError(f"There is no file or folder {path}.", "Give picture files, or folders of them.")
    return [_looked_at(file) for file in files]


def _looked_at(file: Path) -> PictureFile:
    try:
        with Image.open(file) as picture:
            return PictureFile(file, *picture.size)
    except UnidentifiedImageError:
        named_so = file.suffix.lower() in ENDINGS
        hint = "Is the file whole? Fetch it again, or leave it out." if named_so else KINDS
        raise UserError(f"{file} is not a picture.", hint) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {error}.", "Fetch it again, or leave it out.") from None
