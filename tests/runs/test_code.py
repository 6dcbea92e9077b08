"""The code that runs is the code that was submitted, or the record says that it is not."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mrbench.config.composer import compose
from mrbench.config.paths import PACKAGE, ablations_dir, conf_dir, published_dir
from mrbench.errors import UserError
from mrbench.runs import code
from mrbench.runs.provenance import collect, write
from mrbench.runs.record import Run, open_run

JOB = """
import json, sys
from pathlib import Path
from mrbench import runs
from mrbench.runs import code, provenance
from mrbench.runs.record import Run
run, submitted = Run(Path(sys.argv[1])), json.loads(sys.argv[2])
code.expect(submitted, run)
provenance.write(run, provenance.collect())
import mrbench.errors
print(getattr(mrbench.errors, "CHANGED", "as submitted"))
"""
SUBMISSION = """
import json, sys
from pathlib import Path
from mrbench.runs import code
copy = code.snapshot(Path(sys.argv[1])) if sys.argv[2] == "copy" else None
print(json.dumps([code.to_submit(), code.environment(copy)]))
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the package and its files that a test may change."""
    top = tmp_path / "clone"
    shutil.copytree(PACKAGE, top / "mrbench", ignore=shutil.ignore_patterns("__pycache__", "_files"))
    for source, name in ((conf_dir(), "conf"), (ablations_dir(), "ablations"), (published_dir(), "results/published")):
        shutil.copytree(source, top / name)
    return top


def python(clone: Path, program: str, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """What the program prints, in a process that is started in the clone and finds mrbench there."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=clone,
        env={**os.environ, "PYTHONPATH": str(clone), **(environment or {})},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("way", ["copy", "as it is"])
def test_code_that_changes_between_submission_and_start(clone: Path, tmp_path: Path, way: str) -> None:
    run = open_run(tmp_path / "root", compose())
    submitted, environment = json.loads(python(clone, SUBMISSION, str(tmp_path / "root"), way))
    with (clone / "mrbench" / "errors.py").open("a") as file:
        file.write("\nCHANGED = 'changed'\n")
    said = python(clone, JOB, str(run.folder), json.dumps(submitted), environment=environment)
    recorded = run.provenance()["code"]
    log = run.log_file.read_text() if run.log_file.exists() else ""
    if way == "copy":
        assert said == "as submitted"
        assert recorded["source_sha256"] == submitted["source_sha256"]
        assert recorded["snapshot"] == environment["PYTHONPATH"].split(os.pathsep)[0]
        assert "submitted" not in recorded
        assert "has changed" not in log
    else:
        assert said == "changed"
        assert recorded["source_sha256"] != submitted["source_sha256"]
        assert recorded["submitted"] == submitted
        assert "the code has changed since the submission" in log


def test_a_snapshot_is_made_once_and_one_that_was_changed_is_refused(tmp_path: Path) -> None:
    copy = code.snapshot(tmp_path)
    made = (copy / "mrbench").stat().st_mtime_ns
    assert code.snapshot(tmp_path) == copy
    assert (copy / "mrbench").stat().st_mtime_ns == made
    assert [p.name for p in (tmp_path / "snapshots").iterdir()] == [copy.name]
    assert code.source_sha256(copy / "mrbench") == code.source_sha256()
    file = copy / "mrbench" / "errors.py"
    assert not file.stat().st_mode & 0o222
    file.chmod(0o644)
    file.write_text(file.read_text() + "\n")
    with pytest.raises(UserError, match="not the copy that it was"):
        code.snapshot(tmp_path)


def test_the_fingerprint_is_that_of_package_and_conf(clone: Path) -> None:
    package = clone / "mrbench"
    before = code.source_sha256(package)
    assert before == code.source_sha256()
    for changed in (package / "errors.py", clone / "conf" / "config.yaml"):
        text = changed.read_text()
        changed.write_text(text + "\n")
        assert code.source_sha256(package) != before
        changed.write_text(text)
    (package / "__pycache__").mkdir(exist_ok=True)
    (package / "__pycache__" / "errors.cpython-311.pyc").write_bytes(b"x")
    assert code.source_sha256(package) == before


def test_a_resume_with_other_code_keeps_the_first_on_record_and_says_so(tmp_path: Path) -> None:
    run: Run = open_run(tmp_path, compose())
    first = collect()
    write(run, first)
    write(run, first)
    assert "earlier_code" not in run.provenance()
    assert not run.log_file.exists()
    other = {**first, "code": {**first["code"], "source_sha256": "0" * 64}}
    write(run, other)
    assert run.provenance()["earlier_code"] == [first["code"]]
    assert "goes on with other code than before" in run.log_file.read_text()
