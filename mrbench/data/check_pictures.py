"""Picture files held against what the annotations say of them: by their first and last bytes, or decoded."""

import hashlib
import os
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from mrbench.data.entries import ImageInfo
from mrbench.data.findings import Findings
from mrbench.data.pictures import BROKEN

HEAD = 4096  # bytes that tell most files apart
TAIL = 512  # bytes among which a whole JPEG's end is
THREADS = 8  # more than cores: on a disk over the network they mostly wait
CHUNK = 256  # files a task
EXIF_ORIENTATION = 0x0112
# What a picture file ends with, by format; others are known to be whole only when they are decoded.
ENDS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}

Advance = Callable[[int], None]


@dataclass
class Picture:
    """What a file's first and last bytes tell."""

    image: ImageInfo
    problems: list[tuple[str, str]] = field(default_factory=list)  # (kind, text)
    bytes: int = -1  # the file's length; -1 where there is none
    head: int = 0  # checksum of its beginning


def check_pictures(
    images: list[ImageInfo], split: str, findings: Findings, decode: bool, advance: Advance
) -> list[Picture]:
    """Looks at every file and adds what is wrong with it; `advance` is called with the number of files done."""
    found: list[Picture] = []
    with ThreadPoolExecutor(THREADS) as pool:
        for pictures in pool.map(partial(_inspect_all, decode=decode), _chunks(images)):
            for picture in pictures:
                for kind, text in picture.problems:
                    findings.add(kind, split, text, image_id=picture.image.id, file=picture.image.file)
            found += pictures
            advance(len(pictures))
    return found


def check_copies(splits: dict[str, list[Picture]], findings: Findings) -> None:
    """Adds pictures that are equal byte by byte: of two splits, and inside one."""
    places: defaultdict[tuple[int, int], list[tuple[str, Picture]]] = defaultdict(list)
    for split, pictures in splits.items():
        for picture in pictures:
            if picture.bytes > 0:
                places[picture.bytes, picture.head].append((split, picture))
    for alike in places.values():
        if len(alike) < 2:
            continue
        equal: defaultdict[bytes, list[tuple[str, Picture]]] = defaultdict(list)
        for split, picture in alike:
            equal[_digest(picture.image.file)].append((split, picture))
        for group in equal.values():
            _add_copies(group, findings)


def _add_copies(group: list[tuple[str, Picture]], findings: Findings) -> None:
    """`group`: (split, picture) of equal files."""
    first_split, first = group[0]
    for split, picture in group[1:]:
        image = picture.image
        if split == first_split and image.file == first.image.file:
            continue  # several images that name one file are another finding
        kind = "split-leak" if split != first_split and "val" in (split, first_split) else "same-picture"
        text = f"{image.file.name} equals {first.image.file.name} of {first_split} (image {first.image.id})"
        findings.add(kind, split, text, image_id=image.id, file=image.file)


def _inspect_all(images: list[ImageInfo], decode: bool) -> list[Picture]:
    return [_inspect(image, decode) for image in images]


def _inspect(image: ImageInfo, decode: bool) -> Picture:
    picture = Picture(image)
    try:
        with image.file.open("rb") as file:
            picture.bytes = os.fstat(file.fileno()).st_size
            picture.head = zlib.crc32(file.read(HEAD))
            file.seek(0)
            _look(file, picture, decode)
    except FileNotFoundError:
        picture.problems.append(("picture-missing", "no such file"))
    except BROKEN as error:
        picture.problems.append(("picture-unreadable", f"{error}".replace(str(file), image.file.name)[:200]))
    return picture


def _look(file: BinaryIO, picture: Picture, decode: bool) -> None:
    image, add = picture.image, picture.problems.append
    with Image.open(file) as opened:
        size, said = opened.size, (image.width, image.height)
        turn = opened.getexif().get(EXIF_ORIENTATION, 1) if "exif" in opened.info else 1
        if size != said and turn in (5, 6, 7, 8) and size[::-1] == said:
            add(("exif-orientation", f"{size[0]} x {size[1]} as stored, {said[0]} x {said[1]} as annotated"))
        elif size != said:
            add(("picture-size", f"{size[0]} x {size[1]} in the file, {said[0]} x {said[1]} in the annotations"))
        elif turn not in (0, 1):
            add(("exif-turned", f"EXIF orientation {turn}"))
        if opened.mode == "F":
            add(("picture-mode", "floating-point pixels"))
        file_format = opened.format or ""
        if decode:
            try:
                opened.load()
            except BROKEN as error:
                truncated = "truncated" in str(error) or _ends_early(file, file_format, picture.bytes)
                add(("picture-truncated" if truncated else "picture-unreadable", str(error)[:200]))
            return
        if _ends_early(file, file_format, picture.bytes):
            add(("picture-truncated", f"it ends without the mark of a {file_format}'s end"))


def _ends_early(file: BinaryIO, file_format: str, length: int) -> bool:
    if file_format not in ENDS or file.closed:
        return False
    file.seek(max(length - TAIL, 0))
    return ENDS[file_format] not in file.read(TAIL)


def _digest(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").digest()
    except OSError:
        return str(path).encode()  # equal to none


def _chunks(images: Iterable[ImageInfo]) -> Iterator[list[ImageInfo]]:
    left = iter(images)
    while chunk := list(islice(left, CHUNK)):
        yield chunk
