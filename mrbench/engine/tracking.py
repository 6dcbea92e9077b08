"""What metrics.jsonl gets, told to TensorBoard and MLflow as well (`runtime.track`).

A tracker is told of lines that are on record already: it computes nothing and asks no device for anything. Its library
is imported only where it is asked for, and its failure is told once and never ends a training.
"""

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Protocol

from mrbench.config.identity import science
from mrbench.config.schema import RunConfig
from mrbench.engine.signals import Preempted
from mrbench.errors import UserError
from mrbench.runs.record import Run

INSTALL = "pip install 'mrbench[tracking]'"
# word in runtime.track -> what has to be installed for it, and where its tracker is
_NEEDS = {"tensorboard": ("tensorboard",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}
_MODULES = {"tensorboard": "mrbench.engine.track_tensorboard", "mlflow": "mrbench.engine.track_mlflow"}
_NOT_A_METRIC = ("kind", "iteration", "time")

Entry = Mapping[str, Any]


class Tracker(Protocol):
    """Opened with a run and its configuration; may raise anything."""

    def start(self, history: Sequence[Entry]) -> None:
        """Training begins, or goes on behind these lines of metrics.jsonl: afterwards the tracker has their points,
        each once."""

    def add(self, entry: Entry) -> None:
        """A line that was just written to metrics.jsonl."""

    def close(self, state: str) -> None:
        """The attempt ends: completed, preempted or failed."""


def check_trackers(words: Sequence[str]) -> None:
    """Raises UserError, with the command that installs it, where something that is asked for is missing."""
    for word in words:
        missing = [name for name in _NEEDS[word] if find_spec(name) is None]
        if missing:
            raise UserError(f"runtime.track={word} needs {' and '.join(missing)}, which is not installed", INSTALL)


def points(entry: Entry) -> dict[str, float]:
    """The numbers of a line by the names that trackers show: `train/loss`, `train/lr`, `box/AP` and so on."""
    prefix = "train/" if entry["kind"] == "train" else ""
    return {
        f"{prefix}{name}": float(value)
        for name, value in entry.items()
        if name not in _NOT_A_METRIC and isinstance(value, int | float)
    }


def parameters(config: RunConfig) -> dict[str, str | int | float]:
    """What makes the run's identity, one dotted key a value; what is neither text nor a number as JSON."""

    def walk(node: Any, key: str) -> dict[str, str | int | float]:
        if isinstance(node, dict):
            return {k: v for name, child in node.items() for k, v in walk(child, f"{key}.{name}").items()}
        plain = isinstance(node, str | int | float) and not isinstance(node, bool)
        return {key.removeprefix("."): node if plain else json.dumps(node)}

    return walk(science(config), "")


class Tracking:
    """The trackers of a run in the process that keeps its record; without any it does nothing.

    Args:
        words: of `runtime.track`; none in the other processes.
        say: is told of a tracker that fails.
    """

    def __init__(self, run: Run, config: RunConfig, words: Sequence[str], say: Callable[[str], None]) -> None:
        self._say = say
        self._trackers: dict[str, Tracker] = {}
        for word in words:
            with _Guarded(self, word):
                self._trackers[word] = importlib.import_module(_MODULES[word]).open_tracker(run, config)

    def __enter__(self) -> "Tracking":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        state = "completed" if error is None else "preempted" if isinstance(error, Preempted) else "failed"
        self._each(lambda tracker: tracker.close(state))
        self._trackers.clear()

    def start(self, history: Sequence[Entry]) -> None:
        """Training begins, or goes on behind these lines of metrics.jsonl."""
        self._each(lambda tracker: tracker.start(history))

    def add(self, entry: Entry) -> None:
        """A line that was just written to metrics.jsonl."""
        self._each(lambda tracker: tracker.add(entry))

    def _each(self, tell: Callable[[Tracker], None]) -> None:
        for word, tracker in list(self._trackers.items()):
            with _Guarded(self, word):
                tell(tracker)

    def drop(self, word: str, error: Exception) -> None:
        """The tracker is told nothing more in this attempt."""
        self._trackers.pop(word, None)
        reason = (str(error).splitlines() or [""])[0]
        self._say(f"{word} is told nothing more: {type(error).__name__}: {reason}")


class _Guarded:
    """Whatever a tracker raises in the block drops that tracker, and is told."""

    def __init__(self, tracking: Tracking, word: str) -> None:
        self._tracking, self._word = tracking, word

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self._tracking.drop(self._word, error)
        return True
