"""The fingerprint of a data set's annotations: the part of a folder that makes a run what it is."""

import hashlib
from functools import lru_cache
from pathlib import Path

from mrbench.config.layout import find_more, find_split
from mrbench.config.schema import DataConfig
from mrbench.errors import UserError


def annotations_fingerprint(data: DataConfig) -> str:
    """First 16 hex digits of SHA-256 over the bytes of all annotation files. Raises UserError."""
    digest = hashlib.sha256()
    for path, _ in (find_split(data, "train"), find_split(data, "val"), *find_more(data)):
        try:
            stat = path.stat()
            digest.update(_digest(path, stat.st_size, stat.st_mtime_ns))
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()[:16]


@lru_cache
def _digest(path: Path, size: int, modified: int) -> bytes:
    """Read once for all runs of a sweep, as long as the file stays as it is."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
