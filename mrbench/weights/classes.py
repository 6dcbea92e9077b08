"""How many classes a file of weights tells apart."""

from pathlib import Path

from mrbench.weights import torchvision
from mrbench.weights.files import inspect


def number_of_classes(path: Path, wanted: int) -> int | None:
    """Without background; None where the file has no box head. `wanted`: of the model that would take the weights,
    by which torchvision's 91 COCO rows are read as 80. Raises UserError where the file is not one of weights."""
    tensors = inspect(path).translated().tensors
    torchvision.coco_classes(tensors, wanted)
    rows = [tensor.shape[0] for name, tensor in tensors.items() if name.endswith("classes.weight")]
    return rows[0] - 1 if rows else None
