"""How a network is carried out on its device: memory layout, recomputation, compiled parts, fixed algorithms."""

import importlib.util
import os
import shutil

import torch

from mrbench.config.schema import RunConfig
from mrbench.config.schema_execution import RuntimeConfig
from mrbench.errors import UserError
from mrbench.modeling.build import Network

COMPILERS = ("g++", "clang++", "c++")


def set_algorithms(runtime: RuntimeConfig, device: torch.device) -> None:
    """With `runtime.deterministic` let a GPU use only algorithms that give the same bits each time, in this process.

    An operation that has none then raises a RuntimeError that names it.
    """
    deterministic = runtime.deterministic and device.type == "cuda"
    if deterministic:
        # cuBLAS reads it as it begins (docs.nvidia.com/cuda/cublas, "Results reproducibility").
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.deterministic = deterministic


def check_algorithms(config: RunConfig, device: torch.device) -> None:
    """Raises UserError where `runtime.deterministic` would make RoIAlign on a GPU look at every cell of a map for each
    bin: torchvision's kernel adds up in any order, and what takes its place has no other way without a fixed number of
    points (torchvision, ops/roi_align.py, `_roi_align`)."""
    pooler = config.model.pooler
    adaptive = pooler.kind != "roi_pool" and pooler.method == "torchvision" and pooler.sampling_ratio == 0
    if config.runtime.deterministic and device.type == "cuda" and adaptive and config.model.rpn.mode != "only":
        raise UserError(
            "runtime.deterministic on a GPU needs a RoIAlign that adds up in a fixed order",
            "Set model.pooler.method=separable and model.pooler.sampling_ratio=2, or runtime.deterministic=false.",
        )


def place(model: Network, runtime: RuntimeConfig, device: torch.device) -> Network:
    """The model on `device`, its weights in the memory layout that its maps then have as well."""
    if runtime.channels_last:
        return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.to(device)


def speed_up(model: Network, runtime: RuntimeConfig, device: torch.device) -> None:
    """Compile the body and the neck, or let the body's stages be computed again in the backward pass, as asked for.

    Names of weights stay as they are. Raises UserError where there is no compiler.
    """
    model.backbone.recompute = runtime.activation_checkpointing
    if runtime.compile:
        check_compiler(device)
        model.backbone.compile()
        model.neck.compile()


def check_compiler(device: torch.device) -> None:
    """Raises UserError where torch.compile could not make code for `device`: without a C++ compiler, which it needs on
    a GPU too, or there without Triton."""
    given = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([given] if given else COMPILERS)):
        raise UserError(
            f"runtime.compile needs a C++ compiler, and there is no {given or ' or '.join(COMPILERS)} here",
            "Install one, name one in $CXX, or set runtime.compile=false.",
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UserError("runtime.compile on a GPU needs Triton", "pip install triton, or set runtime.compile=false.")
