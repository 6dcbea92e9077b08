"""What libraries say when memory runs out, or when a GPU cannot be used, and what a person can do about it."""

from dataclasses import dataclass

OUT_OF_MEMORY = (  # in small letters
    *("out of memory", "bad_alloc", "can't allocate memory", "cannot allocate memory", "memoryerror"),
    *("cudnn_status_alloc_failed", "cublas_status_alloc_failed", "failed to allocate"),
    "cublas_status_not_initialized",  # what cublasCreate says where the card is too full for its handle
    # ATen/native/cudnn/Conv_v8.cpp: what is left to say once the workspace of every algorithm was too much
    "unable to find an engine to execute this computation",
)


@dataclass(frozen=True)
class Trouble:
    """A GPU that cannot be used, or no longer."""

    says: tuple[str, ...]  # parts of what CUDA, torch or the driver say, in small letters
    what: str
    hint: str


DEVICE_TROUBLES = (
    # torch/csrc/cuda/Module.cpp and c10/cuda/CUDAFunctions.cpp; the CUDA runtime's cudaErrorInsufficientDriver
    Trouble(
        ("driver on your system is too old", "driver version is insufficient"),
        "the NVIDIA driver is too old for this torch",
        "Update the driver, or install a torch that was built for an older CUDA: "
        "https://pytorch.org/get-started/previous-versions.",
    ),
    Trouble(  # cudaErrorNoKernelImageForDevice
        ("no kernel image is available",),
        "this torch was not built for a GPU of this kind",
        "Install a torch that was: https://pytorch.org/get-started/previous-versions, or give runtime.device=cpu.",
    ),
    Trouble(  # cudaErrorDevicesUnavailable; a GPU in exclusive mode, or one that MIG or MPS has taken
        ("busy or unavailable",),
        "the GPU is in use by somebody else, who has it alone",
        "`nvidia-smi` lists who. Wait, or choose another GPU with CUDA_VISIBLE_DEVICES.",
    ),
    Trouble(
        (
            *("no cuda-capable device", "no cuda gpus are available", "gpu is lost", "fallen off the bus"),
            *("uncorrectable ecc", "unspecified launch failure", "driver shutting down", "device not ready"),
            *("unable to determine the device handle", "invalid device ordinal", "cuda error: unknown error"),
            *("cuda unknown error", "cuda driver initialization failed"),
            *("system not yet initialized", "hardware stack error"),
        ),
        "the GPU is gone",
        "`nvidia-smi` and `dmesg | grep -i xid` may say why. When it is there again, the same command goes on.",
    ),
)


def means_out_of_memory(text: str) -> bool:
    return any(words in text.lower() for words in OUT_OF_MEMORY)


def device_trouble(text: str) -> Trouble | None:
    """Which trouble with a GPU an error's text means; None: another one."""
    low = text.lower()
    return next((t for t in DEVICE_TROUBLES if any(words in low for words in t.says)), None)
