"""Pickles of other projects, read so that they cannot run code.

Only numpy arrays, their element types, and plain containers are admitted; any other name in the file ends the
reading before anything is called.
"""

import codecs
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import numpy as np

from mrbench.errors import UserError


def _encode(text: str, encoding: str) -> bytes:
    """How protocols without bytes spell them; the codec is not the file's to choose."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text in {encoding}")
    return codecs.encode(text, "latin1")


def _dtype(name: Any, *_: Any) -> "np.dtype[Any]":
    # a copy, as the file is about to set its byte order
    dtype: np.dtype[Any] = np.dtype(name, align=False, copy=True)
    if dtype.kind not in "biufSU":
        raise pickle.UnpicklingError(f"an array of {dtype}")
    return dtype


def _reconstruct(_: Any, shape: Any, kind: Any) -> "np.ndarray[Any, Any]":
    """An empty array, which the file then fills."""
    return np.ndarray.__new__(np.ndarray, (0,), "b")


def _frombuffer(buffer: Any, dtype: Any, shape: Any, order: Any, *_: Any) -> "np.ndarray[Any, Any]":
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _scalar(dtype: Any, data: bytes) -> Any:
    return np.frombuffer(data, dtype=dtype, count=1)[0]


_ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    # Python 2 and 3, and both homes that numpy has had for them
    **{(module, "set"): set for module in ("__builtin__", "builtins")},
    **{(module, "bytearray"): bytearray for module in ("__builtin__", "builtins")},
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _frombuffer for core in ("core", "_core")},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def unpickle(file: IO[bytes], path: Path) -> Any:
    """The pickle's content. Raises UserError where it holds, or would call, anything but arrays and containers."""
    try:
        return _Unpickler(file, encoding="latin1").load()
    except Exception as error:  # a damaged pickle fails in any of many ways
        raise UserError(
            f"{path} is not a pickle of arrays and plain containers: {error}",
            "Other content could run code on this machine, and is not read.",
        ) from error
