"""All kinds of picture files end as the same RGB pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mrbench.data.coco import ImageInfo
from mrbench.data.pictures import read_picture
from mrbench.errors import UserError

GREY = np.arange(24 * 16, dtype=np.uint16).reshape(24, 16) % 256


def read(path: Path, width: int = 16, height: int = 24) -> np.ndarray:
    pixels = read_picture(ImageInfo(7, path, width, height))
    assert pixels.dtype == np.uint8
    assert pixels.shape == (height, width, 3)
    return pixels


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
def test_modes(tmp_path: Path, mode: str) -> None:
    picture = Image.fromarray(GREY.astype(np.uint8)).convert("RGB").convert(mode)
    picture.save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png"), np.asarray(picture.convert("RGB")))


def test_sixteen_bits_keep_the_upper_eight(tmp_path: Path) -> None:
    Image.fromarray((GREY * 257).astype(np.uint16)).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png")[..., 0], GREY)


def test_orientation_tag_is_not_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(GREY.astype(np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees to look at it
    picture.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read(tmp_path / "a.png")[..., 0], GREY)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("kept", [0, 10, 300])
def test_cut_off_files_are_named(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (24, 16, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"Image 7 cannot be read: .*a\."):
        read(path)


def test_other_size_than_the_annotations_say(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(UserError, match="Image 7 is 16 x 24 pixels, but its annotations are made for 24 x 16"):
        read(tmp_path / "a.png", width=24, height=16)
