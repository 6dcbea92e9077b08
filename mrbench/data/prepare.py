"""Laying out what was downloaded: archives verified and unpacked, nothing fetched, nothing half-unpacked trusted."""

import hashlib
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import IO

from mrbench.data.archives import Archive, Part
from mrbench.errors import UserError
from mrbench.runs.files import cannot_write

BLOCK = 1 << 20  # bytes
BROKEN = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error)

Advance = Callable[[int], None]


@dataclass(frozen=True)
class State:
    """present: unpacked, whole. packed: the archive lies there. missing: neither."""

    state: str
    counts: tuple[int, ...]  # files there are of each of the archive's parts


def look(archive: Archive, root: Path) -> State:
    """How far an archive is. Files are counted, not read."""
    counts = tuple(_count(root / part.folder, part.pattern) for part in archive.parts)
    if all(found >= part.count for found, part in zip(counts, archive.parts, strict=True)):
        return State("present", counts)
    return State("packed" if (root / archive.name).is_file() else "missing", counts)


def unpack(archive: Archive, root: Path, advance: Advance) -> None:
    """Verifies an archive that lies in `root` and puts its files in their places.

    They are unpacked into a folder beside, and each moved when all are there: what was killed begins anew.
    `advance` is called with bytes read, twice the archive's length in all. Raises UserError where the archive is
    damaged, is another one, or does not hold what it should.
    """
    path = root / archive.name
    _verify(archive, path, advance)
    partial = root / f".{archive.name}.unpacking"
    folders = tuple(part.folder.split("/")[0] for part in archive.parts)
    try:
        if partial.exists():
            shutil.rmtree(partial)
        files = 0
        for name, content in _members(path, advance):
            place = _place(name, folders)
            if place is None:
                continue
            target = partial / place
            target.parent.mkdir(parents=True, exist_ok=True)
            with content, target.open("wb") as file:
                shutil.copyfileobj(content, file, BLOCK)
            files += 1
        for part in archive.parts:
            _check_part(part, _count(partial / part.folder, part.pattern), path)
        for source in sorted(p for p in partial.rglob("*") if p.is_file()):
            target = root / source.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(source, target)
    except BROKEN as error:
        raise UserError(f"{path} is damaged: {error}", "Download it again.") from None
    except OSError as error:
        raise cannot_write(partial, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _verify(archive: Archive, path: Path, advance: Advance) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            advance(len(block))
    if archive.md5 is not None and digest.hexdigest() != archive.md5:
        raise UserError(
            f"{path} is not the official archive, or not whole: its MD5 is {digest.hexdigest()}, not {archive.md5}",
            f"Download it again: {archive.where}",
        )


def _members(path: Path, advance: Advance) -> Iterator[tuple[str, IO[bytes]]]:
    """(name, content) of the files in a zip or tar archive. Raises those of `BROKEN`."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if not member.is_dir():
                    yield member.filename, archive.open(member)
                    advance(member.compress_size)
        return
    with tarfile.open(path) as packed:
        for entry in packed:
            content = packed.extractfile(entry) if entry.isfile() else None
            if content is not None:
                yield entry.name, content
    advance(path.stat().st_size)


def _place(name: str, folders: tuple[str, ...]) -> PurePosixPath | None:
    """Where a member belongs: from the first of the folders in its name on; None for what is not wanted."""
    parts = PurePosixPath(name).parts
    start = next((i for i, part in enumerate(parts) if part in folders), None)
    if start is None or ".." in parts:
        return None
    return PurePosixPath(*parts[start:])


def _check_part(part: Part, found: int, path: Path) -> None:
    if found < part.count:
        raise UserError(
            f"{path} holds {found:,} of {part.count:,} files {part.folder}/{part.pattern}", "Download it again."
        )


def _count(folder: Path, pattern: str) -> int:
    """Files of that name in a folder and those below it, empty ones not counted."""
    found = 0
    pending = [folder]
    while pending:
        try:
            with closing(os.scandir(pending.pop())) as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append(Path(entry.path))
                    elif fnmatch(entry.name, pattern):
                        found += entry.stat().st_size > 0
        except OSError:
            continue
    return found
