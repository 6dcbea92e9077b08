"""Weights of a model with other categories: what belongs to one class is carried over by the category's name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from mrbench.errors import UserError
from mrbench.weights.files import OWN, WeightFile
from mrbench.weights.torchvision import COCO_IDS

# In the order of their numbers (COCO 2017, annotations/instances_val2017.json).
COCO = """person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag,
tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard,
tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot,
hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv, laptop, mouse, remote,
keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear,
hair drier, toothbrush""".replace("\n", " ").split(", ")


@dataclass
class Carried:
    """Which of a model's categories came with the weights."""

    over: list[str]
    random: list[str]  # not in the file: as the model began

    def lines(self) -> list[str]:
        told = [f"carried over by name: {', '.join(self.over) or 'no category'}"]
        return told + ([f"not initialised: {', '.join(self.random)}"] if self.random else [])


def categories_of(file: WeightFile, classes: int) -> list[str]:
    """The names of a file's `classes` classes; empty for numbers that are no category. Other projects' files with 80
    classes, or torchvision's with 90, have COCO's. Raises UserError where they are not known."""
    if file.categories is not None and len(file.categories) == classes:
        return file.categories
    if file.layout is not OWN:
        if classes == len(COCO):
            return COCO
        if classes == COCO_IDS[-1]:
            named = dict(zip(COCO_IDS, COCO, strict=True))
            return [named.get(number, "") for number in range(1, classes + 1)]
    raise UserError(
        f"{file.path} does not say the names of its {classes} classes, which model.weights_classes=by_name goes by",
        "Runs and files of `mrbench weights export` say them; other projects' have COCO's 80, or none.",
    )


@dataclass
class ClassWise:
    """A tensor of a model that has rows for each class."""

    name: str
    rows: int  # of each class
    background: bool  # has some too, the last


def carry_over(
    file: WeightFile,
    found: dict[str, Tensor],
    own: Mapping[str, Tensor],
    class_wise: Sequence[ClassWise],
    categories: Sequence[str],
) -> Carried:
    """Make the class-wise tensors of `found` fit a model with the tensors `own`, whose classes are `categories`: rows
    of the same name, and the background's, are the file's, the others the model's own. Raises UserError where no name
    is the same."""
    scores = next((value for name, value in found.items() if name.endswith("classes.weight")), None)
    if scores is None:
        return Carried([], list(categories))
    known = categories_of(file, len(scores) - 1)
    place = {name.casefold(): row for row, name in enumerate(known) if name}
    pairs = [(place[name.casefold()], row) for row, name in enumerate(categories) if name.casefold() in place]
    if not pairs:
        raise UserError(
            f"{file.path} and the data set share no category: {', '.join(categories[:5])} against "
            f"{', '.join(name for name in known[:6] if name)}",
            "Set model.weights_mismatch=tell and model.weights_classes=same to take what does not depend on classes.",
        )
    for one in class_wise:
        theirs, unit = found.get(one.name), one.rows
        if theirs is None or len(theirs) != unit * (len(known) + one.background):
            continue  # told as of another shape, where it does not fit
        rows = own[one.name].detach().clone()
        shared = [*pairs, (len(known), len(categories))] if one.background else pairs
        for source, target in shared:
            rows[target * unit : (target + 1) * unit] = theirs[source * unit : (source + 1) * unit]
        found[one.name] = rows
    over = {row for _, row in pairs}
    return Carried(
        [name for row, name in enumerate(categories) if row in over],
        [name for row, name in enumerate(categories) if row not in over],
    )
