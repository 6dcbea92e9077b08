"""Files of weights: what kind they are, told from their content, and the tensors in them."""

import hashlib
import json
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from mrbench.errors import UserError
from mrbench.weights import detectron, detectron2, tensorpack, torchvision
from mrbench.weights.layout import Layout, Settings, Translated
from mrbench.weights.unpickle import unpickle

# What a legacy file of torch.save begins with: its magic number, pickled.
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# Where programs keep the weights among the rest of a checkpoint; pycls says model_state, Detectron blobs.
_INSIDE = ("model", "state_dict", "model_state", "blobs")

OWN = Layout("mrbench", lambda names: False, lambda state: Translated(dict(state)), lambda state: {})
LAYOUTS = (
    detectron2.LAYOUT,
    torchvision.LAYOUT,
    detectron.LAYOUT,
    tensorpack.LAYOUT,
    torchvision.CLASSIFIER,
    detectron2.CONVERTED,
    detectron2.PYCLS,
)


@dataclass
class WeightFile:
    """A file's tensors under their own names, and what its format implies."""

    path: Path
    container: str  # torch, pickle, npz or safetensors
    layout: Layout
    tensors: dict[str, Tensor]
    settings: Settings
    iteration: int | None  # updates made, where the file says so
    categories: list[str] | None = None  # names of the classes, where the file says so

    def translated(self) -> Translated:
        """The tensors in our names, channels and classes."""
        found = self.layout.translate(self.tensors)
        if self.layout is torchvision.LAYOUT and self._sha256().startswith(torchvision.WITHOUT_EPS):
            torchvision.add_eps(found.tensors)
        return found

    def _sha256(self) -> str:
        with self.path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def inspect(path: Path) -> WeightFile:
    """Read a file of any of the formats. Raises UserError where it is none of them, or holds more than arrays, plain
    containers and, from torch, tensors."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}", "Check the path.") from error
    settings: Settings = {}
    categories: list[str] | None = None
    content: Any
    if head.startswith(b"PK\x03\x04"):
        container = "npz" if _holds_arrays(path) else "torch"
        content = _read_npz(path) if container == "npz" else _read_torch(path)
    elif head.startswith(_TORCH_LEGACY):
        container, content = "torch", _read_torch(path)
    elif head.startswith(b"\x80"):
        container = "pickle"
        with path.open("rb") as file:
            content = unpickle(file, path)
    elif head[8:9] == b"{":
        container = "safetensors"
        content, settings, categories = _read_safetensors(path)
    else:
        raise UserError(
            f"{path} is not a checkpoint or another file of weights.",
            "Read are .pth and .pt of torch.save, .pkl of Detectron2 and Detectron, .npz of tensorpack, safetensors.",
        )
    iteration = content.get("iteration") if isinstance(content, Mapping) else None
    if isinstance(content, Mapping) and isinstance(content.get("categories"), list):
        categories = [str(name) for name in content["categories"]]
    tensors = _tensors(_inside(content), path)
    layout = next((layout for layout in LAYOUTS if layout.recognises(tensors)), OWN)
    return WeightFile(
        path,
        container,
        layout,
        tensors,
        {**layout.settings(tensors), **settings},
        iteration if isinstance(iteration, int) else None,
        categories,
    )


def _holds_arrays(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as file:
            return any(name.endswith(".npy") for name in file.namelist())
    except zipfile.BadZipFile:
        return False


def _read_torch(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError, OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} is not a checkpoint of plain tensors: {str(error).splitlines()[0]}",
            "Other content could run code on this machine, and is not read; or the file was cut short.",
        ) from error


def _read_npz(path: Path) -> Any:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an .npz of plain arrays: {error}") from error


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Settings, list[str] | None]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a mapping
        return tensors, json.loads(metadata.get("settings", "{}")), json.loads(metadata.get("categories", "null"))
    except (SafetensorError, OSError, ValueError) as error:
        raise UserError(f"{path} is not a safetensors file: {error}") from error


def _inside(content: Any) -> Any:
    """The weights themselves, where a checkpoint has them beside other things."""
    if isinstance(content, Mapping):
        for key in _INSIDE:
            if isinstance(content.get(key), Mapping):
                return content[key]
    return content


def _tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise UserError(f"{path} holds no weights by name", f"It holds a {type(content).__name__}.")
    tensors = {}
    for name, value in content.items():
        if isinstance(value, Tensor):
            tensors[str(name)] = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            native = np.array(value, dtype=value.dtype.newbyteorder("="), order="C")
            tensors[str(name)] = torch.from_numpy(native)
    if not tensors:
        raise UserError(f"{path} holds no weights by name", f"It holds {', '.join(map(str, list(content)[:5]))}.")
    return tensors
