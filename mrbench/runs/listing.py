"""Many runs at once: each one's state, metrics and configuration, read from no more files than are asked for."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.identity import setting
from mrbench.errors import UserError
from mrbench.runs.record import Run, Status, list_runs
from mrbench.runs.state import iteration_of, state_of

DAMAGED = "damaged"
MISSING: Any = object()  # a key that a configuration does not have; null is a value

# What a record says besides configuration ("model.norm") and metrics ("box/AP").
FIELDS = (
    "run",
    "folder",
    "study",
    "arm",
    "seed",
    "state",
    "progress",
    "iteration",
    "iterations",
    "attempt",
    "started",
    "updated",
    "ended",
    "when",
    "host",
    "pid",
    "error",
    "images_per_second",
    "peak_memory",
)


@dataclass(frozen=True)
class Place:
    """Where a run stands in a study."""

    study: str
    arm: str
    seed: int


class Entry:
    """A run as a list shows it. Files are read when a value of theirs is first asked for; none raises."""

    def __init__(self, run: Run, places: Sequence[Place] = ()) -> None:
        self.run = run
        self.places = places
        self.problem = ""  # what is wrong with the record, in a line
        try:
            self.status = run.status()
            self.state = state_of(run, self.status)
        except UserError as error:
            self.status, self.state, self.problem = Status(), DAMAGED, _line(error)

    @cached_property
    def iteration(self) -> int:
        """The last one that is known."""
        return iteration_of(self.run, self.status)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Those of evaluation.json as it has them; none where there is none yet, or the run is not completed."""
        if self.state != "completed":
            return {}
        try:
            return read_metrics(self.run.evaluation_file)
        except UserError as error:
            self.state, self.problem = DAMAGED, _line(error)
            return {}

    @cached_property
    def config(self) -> str:
        """The text of config.yaml, behind a line break."""
        try:
            return "\n" + self.run.config_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            self.state, self.problem = DAMAGED, f"{self.run.config_file} is damaged: {error}"
            return "\n"

    def value(self, name: str) -> Any:
        """Of one of FIELDS, a metric ("box/AP") or a key of the configuration (`config.identity.setting`); MISSING
        where it has no such key."""
        if "/" in name:
            return _finite(self.metrics.get(name))
        if name == "seed":
            return self.places[0].seed if self.places else _present(lookup(self.config, name))
        if name not in FIELDS:
            return setting(name, lambda key: lookup(self.config, key))
        if name in _OWN:
            return _OWN[name](self)
        return getattr(self.status, name)


def _line(error: UserError) -> str:
    return error.what.partition("\n")[0]


def _present(value: Any) -> Any:
    return None if value is MISSING else value


_OWN: Mapping[str, Any] = {
    "run": lambda e: e.run.run_id,
    "folder": lambda e: str(e.run.folder),
    "study": lambda e: e.places[0].study if e.places else None,
    "arm": lambda e: e.places[0].arm if e.places else None,
    "state": lambda e: e.state,
    "progress": lambda e: f"{e.iteration}/{e.status.iterations}" if e.status.iterations else None,
    "iteration": lambda e: e.iteration,
    "when": lambda e: e.status.ended or e.status.updated,
    "error": lambda e: (e.status.error or {}).get("message") or e.problem or None,
}


def entries(root: Path, places: Mapping[str, Sequence[Place]]) -> Iterator[Entry]:
    """All runs under `root`, by name, with their `places` in studies by run id."""
    for run in list_runs(root):
        yield Entry(run, places.get(run.run_id, ()))


_METRICS = re.compile(r'"metrics":\s*')
_DECODER = json.JSONDecoder()


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics of an evaluation.json, without reading what follows them. Empty where there is no such file.

    Raises UserError where it is damaged.
    """
    try:
        text = path.read_text(encoding="utf-8")
        start = _METRICS.search(text)
        found = _DECODER.raw_decode(text, start.end())[0] if start else None
        if not isinstance(found, dict):
            raise ValueError("no metrics")
        return found
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # bytes that are no text among them
        raise UserError(f"{path} is damaged: {error}", "Make it again with `mrbench eval RUN`.") from error


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def lookup(text: str, key: str) -> Any:
    """The value of a dotted key in a config.yaml as it is written (a block a section, two spaces a level).

    `text` begins with a line break. Only the value is parsed, which is what makes lists of many runs quick. MISSING
    where there is no such key.
    """
    start, end, indent = 0, len(text), 0
    for part in key.split("."):
        mark = f"\n{' ' * indent}{part}:"
        at = text.find(mark, start, end)
        if at < 0:
            return MISSING
        start = at + len(mark)
        following = _BLOCK_ENDS[indent].search(text, start, end) if indent < len(_BLOCK_ENDS) else None
        end = following.start() if following else end
        indent += 2
    return parse_scalar(text[start:end])


# A line no deeper than the key's own; items of a list may stand as deep as its key.
_BLOCK_ENDS = [re.compile(rf"\n {{0,{indent}}}(?![ \-\n])") for indent in range(14)]


@lru_cache(maxsize=4096)
def parse_scalar(text: str) -> Any:
    """A value in YAML; numbers as OmegaConf reads them (1e-05 is one). MISSING where it is none."""
    try:
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError:
        return MISSING
    if isinstance(found, str):
        try:
            return float(found) if found[:1] in "+-.0123456789" and found else found
        except ValueError:
            return found
    return found


def flat_config(run: Run) -> dict[str, Any]:
    """config.yaml as it was written, {"model.norm": "gn", ...}: also that of another version. Raises UserError."""
    path = run.config_file
    try:
        text = path.read_text(encoding="utf-8")
        found = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is damaged: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it is no configuration")
    return dict(_flat(found, ""))


def _flat(value: dict[Any, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from _flat(inner, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", inner
