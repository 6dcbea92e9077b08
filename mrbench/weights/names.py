"""Names of tensors in another project and here, translated both ways by one table."""

import re
from collections.abc import Sequence

_FIELD = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")

# A norm's tensors and a convolution's, as torch calls them.
TORCH = [(f".{name}", f".{name}") for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")]


class Template:
    """A name with numbers in it: `layer{s-1}.{b}` is `layer3.0` for s=4, b=0, and `convs.{3n+1}` steps by three."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._fields: list[tuple[str, int, int]] = []  # letter, factor, offset
        pattern, end = "", 0
        for field in _FIELD.finditer(text):
            pattern += re.escape(text[end : field.start()]) + r"(\d+)"
            self._fields.append((field[2], int(field[1] or 1), int(field[3] or 0)))
            end = field.end()
        self._pattern = re.compile(pattern + re.escape(text[end:]))

    def read(self, name: str) -> dict[str, int] | None:
        """The numbers in `name`; None where it does not fit."""
        found = self._pattern.fullmatch(name)
        if found is None:
            return None
        values: dict[str, int] = {}
        for (letter, factor, offset), digits in zip(self._fields, found.groups(), strict=True):
            value, rest = divmod(int(digits) - offset, factor)
            if rest or values.setdefault(letter, value) != value:
                return None
        return values

    def write(self, values: dict[str, int]) -> str:
        numbers = iter(self._fields)

        def number(_: re.Match[str]) -> str:
            letter, factor, offset = next(numbers)
            return str(factor * values[letter] + offset)

        return _FIELD.sub(number, self._text)


class Names:
    """Pairs of layers, theirs and ours, and pairs of what follows a layer's name. Of several that fit the first wins,
    so that a table may hold older names after those that are written."""

    def __init__(self, layers: Sequence[tuple[str, str]], tensors: Sequence[tuple[str, str]] | None = None) -> None:
        self._layers = [(Template(theirs), Template(ours)) for theirs, ours in layers]
        self._tensors = list(TORCH if tensors is None else tensors)

    def ours(self, name: str) -> str | None:
        """Our name of their tensor; None where it has no place."""
        for theirs, own in self._tensors:
            if name.endswith(theirs):
                layer = name.removesuffix(theirs)
                for source, target in self._layers:
                    values = source.read(layer)
                    if values is not None:
                        return target.write(values) + own
        return None

    def theirs(self, name: str) -> str | None:
        """Their name of our tensor; None where they have none."""
        for theirs, own in self._tensors:
            if name.endswith(own):
                layer = name.removesuffix(own)
                for target, source in self._layers:
                    values = source.read(layer)
                    if values is not None:
                        return target.write(values) + theirs
        return None
