"""Fields of the configuration with the values that they admit."""

from dataclasses import field
from typing import Any


def choice(default: str, *choices: str) -> Any:
    """A string field that admits only `choices`."""
    return field(default=default, metadata={"choices": choices})


def number(default: float | int | None, low: float | None = None, high: float | None = None) -> Any:
    """A numeric field with inclusive bounds."""
    return field(default=default, metadata={"low": low, "high": high})


def values(*default: float) -> Any:
    """A list field with a default."""
    return field(default_factory=lambda: list(default))
