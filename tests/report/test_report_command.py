"""`mrbench report` as a person types it."""

import csv
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mrbench.cli.report import report_command
from mrbench.config.paths import published_dir
from mrbench.errors import UserError
from mrbench.report import words
from mrbench.runs.record import Run


def mrbench(*arguments: str) -> Any:
    """The command in this process; a person's mistake is its exception."""
    app = typer.Typer()
    app.command()(report_command)
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "80"})


def test_a_report_is_made_without_torch(demo: Path, tmp_path: Path) -> None:
    code = (
        "import sys, typer; from mrbench.cli.report import report_command\n"
        "assert not {'matplotlib', 'pandas', 'numpy'} & set(sys.modules), 'the command line must answer at once'\n"
        "app = typer.Typer(); app.command()(report_command); app(standalone_mode=False)\n"
        "assert 'matplotlib' in sys.modules\n"
        "assert not {'torch', 'torchvision'} & set(sys.modules)\n"
    )
    arguments = ["demo", "--root", str(demo), "--resamples", "2", "--format", "html", "--out", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("kinds", [["terminal,csv,json,latex", "--detail"], ["markdown", "--out", "-"]])
def test_tables_are_made_without_matplotlib_and_pillow(demo: Path, tmp_path: Path, kinds: list[str]) -> None:
    code = (
        "import sys, typer; from mrbench.cli.report import report_command\n"
        "app = typer.Typer(); app.command()(report_command); app(standalone_mode=False)\n"
        "assert 'mrbench.report.write' in sys.modules\n"
        "assert not {'matplotlib', 'PIL', 'torch'} & set(sys.modules)\n"
    )
    arguments = ["demo", "--root", str(demo), "--resamples", "2", "--format", *kinds]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    arguments += [] if "--out" in kinds else ["--out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "longer" in done.stdout


def test_a_report_is_printed_and_written(make_study: Callable[..., Path], tmp_path: Path) -> None:
    root = make_study(tmp_path, seeds=2)
    done = mrbench("demo", "--resamples", "5", "--root", str(root))
    assert done.exit_code == 0, done.output
    assert "longer" in done.stdout
    *lines, last = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    written = [path for path in (root / "results" / "demo").rglob("*") if path.is_file()]
    assert last == f"Wrote {len(written)} files; begin with {root}/results/demo/report.html"
    assert {path.name for path in (root / "results" / "demo").iterdir()} == {
        *("accuracy.csv", "cost.csv", "detail.csv", "published.csv", "runs.csv", "charts"),
        *("report.html", "report.json", "report.md", "report.tex"),
    }
    for reference in re.findall(r"\]\((.*?)\)", (root / "results" / "demo" / "report.md").read_text()):
        assert (root / "results" / "demo" / reference).is_file()


def test_a_report_of_other_runs_is_not_written_over(demo: Path, tmp_path: Path) -> None:
    """As that of a clone's results/demo, where a study of one's own is called demo."""
    (tmp_path / "report.json").write_text('{"study": "demo", "runs": [{"run": "mask_rcnn_small-shapes-4e36e42bcc"}]}')
    done = mrbench("demo", "--root", str(demo), "--resamples", "0", "--out", str(tmp_path))
    assert isinstance(done.exception, UserError)
    assert f"'{tmp_path}'" in done.exception.what
    assert "--out" in done.exception.hint
    assert "--root" in done.exception.hint
    assert done.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["report.json"]
    done = mrbench("demo", "--root", str(demo), "--resamples", "0", "--out", str(tmp_path), "--format", "terminal")
    assert done.exit_code == 0, done.output


def test_a_report_written_again_leaves_no_chart_or_table_that_it_no_longer_has(demo: Path, tmp_path: Path) -> None:
    options = ("demo", "--root", str(demo), "--resamples", "0", "--out", str(tmp_path))
    assert mrbench(*options, "--format", "json,markdown,csv").exit_code == 0
    (tmp_path / "charts" / "mine.svg").write_text("a reader's own")
    assert (tmp_path / "charts" / "curve-mask-AP.png").is_file()
    assert (tmp_path / "published.csv").is_file()
    record = json.loads((demo / "studies" / "demo.json").read_text())
    one_arm = {"gn": record["arms"]["gn"] | {"published": None}}
    root = tmp_path / "root"
    (root / "studies").mkdir(parents=True)
    (root / "runs").symlink_to(demo / "runs")
    (root / "studies" / "demo.json").write_text(json.dumps(record | {"arms": one_arm}))
    options = ("demo", "--root", str(root), "--resamples", "0", "--out", str(tmp_path), "--metrics", "box/AP")
    assert mrbench(*options, "--format", "json,markdown,csv").exit_code == 0
    assert not (tmp_path / "published.csv").exists()
    assert not (tmp_path / "charts" / "curve-mask-AP.png").exists()
    shown = set(re.findall(r"charts/(.*?)\.png", (tmp_path / "report.md").read_text()))
    assert {path.stem for path in (tmp_path / "charts").iterdir()} == shown | {"mine"}


def test_formats_metrics_baseline_and_folder_are_chosen(demo: Path, tmp_path: Path) -> None:
    options = ("--root", str(demo), "--resamples", "0", "--metrics", "mask/AP75", "--baseline", "bn")
    done = mrbench("demo", *options, "--format", "json,csv", "--out", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == {
        *("report.json", "accuracy.csv", "cost.csv", "detail.csv", "published.csv", "runs.csv")
    }
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["baseline"] == "bn"
    assert {row["metric"] for row in found["accuracy"]} == {"mask AP75"}


def test_one_format_goes_to_standard_output_for_programs(demo: Path) -> None:
    done = mrbench("demo", "--root", str(demo), "--resamples", "0", "--format", "json", "--out", "-")
    assert json.loads(done.stdout)["study"] == "demo"


def test_runs_are_compared_by_hand(demo: Path) -> None:
    runs = [f"mask_rcnn_small-shapes-{name}" for name in ("gn000000", "gn000001", "bn000000", "bn000001")]
    done = mrbench(*runs, "--root", str(demo), "--resamples", "0", "--format", "terminal", "--out", "-")
    assert done.exit_code == 0, done.output
    assert "norm=bn" in done.stdout


def test_two_runs_are_set_side_by_side(demo: Path) -> None:
    runs = [f"mask_rcnn_small-shapes-{name}" for name in ("gn000000", "bn000000")]
    done = mrbench("--compare", *runs, "--root", str(demo), "--resamples", "5")
    assert done.exit_code == 0, done.output
    assert "box/AP" in done.stdout
    assert "model.norm" in done.stdout
    assert "The environment is the same." in done.stdout


def test_two_runs_side_by_side_are_written_where_that_is_asked_for(demo: Path, tmp_path: Path) -> None:
    runs = [f"mask_rcnn_small-shapes-{name}" for name in ("gn000000", "bn000000")]
    options = ["--compare", *runs, "--root", str(demo), "--resamples", "5"]
    assert "Wrote" not in mrbench(*options).stdout
    assert not list(demo.glob("results/*-and-*"))
    done = mrbench(*options, "--format", "json", "--out", "-")
    found = json.loads(done.stdout)
    assert found["runs"] == runs
    assert {"key": "model.norm", "values": ["gn", "bn"]} in found["configuration"]
    done = mrbench(*options, "--out", str(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {f"compare.{kind}" for kind in ("md", "csv", "json", "tex")}
    assert f"begin with {tmp_path}/compare.md" in "".join(done.stdout.splitlines())
    assert json.loads((tmp_path / "compare.json").read_text()) == found
    done = mrbench(*options, "--out", str(tmp_path), "--format", "latex,markdown")
    assert f"Wrote 2 files; begin with {tmp_path}/compare.md" in "".join(done.stdout.splitlines())
    assert f"Wrote {tmp_path}/compare.tex" in mrbench(*options, "--out", str(tmp_path), "--format", "latex").stdout
    page = (tmp_path / "compare.md").read_text()
    assert "| model.norm | gn | bn |" in page
    assert "The environment is the same." in page
    rows = list(csv.DictReader((tmp_path / "compare.csv").open()))
    assert [row["metric"] for row in rows] == [name for name, both in found["metrics"].items() if both[0]["value"]]
    for row in rows:
        one, other = (Run(demo / "runs" / run).evaluation()["metrics"][row["metric"]] for run in runs)
        assert (float(row["first"]), float(row["second"])) == (one, other)
        assert float(row["difference"]) == pytest.approx(other - one)
        assert f"| {words.signed(other - one, 1)} \\[" in page


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--compare", "mask_rcnn_small-shapes-gn000000", "mask_rcnn_small-shapes-bn000000", "--format", "html"],
            "html",
        ),
        (["--compare", "mask_rcnn_small-shapes-gn000000"], "two runs"),
        (["demmo"], "demo"),
        ([], "demo"),
        (["demo", "--format", "htlm"], "html"),
        (["demo", "--metrics", "bbox/AP"], "box/AP"),
        (["demo", "--baseline", "gm"], "gn"),
        (["demo", "--baseline", "gm"], "The baseline 'gm' is not an arm"),
        (["demo", "--out", "-"], "one format"),
        (["demo", "--format", "csv", "--out", "/proc/nowhere"], "/proc/nowhere"),
        (["demo", "--out", str(published_dir())], "literature"),
    ],
)
def test_a_mistake_is_one_message_with_a_hint(demo: Path, arguments: list[str], says: str) -> None:
    """The command line prints a UserError and exits with 2 (tests/cli)."""
    done = mrbench(*arguments, "--root", str(demo), "--resamples", "0")
    assert isinstance(done.exception, UserError)
    assert says in f"{done.exception.what} {done.exception.hint}"
