"""Taking back an attempt at a run that a mistake in what was asked for ended before it got anywhere."""

import os
from dataclasses import dataclass
from pathlib import Path

from mrbench.runs.files import replacing
from mrbench.runs.record import Run


@dataclass(frozen=True)
class Before:
    """A run as an attempt finds it: the files that tell of attempts, and how far it is. Held by who has its lock."""

    run: Run
    record: dict[Path, bytes | None]  # None: not there
    progress: tuple[int, list[str]]

    @classmethod
    def of(cls, run: Run) -> "Before":
        files = (run.status_file, run.provenance_file, run.log_file)
        return cls(run, {path: path.read_bytes() if path.exists() else None for path in files}, _progress(run))

    def put_back(self) -> bool:
        """Makes the record what it was, unless something was logged or saved since. Whether it did."""
        if _progress(self.run) != self.progress:
            return False
        for path, content in self.record.items():
            if content is None:
                path.unlink(missing_ok=True)
            elif path.read_bytes() != content:
                with replacing(path) as temporary:
                    temporary.write_bytes(content)
        return True


def _progress(run: Run) -> tuple[int, list[str]]:
    """The size of metrics.jsonl, and the checkpoints."""
    logged = run.metrics_file.stat().st_size if run.metrics_file.exists() else 0
    return logged, sorted(os.listdir(run.checkpoint_dir)) if run.checkpoint_dir.is_dir() else []
