"""What a search for the largest batch has tried, on disk before and after each try.

A try can take down more than itself: the kernel may kill the process that asked too, or the machine may stop. So
each is noted as it begins. One that never ended is tried once more; the second time it counts as too large.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mrbench.bench.largest_batch import Try
from mrbench.runs.files import cannot_write

CHANCES = 2


class Journal:
    """The lines of one search in a file that several searches share, told apart by `key`.

    Lines are only added, and one that a kill has torn is passed over.
    """

    def __init__(self, path: Path, key: str) -> None:
        self.path, self.key = path, key

    def tries(self) -> list[Try]:
        """What has ended, and what has taken everything down with it twice."""
        found: dict[int, Try] = {}
        begun: Counter[int] = Counter()
        for line in self._lines():
            batch = line["batch"]
            begun[batch] += line["event"] == "begins"
            if line["event"] == "ended":
                found[batch] = Try(**line["try"])
            if line["event"] in ("ended", "interrupted"):
                begun[batch] = 0
        for batch, times in begun.items():
            if times >= CHANCES:
                found[batch] = Try(batch, "memory", f"ended what had asked for it as well, {times} times")
        return list(found.values())

    def begins(self, batch: int) -> None:
        self._add({"event": "begins", "batch": batch})

    def ended(self, result: Try) -> None:
        self._add({"event": "ended", "batch": result.batch, "try": asdict(result)})

    def interrupted(self, batch: int) -> None:
        """Somebody stopped it, which says nothing about its size."""
        self._add({"event": "interrupted", "batch": batch})

    def _lines(self) -> list[dict[str, Any]]:
        found = []
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return []
        for line in text.splitlines():
            try:
                content = json.loads(line)
            except ValueError:
                continue
            if isinstance(content, dict) and content.get("key") == self.key:
                found.append(content)
        return found

    def _add(self, line: Mapping[str, Any]) -> None:
        """On the disk, not only handed to the system, before this returns. Raises UserError where it cannot be."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                # A line that was torn has no end.
                file.write(f"\n{json.dumps({'key': self.key, **line})}\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise cannot_write(self.path, error) from error


def journal_path(record: Path) -> Path:
    """Beside the record, which takes over what it holds once a search has ended."""
    return record.with_name(f"{record.stem}.tries.jsonl")


def key_of(**parts: Any) -> str:
    """Of everything that a try's end depends on."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
