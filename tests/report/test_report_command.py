"""`mrbench report` as a person types it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def mrbench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys, typer\nfrom mrbench.cli.report import report_command\nfrom mrbench.cli.common import show_error\n"
        "from mrbench.errors import UserError\n"
        "app = typer.Typer(pretty_exceptions_enable=False)\napp.command()(report_command)\n"
        "try:\n    app(standalone_mode=False)\nexcept UserError as error:\n    show_error(error); sys.exit(2)\n"
        "finally:\n    heavy = {'torch', 'torchvision', 'hydra'} & set(sys.modules)\n"
        "    print('imported:', sorted(heavy), file=sys.stderr)\n"
    )
    environment = {**os.environ, "COLUMNS": "80", "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=cwd, capture_output=True, text=True, env=environment
    )


def test_a_report_is_printed_and_written_without_torch(make_study: Callable[..., Path], tmp_path: Path) -> None:
    root = make_study(tmp_path, seeds=2)
    done = mrbench("demo", "--resamples", "20", cwd=root)
    assert done.returncode == 0, done.stderr
    assert "torch" not in done.stderr
    assert "longer" in done.stdout
    assert max(map(len, done.stdout.splitlines()[:-1])) <= 80
    assert done.stdout.splitlines()[-1].endswith("begin with results/demo/report.html")
    names = {path.name for path in (root / "results" / "demo").iterdir()}
    assert names == {
        *("accuracy.csv", "cost.csv", "runs.csv", "charts"),
        *("report.html", "report.json", "report.md", "report.tex"),
    }
    again = (root / "results" / "demo" / "report.html").read_bytes()
    assert mrbench("demo", "--resamples", "20", "--root", str(root), cwd=tmp_path).returncode == 0
    assert (root / "results" / "demo" / "report.html").read_bytes() == again


def test_formats_metrics_baseline_and_folder_are_chosen(demo: Path, tmp_path: Path) -> None:
    options = ("--root", str(demo), "--resamples", "0", "--metrics", "mask/AP75", "--baseline", "bn")
    done = mrbench("demo", *options, "--format", "json,csv", "--out", str(tmp_path / "here"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "here").iterdir()} == {
        "report.json",
        "accuracy.csv",
        "cost.csv",
        "runs.csv",
    }
    found = json.loads((tmp_path / "here" / "report.json").read_text())
    assert found["baseline"] == "bn"
    assert {row["metric"] for row in found["accuracy"]} == {"mask AP75"}


def test_one_format_goes_to_standard_output_for_programs(demo: Path, tmp_path: Path) -> None:
    done = mrbench("demo", "--root", str(demo), "--resamples", "0", "--format", "json", "--out", "-", cwd=tmp_path)
    assert json.loads(done.stdout)["study"] == "demo"
    assert list(tmp_path.iterdir()) == []


def test_runs_are_compared_by_hand(demo: Path, tmp_path: Path) -> None:
    runs = [f"mask_rcnn_small-shapes-{name}" for name in ("gn000000", "gn000001", "bn000000", "bn000001")]
    options = ("--root", str(demo), "--resamples", "0", "--format", "terminal", "--out", "-")
    done = mrbench(*runs, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "norm=bn" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["demmo"], "demo"),
        ([], "demo"),
        (["demo", "--format", "htlm"], "html"),
        (["demo", "--metrics", "bbox/AP"], "box/AP"),
        (["demo", "--baseline", "gm"], "gn"),
        (["demo", "--out", "-"], "one format"),
        (["demo", "--out", "/proc/nowhere"], "/proc/nowhere"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(demo: Path, tmp_path: Path, arguments: list[str], says: str) -> None:
    done = mrbench(*arguments, "--root", str(demo), "--resamples", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr
