"""The rows of a benchmark: which mode is measured in which precision, batch, size and layout, on how many devices."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

MODES = ("train", "infer", "data", "end-to-end", "eval")
OF_A_NETWORK = ("train", "infer", "end-to-end")
ON_A_LOADER = ("data", "end-to-end")


@dataclass
class Case:
    """One row. What a mode does not depend on is null or off: the loader and the metrics compute in no precision."""

    mode: str
    model: str  # the name of a configuration of the plan
    precision: str | None
    batch: int  # images a step and device; 0 in a search for the largest
    image_size: list[int] | None  # height, width; null where a data set's pictures have their own
    channels_last: bool = False
    compile: bool = False
    devices: int = 1  # GPUs, or processes on a CPU

    @property
    def label(self) -> str:
        """Without model and picture size, which are mostly the same in all rows."""
        words = [f"{self.mode} {self.precision}" if self.precision else self.mode]
        words += [f"batch {self.batch}"] * (self.batch > 0)
        words += ["channels-last"] * self.channels_last + ["compiled"] * self.compile
        return ", ".join(words + ([f"{self.devices} devices"] if self.devices > 1 else []))


def label(case: Case, cases: Sequence[Case]) -> str:
    """`case` among `cases`, with model and picture size where these differ."""
    words = [case.label]
    if case.image_size and len({tuple(c.image_size) for c in cases if c.image_size}) > 1:
        words.append("x".join(map(str, case.image_size)))
    if case.model and len({c.model for c in cases}) > 1:
        words.append(case.model)
    return ", ".join(words)


def combine(
    models: Sequence[str],
    modes: Sequence[str],
    batches: dict[str, list[int]],
    image_sizes: dict[str, list[list[int]]],
    precisions: dict[str, list[str]],
    layouts: dict[str, list[bool]],
    compiled: dict[str, list[bool]],
    devices: Sequence[int],
    own_pictures: bool,
) -> list[Case]:
    """Everything with everything, each row once. `batches` by mode; by model `image_sizes`, `precisions`, `layouts`
    (channels-last or not) and `compiled`.

    own_pictures: the inputs are a data set's, so that no picture size is stated.
    """
    found: list[Case] = []
    for model, mode in product(models, modes):
        sizes = image_sizes[model]
        for size, batch, channels_last, code, precision, count in product(
            sizes, batches[mode], layouts[model], compiled[model], precisions[model], devices
        ):
            case = Case(mode, model, precision, batch, list(size), channels_last, code, count)
            if mode not in OF_A_NETWORK:
                case = replace(case, precision=None, channels_last=False, compile=False)
            if own_pictures or mode not in ("train", "infer"):
                case.image_size = None
            if mode == "eval":
                case.devices = 1  # one process computes the metrics, whatever has detected
            if case not in found:
                found.append(case)
    return found


def of_search(case: Case) -> Case:
    """What is searched where `case` is measured: the same without its batch, on one device."""
    return replace(case, batch=0, devices=1)


def alike(a: Case, b: Case, *but: str) -> bool:
    """Whether two rows differ in nothing but these fields."""
    return replace(a, **{name: getattr(b, name) for name in but}) == b
