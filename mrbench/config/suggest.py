"""The names that a mistyped one probably meant."""

from collections.abc import Iterable, Sequence
from difflib import SequenceMatcher, get_close_matches

FEW = 5  # of a person's own names in a message


def nearest(word: str, choices: Iterable[str], most: int = 3) -> list[str]:
    """The choices most like `word`, best first; for dotted names the last part counts as well.

    `optimizer.weigth_decay` finds `optimizer.weight_decay`, and so does a bare `weight_decay`.
    """
    choices = list(dict.fromkeys(choices))
    found = get_close_matches(word, choices, n=most, cutoff=0.6)
    tail = word.rsplit(".", 1)[-1]
    by_tail = sorted(
        ((SequenceMatcher(None, tail, c.rsplit(".", 1)[-1]).ratio(), c) for c in choices), key=lambda p: -p[0]
    )
    found += [c for ratio, c in by_tail if ratio >= 0.75 and c not in found]
    return found[:most]


def did_you_mean(word: str, choices: Iterable[str], otherwise: str = "") -> str:
    """A hint in words: the nearest names, or all of them where none is near and they are few."""
    choices = list(dict.fromkeys(choices))
    near = nearest(word, choices)
    if near:
        return f"Did you mean {' or '.join(near)}?"
    if choices and len(choices) <= 12:
        return f"There are: {', '.join(choices)}."
    return otherwise


def few(names: Sequence[str]) -> str:
    """`a, b, c, d, e and 7 more`: what a person has made may be any number."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def did_you_mean_of_own(word: str, names: Sequence[str], otherwise: str = "") -> str:
    """As `did_you_mean`, for names of runs and studies: where none is near the first few."""
    if nearest(word, names):
        return did_you_mean(word, names)
    return f"There are: {few(names)}." if names else otherwise
