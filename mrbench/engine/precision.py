"""Number formats of training: fp32, tf32, fp16 with loss scaling, bf16."""

from contextlib import AbstractContextManager

import torch

from mrbench.config.schema_training import PrecisionConfig
from mrbench.errors import UserError

AUTOCAST = {"fp16": torch.float16, "bf16": torch.bfloat16}
AMPERE = (8, 0)  # compute capability of the first GPUs with tf32


def check_precision(kind: str, device: torch.device) -> None:
    """Refuse a format that the device cannot compute in.

    Raises UserError: bf16 on a GPU without it; tf32 on a CPU or a GPU before Ampere, where it would silently be
    another format.
    """
    if kind == "tf32" and device.type == "cpu":
        raise UserError("precision tf32 needs a GPU: a CPU would compute in fp32 under its name", "use precision=fp32")
    if kind == "tf32" and device.type == "cuda" and torch.cuda.get_device_capability(device) < AMPERE:
        name = torch.cuda.get_device_name(device)
        raise UserError(f"{name} does not compute in tf32: it would be fp32 under its name", "use precision=fp32")
    if kind == "bf16" and device.type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        name = torch.cuda.get_device_name(device)
        raise UserError(f"{name} does not compute in bf16", "use precision=fp16 or precision=fp32")


def set_matmul_precision(kind: str) -> None:
    """Make fp32 on a GPU mean fp32 (cuDNN's default is tf32), and tf32 mean tf32, for this process."""
    value = "tf32" if kind == "tf32" else "ieee"
    # The older switches too: parts of torch.compile read them, and raise where they say something else.
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    torch.backends.cudnn.allow_tf32 = kind == "tf32"
    torch.backends.cuda.matmul.fp32_precision = value
    torch.backends.cudnn.conv.fp32_precision = value  # type: ignore[attr-defined]
    torch.backends.cudnn.rnn.fp32_precision = value  # type: ignore[attr-defined]


def autocast(kind: str, device: torch.device) -> AbstractContextManager[object]:
    """The context that forward passes run in; it does nothing for fp32 and tf32."""
    return torch.autocast(device.type, dtype=AUTOCAST.get(kind), enabled=kind in AUTOCAST)


def build_scaler(config: PrecisionConfig, device: torch.device) -> torch.amp.GradScaler:
    """The loss scaler (Micikevicius et al. 2018, section 3.2): doubles after 2000 good steps, halves on overflow.

    Outside fp16 it is switched off, and passes everything through.
    """
    return torch.amp.GradScaler(device.type, init_scale=config.initial_scale, enabled=config.kind == "fp16")
