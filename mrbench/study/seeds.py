"""Seeds as people write them: `0-2`, `0,3,5`, a list, or one number."""

import re
from typing import Any

from mrbench.errors import UserError

MOST = 10_000


def parse_seeds(value: Any, where: str = "--seeds") -> list[int]:
    """Whole numbers from 0, each once, in the order given. Raises UserError naming `where`."""
    items = value if isinstance(value, list) else str(value).split(",")
    seeds: list[int] = []
    for item in items:
        text = str(item).strip()
        found = re.fullmatch(r"(\d+)(?:-(\d+))?", text)
        if isinstance(item, bool) or not found:
            raise UserError(f"{where}: '{text}' is not a seed", "Write 0-4, 0,1,2 or a list of whole numbers.")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first or last - first >= MOST:
            raise UserError(f"{where}: '{text}' is not a range of seeds", "Write the smaller one first, as 0-4.")
        seeds += range(first, last + 1)
    return list(dict.fromkeys(seeds))
