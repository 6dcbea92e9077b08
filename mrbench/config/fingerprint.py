"""The fingerprint of a data set's annotations: the part of a folder that makes a run what it is."""

import hashlib

from mrbench.config.layout import find_split
from mrbench.config.schema import DataConfig
from mrbench.errors import UserError


def annotations_fingerprint(data: DataConfig) -> str:
    """First 16 hex digits of SHA-256 over the bytes of both splits' annotation files. Raises UserError."""
    digest = hashlib.sha256()
    for split in ("train", "val"):
        path = find_split(data, split)[0]
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UserError(f"Cannot read {path}: {error.strerror}") from error
    return digest.hexdigest()[:16]
