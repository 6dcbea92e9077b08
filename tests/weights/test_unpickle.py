"""Pickles are read without running what they ask for."""

import collections
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mrbench.errors import UserError
from mrbench.weights.files import inspect


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("nested", [False, True])
def test_a_malicious_pickle_is_refused_and_runs_nothing(protocol: int, nested: bool, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    content: Any = {"model": {"a": np.zeros(2), "b": [Malicious(trace)]}} if nested else Malicious(trace)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(UserError, match="system"):
        inspect(tmp_path / "bad.pkl")
    assert not trace.exists()


def test_a_malicious_pickle_inside_a_torch_file_is_refused(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    torch.save({"model": {"a": torch.zeros(1)}, "extra": Malicious(trace)}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="not a checkpoint of plain tensors"):
        inspect(tmp_path / "bad.pth")
    with zipfile.ZipFile(tmp_path / "hand.pth", "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Malicious(trace), protocol=2))
        file.writestr("archive/version", "3\n")
    with pytest.raises(UserError):
        inspect(tmp_path / "hand.pth")
    torch.save({"a": Malicious(trace)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError):
        inspect(tmp_path / "old.pth")
    assert not trace.exists()


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    array = np.array([Malicious(trace)], dtype=object)
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"a": array}))
    with pytest.raises(UserError):
        inspect(tmp_path / "bad.pkl")
    np.savez(tmp_path / "bad.npz", a=array, allow_pickle=True)
    with pytest.raises(UserError):
        inspect(tmp_path / "bad.npz")
    assert not trace.exists()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_and_plain_containers_are_read(protocol: int, tmp_path: Path) -> None:
    weights = collections.OrderedDict(
        a_w=np.arange(6, dtype=np.float32).reshape(2, 3),
        b_w=np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        c_w=np.array(3, dtype=np.int64),
        d_w=np.array([1.5, -2], dtype=">f4"),
    )
    content = {"blobs": weights, "cfg": "A: 1", "more": [1, (2.5, None), {"x"}, np.float32(2), b"bytes"]}
    (tmp_path / "good.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    found = inspect(tmp_path / "good.pkl").tensors
    assert found.keys() == weights.keys()
    assert all(np.array_equal(found[name].numpy(), weights[name]) for name in weights)
    assert np.dtype("f4").isnative


def test_a_pickle_of_python_2_is_read(tmp_path: Path) -> None:
    """Text there is bytes, arrays' data too, and numpy's home is numpy.core."""
    raw = (
        b"\x80\x02}q\x00U\x06conv1_q\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85U"
        b"\x01b\x87Rq\x04(K\x01K\x02\x85cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06(K\x03U\x01<NNNJ\xff\xff\xff"
        b"\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\x80?\x00\x00\x00\xc0tbs."
    )
    (tmp_path / "old.pkl").write_bytes(raw)
    assert inspect(tmp_path / "old.pkl").tensors["conv1_"].tolist() == [1.0, -2.0]


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\x80\x04garbage", b"PK\x03\x04cut short", b"\x80"])
def test_other_files_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UserError, match="file"):
        inspect(tmp_path / "file")
