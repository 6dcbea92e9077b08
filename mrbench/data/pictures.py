"""Reading a picture file into RGB pixels, whatever kind of picture it is."""

import struct
import zlib

import numpy as np
from PIL import Image

from mrbench.data.coco import ImageInfo
from mrbench.errors import UserError

# What Pillow raises for files that are cut off, damaged or something else.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_picture(image: ImageInfo) -> np.ndarray:
    """The picture's pixels, uint8 [h, w, 3] RGB.

    Grey and palette pictures become RGB, transparency is dropped, of 16 bits the upper 8 are kept. An EXIF
    orientation is not applied: COCO's annotations are made on the pixels as they are stored. Raises UserError with
    the image's id and file where it does not decode or has another size than the annotations say.
    """
    try:
        with Image.open(image.file) as file:
            file.load()
            pixels = np.asarray(_to_rgb(file))
    except BROKEN as error:
        raise UserError(
            f"Image {image.id} cannot be read: {image.file}: {error}", "Is the file whole? Fetch it again."
        ) from error
    height, width = pixels.shape[:2]
    if (width, height) != (image.width, image.height):
        raise UserError(
            f"Image {image.id} is {width} x {height} pixels, but its annotations are made for "
            f"{image.width} x {image.height}: {image.file}",
            "The file or the annotations belong to another version of the data set.",
        )
    return pixels


def _to_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode == "RGB":
        return picture
    if picture.mode.startswith("I"):
        values = np.clip(np.asarray(picture), 0, 65535)
        return Image.fromarray((values >> 8).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise ValueError("its pixels are floating-point numbers, which have no fixed range")
    if picture.mode in ("P", "PA"):
        return picture.convert("RGBA").convert("RGB")
    return picture.convert("RGB")
