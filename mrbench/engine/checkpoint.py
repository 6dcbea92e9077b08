"""Checkpoints: all that a run needs to go on exactly, written so that a torn one is never trusted.

`<iterations done>.pt` is written beside its place and renamed, then `<iterations done>.json` with its SHA-256; a
checkpoint without a matching sum is passed over. Randomness is not in it: batches, augmentation and sampling are
functions of (seed, iteration).
"""

import hashlib
import io
import json
import pickle
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mrbench.errors import UserError
from mrbench.modeling.load import load_into
from mrbench.runs.files import replacing, sha256, write_json
from mrbench.weights.fill import Loaded

FINAL = "final.pt"


def save(folder: Path, iteration: int, state: Mapping[str, Any], keep: int) -> Path:
    """Write the state after `iteration` updates, and remove all but the newest `keep` checkpoints.

    Raises UserError where it cannot be written, for example on a full disk.
    """
    path = folder / f"{iteration:08d}.pt"
    _write(path, {"iteration": iteration, **state})
    for old in sorted(folder.glob("[0-9]*.pt"))[:-keep]:
        # The sum goes first: a checkpoint without one is not trusted.
        old.with_suffix(".json").unlink(missing_ok=True)
        old.unlink(missing_ok=True)
    # Left by a process that was killed while it wrote; the run's lock says that nobody writes now.
    for left_over in folder.glob(".*.tmp"):
        with suppress(OSError):
            left_over.unlink()
    return path


def save_weights(folder: Path, model: nn.Module, iteration: int, categories: Sequence[str] = ()) -> Path:
    """Write the model's weights alone, and the names of its classes, to `final.pt`.

    Raises UserError where it cannot be written.
    """
    path = folder / FINAL
    _write(path, {"iteration": iteration, "model": model.state_dict(), "categories": list(categories)})
    return path


def _write(path: Path, content: dict[str, Any]) -> None:
    # Serialised in memory first: the disk then fails in Python's own write, with its own error.
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    write_json(path.with_suffix(".json"), {"sha256": digest, "iteration": content["iteration"]})


def newest(folder: Path, log: Callable[[str], None]) -> Path | None:
    """The newest checkpoint whose SHA-256 is right; `log` is told of those that are passed over."""
    for path in sorted(folder.glob("[0-9]*.pt"), reverse=True):
        if verifies(path):
            return path
        log(f"passed over {path.name}: it is not what was written, or its writing was cut short")
    return None


def verifies(path: Path) -> bool:
    """Whether a checkpoint is what was written, by the SHA-256 beside it."""
    try:
        expected = json.loads(path.with_suffix(".json").read_text())["sha256"]
        return bool(sha256(path) == expected)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def load(path: Path) -> dict[str, Any]:
    """A checkpoint's content, on the CPU. Raises UserError where the file is not a checkpoint.

    Only tensors and plain containers are read: a file from elsewhere cannot run code.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}", "check the path") from error
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a checkpoint of mrbench", str(error).splitlines()[0]) from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a checkpoint of mrbench", f"it holds a {type(content).__name__}")
    return content


def load_model_weights(
    path: Path, model: nn.Module, mismatch: str = "refuse", categories: Sequence[str] | None = None
) -> Loaded:
    """Read weights into `model` from a checkpoint, a `final.pt`, or a file of another project (docs/weights.md).

    Raises UserError, naming the weights that are missing, unknown or of another shape, and the settings that the
    weights were trained without; with `mismatch` "tell" these are told by `Loaded` instead. With `categories`, the
    names of the model's classes, the weights' classes may be others, and go by name.
    """
    return load_into(model, path, allow_partial=mismatch == "tell", categories=categories)
