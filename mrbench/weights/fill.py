"""Tensors of a file into a module, with everything that does not fit named."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mrbench.config.schema import ModelConfig
from mrbench.errors import UserError
from mrbench.weights.categories import Carried
from mrbench.weights.files import OWN, WeightFile
from mrbench.weights.layout import Settings, Translated

HINT = "the model must be built from the configuration that the weights were trained with"
# How many batches a norm has seen changes nothing that it puts out, and frozen ones do not count.
COUNTER = "num_batches_tracked"


@dataclass
class Loaded:
    """What came of loading a file."""

    file: WeightFile
    uninitialised: list[str]  # the model's names of what the file does not have
    unplaced: list[str]  # the file's names of what the model does not have
    misshapen: list[str]  # of another shape, in words
    contradictions: Settings  # what the model has otherwise than the file implies, with the file's value
    carried: Carried | None = None  # where categories went by name

    def lines(self) -> list[str]:
        """What a person should know; nothing for a file of our own that fits."""
        told = [] if self.file.layout is OWN else describe(self.file)
        told += self.carried.lines() if self.carried is not None else []
        told += [f"not initialised: {name}" for name in self.uninitialised]
        told += [f"no place in the model: {name}" for name in self.unplaced]
        told += [f"another shape: {text}" for text in self.misshapen]
        return told + [f"not as the weights were trained: {text}" for text in overrides(self.contradictions)]


def describe(file: WeightFile) -> list[str]:
    """The format, and the settings that it implies."""
    about = [f"{file.path.name}: {file.layout.name}, {len(file.tensors)} tensors ({file.container})"]
    return about + [f"  {text}" for text in (*overrides(file.settings), *file.layout.notes)]


def overrides(settings: Settings) -> list[str]:
    """Settings as one writes them on the command line."""
    return [f"{key}={_text(value)}" for key, value in settings.items()]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{','.join(f'{v:g}' for v in value)}]"
    return str(value)


def fill(
    module: nn.Module,
    file: WeightFile,
    found: Translated,
    contradicted: Settings,
    allow_partial: bool,
    may_lack: Callable[[str], bool] = lambda name: False,
) -> Loaded:
    """Put the tensors `found` in `file` into `module`, whose names of what may be missing `may_lack` tells.

    Raises UserError, naming them, where weights are missing, left over or of another shape, and where settings are
    `contradicted`, with the overrides to add, unless `allow_partial`.
    """
    own = module.state_dict()
    fitting: dict[str, Tensor] = {}
    misshapen, unknown = [], list(found.unplaced)
    for name, tensor in found.tensors.items():
        if name not in own:
            unknown.append(name)
        elif own[name].shape != tensor.shape:
            misshapen.append(f"{name} of shape {tuple(tensor.shape)}, and the model {tuple(own[name].shape)}")
        else:
            fitting[name] = tensor
    unknown = [name for name in unknown if not name.endswith(COUNTER)]
    missing = [name for name in own if name not in found.tensors and not name.endswith(COUNTER) and not may_lack(name)]
    if not allow_partial:
        _refuse(file, contradicted, missing, unknown, misshapen)
    with torch.no_grad():
        module.load_state_dict(fitting, strict=False)
    return Loaded(file, missing, unknown, misshapen, contradicted)


def _refuse(
    file: WeightFile, contradictions: Settings, missing: list[str], unknown: list[str], misshapen: list[str]
) -> None:
    told = "; model.weights_mismatch=tell loads what fits and tells the rest"
    if contradictions:
        wanted = overrides(contradictions)
        raise UserError(
            f"{file.path} has weights of {file.layout.name}, trained with other settings than the configuration's: "
            + ", ".join(wanted),
            "Add: " + " ".join(f"'{text}'" if "[" in text else text for text in wanted) + told,
        )
    parts = _some("has no", missing) + _some("has", misshapen) + _some("has, and the model lacks,", unknown)
    if parts:
        raise UserError(f"{file.path} ({file.layout.name}) {'; '.join(parts)}", HINT + told)


def _some(what: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return [f"{what} {', '.join(names[:5])}{more}"]


def contradictions(has: Settings, settings: Settings) -> Settings:
    """Those of a file's `settings` that a model `has` otherwise."""
    return {key: value for key, value in settings.items() if key in has and not _same(has[key], value)}


def _same(a: Any, b: Any) -> bool:
    if isinstance(b, list | tuple):
        return len(a) == len(b) and all(abs(x - y) < 1e-3 for x, y in zip(a, b, strict=True))
    return bool(a == b)


def settings_of_config(config: ModelConfig) -> Settings:
    """What of a model's configuration changes its answers and cannot be told from its weights' names and shapes."""
    return {
        "model.pixel_mean": list(config.pixel_mean),
        "model.pixel_std": list(config.pixel_std),
        "model.rpn.anchor_rounding": config.rpn.anchor_rounding,
        "model.rpn.anchor_offset": config.rpn.anchor_offset,
        "model.pooler.inclusive": config.pooler.inclusive,
        "model.pooler.aligned": config.pooler.aligned,
        "model.pooler.sampling_ratio": config.pooler.sampling_ratio,
        "model.backbone.stride_in_1x1": config.backbone.stride_in_1x1,
    }
