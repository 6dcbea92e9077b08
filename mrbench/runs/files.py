"""Files that are whole or not there: written beside their place, then renamed."""

import errno
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mrbench.errors import UserError

ELSEWHERE = "with --root or $MRBENCH_ROOT for runs, --out or -o for other files."
HINTS = {
    errno.EACCES: f"Choose a folder that you may write to, {ELSEWHERE}",
    errno.EPERM: f"Choose a folder that you may write to, {ELSEWHERE}",
    errno.EROFS: f"The file system is read-only: choose another folder, {ELSEWHERE}",
    errno.ENOTDIR: f"A part of that path is a file: choose a folder, {ELSEWHERE}",
    errno.EEXIST: f"A part of that path is a file: choose a folder, {ELSEWHERE}",
    errno.ENOSPC: "Make room on the disk, then give the same command again: a training goes on where it stopped.",
    errno.EDQUOT: "Your quota is used up. Make room, then give the same command again.",
}


def cannot_write(path: Path, error: OSError) -> UserError:
    """The message for a file that the system would not let us write."""
    return UserError(f"Cannot write {path}: {error.strerror or error}", HINTS.get(error.errno or 0, ""))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path` to write to; it takes `path`'s place when the block ends without an exception.

    The content reaches the disk before the rename, so a crash leaves the old file or the new one, whole. Raises
    UserError where the system refuses (no space, no permission, read-only).
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, path)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def sha256(path: Path) -> str:
    """Of the file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """The file's content, or None where it is not there. Raises UserError where it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:  # not JSON, or not even text
        raise UserError(
            f"{path} is damaged: {error}", "Remove the file, or the run it belongs to, and run it again."
        ) from error
