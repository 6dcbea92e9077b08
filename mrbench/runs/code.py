"""Which code runs: its fingerprint, how it differs from what was submitted, and copies that do not change."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from mrbench import __version__
from mrbench.config.paths import PACKAGE, ablations_dir, conf_dir, published_dir
from mrbench.errors import UserError
from mrbench.runs.files import cannot_write, read_json, write_json
from mrbench.runs.record import Run

SUFFIXES = (".py", ".yaml", ".css", ".html")
SUBMITTED = "MRBENCH_SUBMITTED_CODE"  # set for a job: what `describe` said as it was submitted, in JSON
COPY_NOTE = "mrbench-code.json"  # beside the package of a snapshot: what `describe` said of the clone


def source_sha256(package: Path = PACKAGE) -> str:
    """Of the names and contents of the package's files and of conf/, wherever they lie."""
    packaged = package / "_files"
    conf = packaged / "conf" if packaged.is_dir() else package.parent / "conf"
    digest = hashlib.sha256()
    for name, top in (("mrbench", package), ("conf", conf)):
        for path in sorted(p for p in top.rglob("*") if p.suffix in SUFFIXES):
            if top == package and packaged in path.parents:
                continue
            digest.update(f"{name}/{path.relative_to(top).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def describe() -> dict[str, Any]:
    """Version and fingerprint of the code that runs; of a clone also the commit and what differs from it."""
    copied = read_json(PACKAGE.parent / COPY_NOTE)
    if isinstance(copied, dict):  # a snapshot
        return {**copied, "source_sha256": source_sha256(), "snapshot": str(PACKAGE.parent)}
    found: dict[str, Any] = {"version": __version__, "source_sha256": source_sha256()}
    top = str(PACKAGE.parent)
    if _git(top, "ls-files", "--error-unmatch", "mrbench/__init__.py") is None:
        return found
    change = _git(top, "diff", "HEAD", "--", "mrbench", "conf") or ""
    return {
        **found,
        "commit": (_git(top, "rev-parse", "HEAD") or "").strip() or None,
        "uncommitted_change": change or None,
        "uncommitted_sha256": hashlib.sha256(change.encode()).hexdigest() if change else None,
    }


def _git(top: str, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", top, *command], capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def to_submit() -> dict[str, Any]:
    """What a submission keeps of the code: `describe`, without the text of the change."""
    return {key: value for key, value in describe().items() if key != "uncommitted_change"}


def expect(submitted: dict[str, Any] | None, run: Run) -> None:
    """Called as a job starts: says in the run's log, and leaves for its provenance, what was submitted.

    Says nothing where the code is the same.
    """
    if not submitted:
        return
    os.environ[SUBMITTED] = json.dumps(submitted)
    line = difference(describe())
    if line:
        print(line, file=sys.stderr)
        run.log(line)


def submitted_code() -> dict[str, Any] | None:
    """The code as this job was submitted; None for a run that was started by hand."""
    try:
        found = json.loads(os.environ.get(SUBMITTED, "null"))
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def difference(now: dict[str, Any]) -> str | None:
    """One line where the code that runs is not what was submitted."""
    then = submitted_code()
    if then is None or then.get("source_sha256") == now.get("source_sha256"):
        return None
    return (
        f"the code has changed since the submission: {name(then)} was submitted, {name(now)} runs; "
        "mrbench sweep --snapshot runs from a copy"
    )


def name(code: dict[str, Any]) -> str:
    """Short, for a person: commit, whether it was changed, and the fingerprint's beginning."""
    commit = str(code.get("commit") or "")[:12] or f"version {code.get('version')}"
    changed = " with uncommitted changes" if code.get("uncommitted_sha256") else ""
    return f"{commit}{changed} ({str(code.get('source_sha256'))[:10]})"


def snapshot(root: Path) -> Path:
    """A copy of the running code in `<root>/snapshots/<fingerprint>/`, made once and never changed.

    Raises UserError where it cannot be written, or where the copy is not what it was.
    """
    digest = source_sha256()
    folder = root.resolve() / "snapshots" / digest[:12]
    if not folder.is_dir():
        try:
            _copy(folder, digest)
        except (OSError, shutil.Error) as error:
            raise cannot_write(folder, error if error.errno else OSError(str(error))) from error
    if source_sha256(folder / "mrbench") != digest:
        raise UserError(
            f"{folder} is not the copy that it was", "Remove the folder, then give the same command again."
        )
    return folder


def _copy(folder: Path, digest: str) -> None:
    """Written beside its place and renamed; of two that come at once the first one's stays."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as temporary:
        top = Path(temporary) / folder.name
        package = top / "mrbench"
        shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "_files"))
        for source, name in (
            (conf_dir(), "conf"),
            (ablations_dir(), "ablations"),
            (published_dir(), "results/published"),
        ):
            shutil.copytree(source, package / "_files" / name)
        if source_sha256(package) != digest:
            raise UserError("The code was changed while it was copied", "Give the same command again.")
        write_json(top / COPY_NOTE, describe())
        for path in top.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        try:
            top.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise


def environment(copy: Path | None) -> dict[str, str]:
    """What a process needs in its environment to run from the copy instead of what is installed."""
    if copy is None:
        return {}
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    # SAFEPATH: `python -m` would put the current folder first, which may be the clone.
    return {"PYTHONPATH": os.pathsep.join([str(copy), *others]), "PYTHONSAFEPATH": "1"}
