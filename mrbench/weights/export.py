"""Weights written for other programs: safetensors in our names, or Detectron2's .pkl and .pth."""

import json
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from mrbench.runs.files import replacing
from mrbench.weights import detectron2
from mrbench.weights.layout import Settings


def export_safetensors(
    state: Mapping[str, Tensor], settings: Settings, path: Path, categories: Sequence[str] | None = None
) -> None:
    """Our names, with the settings that change the answers, and the classes' names, in the file's metadata."""
    # each its own memory: views of one storage are refused
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    metadata = {"format": "pt", "program": "mrbench", "settings": json.dumps(settings)}
    if categories is not None:
        metadata["categories"] = json.dumps(list(categories))
    with replacing(path) as temporary:
        temporary.write_bytes(save(tensors, metadata))


def export_detectron2(state: Mapping[str, Tensor], path: Path) -> None:
    """As Detectron2's checkpointer reads it (checkpoint/detection_checkpoint.py, `_load_file`): a .pkl of arrays, or a
    file of torch.save where the name ends in .pth. Raises UserError, naming what Detectron2 has no name for."""
    theirs = {name: tensor.detach().cpu().contiguous() for name, tensor in detectron2.export(state).items()}
    with replacing(path) as temporary, temporary.open("wb") as file:
        if path.suffix == ".pkl":
            arrays = {name: tensor.numpy() for name, tensor in theirs.items()}
            pickle.dump({"model": arrays, "__author__": "mrbench"}, file)
        else:
            torch.save({"model": theirs}, file)
