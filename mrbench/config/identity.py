"""The identity of a run: what changes the science, as canonical JSON, and its hash.

The data's folder is a matter of the machine, not of the science, so `data.root` is left out. Where the data set
has no name of its own (`data.name: null`), the content of its annotation files stands in for it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from mrbench.config.fingerprint import annotations_fingerprint
from mrbench.config.schema import RunConfig

NOT_SCIENCE = ("runtime", "launcher")
NOT_SCIENCE_OF_DATA = ("root", "on_error")
_SCALARS = (str, int, float, type(None))


def data_name(config: RunConfig) -> str:
    """What the data set is called: its own name, or that of its folder."""
    return name_of_data(config.data.name, config.data.root, config.data.kind)


def name_of_data(name: str | None, root: str | None, kind: str) -> str:
    """Of `data.name`, `data.root` and `data.kind`."""
    if name:
        return name
    return os.path.basename(os.path.realpath(os.path.expanduser(root))) if root else kind


def setting(key: str, of: Callable[[str], Any]) -> Any:
    """The value of a key as a person asks for it, of a configuration as it is written, in which `of` looks a key up: a
    data set without a name of its own is called as in the names of its runs."""
    found = of(key)
    if found or key != "data.name":
        return found
    root, kind = of("data.root"), of("data.kind")
    return name_of_data(None, root if isinstance(root, str) else None, kind) if isinstance(kind, str) else found


def science(config: RunConfig) -> dict[str, Any]:
    """The part of the configuration that makes the run's identity.

    Raises UserError where an unnamed data set's annotations cannot be read.
    """
    part = {k: as_dict(v) for k, v in vars(config).items() if k not in NOT_SCIENCE}
    data = part["data"]
    for key in NOT_SCIENCE_OF_DATA:
        del data[key]
    if data["kind"] != "shapes":
        del data["shapes"]
        if data["name"] is None:
            data["name"] = data_name(config)
            data["fingerprint"] = annotations_fingerprint(config.data)
    return part


def science_as_written(config: Mapping[str, Any]) -> dict[str, Any]:
    """The same part of a flat configuration, {"model.norm": "gn"}, as this version or another wrote it. No file is
    read: of an unnamed data set it has the folder's name, and no fingerprint."""
    places = {f"data.{key}" for key in NOT_SCIENCE_OF_DATA}
    if config.get("data.kind", "shapes") != "shapes":
        places |= {key for key in config if key.startswith("data.shapes")}
    kept = (key for key in config if key.split(".")[0] not in NOT_SCIENCE and key not in places)
    return {key: setting(key, config.get) for key in kept}


def as_dict(value: Any) -> Any:
    """`dataclasses.asdict` for what a configuration holds, several times as fast: a sweep has thousands."""
    if isinstance(value, _SCALARS):
        return value
    if isinstance(value, list):
        return [as_dict(v) for v in value]
    if isinstance(value, dict):
        return {k: as_dict(v) for k, v in value.items()}
    return {k: v if isinstance(v, _SCALARS) else as_dict(v) for k, v in vars(value).items()}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces; whole numbers lose their `.0`, so that 1 and 1.0 are the same run."""

    def plain(v: Any) -> Any:
        kind = type(v)
        if kind is float:
            return int(v) if v.is_integer() else v
        if kind is dict:
            return {k: plain(x) for k, x in v.items()}
        if kind in (list, tuple):
            return [plain(x) for x in v]
        return v

    return json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def run_id(config: RunConfig) -> str:
    """`<model>-<data>-<first 10 hex digits of SHA-256 of the canonical JSON>`."""
    digest = hashlib.sha256(canonical_json(science(config)).encode()).hexdigest()
    name = f"{config.model.name}-{data_name(config)}"
    safe = "".join(c if c.isalnum() or c in "_-." else "_" for c in name)
    return f"{safe}-{digest[:10]}"
