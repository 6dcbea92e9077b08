"""What a value must be, or else the user is told of it."""

from typing import Any

from mrbench.errors import UserError


def require(holds: bool, what: str, hint: str = "") -> None:
    """Raises UserError where it does not hold."""
    if not holds:
        raise UserError(what, hint)


def require_range(key: str, pair: list[Any]) -> None:
    """Raises UserError for what is no range of positive numbers."""
    require(
        len(pair) == 2 and 0 < pair[0] <= pair[1],
        f"{key}={pair} is not a range of two positive numbers, the smaller first",
    )
