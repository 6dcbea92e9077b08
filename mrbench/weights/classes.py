"""Which classes a file of weights tells apart."""

from pathlib import Path

from mrbench.errors import UserError
from mrbench.weights import torchvision
from mrbench.weights.categories import categories_of
from mrbench.weights.files import inspect


def classes_of(path: Path, wanted: int) -> list[str] | None:
    """Names of the classes without background, "" where the file does not tell; None where it has no box head.

    `wanted`: classes of the model that would take the weights, by which torchvision's 91 COCO rows are read as 80.
    Raises UserError where the file is not one of weights.
    """
    file = inspect(path)
    tensors = file.translated().tensors
    torchvision.coco_classes(tensors, wanted)
    rows = [tensor.shape[0] for name, tensor in tensors.items() if name.endswith("classes.weight")]
    if not rows:
        return None
    try:
        return categories_of(file, rows[0] - 1)
    except UserError:
        return [""] * (rows[0] - 1)
