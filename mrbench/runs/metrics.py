"""metrics.jsonl: one line a logged step or evaluation, only ever appended to."""

import json
import os
from pathlib import Path
from typing import Any

from mrbench.errors import UserError
from mrbench.runs.files import cannot_write

# What differs between two runs of the same thing: everything else is a function of configuration and seed.
TIMING = ("time", "images_per_second", "peak_memory")


def append(path: Path, entry: dict[str, Any]) -> None:
    """Adds one line. A line that a crash tore off before is ended first. Raises UserError on a full disk."""
    line = json.dumps(entry).encode() + b"\n"
    try:
        with path.open("ab+") as file:
            if file.tell() > 0:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    line = b"\n" + line
            file.write(line)
    except OSError as error:
        raise cannot_write(path, error) from error


def read(path: Path) -> list[dict[str, Any]]:
    """All whole lines, by kind and iteration. Of two lines for the same iteration the later holds: the first was
    written by an attempt that was killed before its next checkpoint.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for line in content.splitlines():
        try:
            entry = json.loads(line)
            kind, iteration = entry["kind"], entry["iteration"]
        except (ValueError, KeyError, TypeError):
            continue  # torn by a crash
        if isinstance(kind, str) and isinstance(iteration, int):
            found[kind, iteration] = entry
    return sorted(found.values(), key=lambda e: (e["kind"], e["iteration"]))
