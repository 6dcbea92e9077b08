"""The studies in results/ that were really run: pages tell their numbers, their records make their reports again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.report import words

TOP = Path(__file__).resolve().parents[2]
STUDIES = ("demo", "nuclei_scale_jitter")


def report_of(study: str) -> dict[str, Any]:
    return json.loads((TOP / "results" / study / "report.json").read_text())


def cells(row: dict[str, Any]) -> str:
    """Mean and difference of a row as pages print them."""
    mean = f"{words.number(row['mean'], 1)} ± {words.number(row['sd'], 1)}"
    if row["difference"] is None:
        return f" {mean} | |"
    half = (row["difference_high"] - row["difference_low"]) / 2
    return f" {mean} | {words.signed(row['difference'], 1)} ± {words.number(half, 1)} |"


@pytest.mark.parametrize(("study", "page"), [("demo", "README.md"), ("nuclei_scale_jitter", "docs/augmentation.md")])
def test_a_page_s_table_is_that_of_the_report(study: str, page: str) -> None:
    report = report_of(study)
    arms = list(dict.fromkeys(row["arm"] for row in report["accuracy"]))
    decided = re.compile(r"\| .* (baseline|better|worse|inside the noise) \|")
    told = [line for line in (TOP / page).read_text().splitlines() if decided.fullmatch(line)]
    assert len(told) == len(arms)
    for arm, line in zip(arms, told, strict=True):
        box, mask = (row for row in report["accuracy"] if row["arm"] == arm)
        assert cells(box) + cells(mask) in line
        assert box["decision"] in line
        assert mask["decision"] in line


@pytest.mark.parametrize("study", STUDIES)
def test_a_report_is_made_again_from_the_records(study: str, tmp_path: Path) -> None:
    for folder in ("runs", "studies"):
        shutil.copytree(TOP / "results" / study / folder, tmp_path / folder)
    asked = ["report", study, "--root", str(tmp_path), "--resamples", "0", "--format", "json", "--out", "-"]
    done = CliRunner().invoke(app, asked)
    assert done.exit_code == 0, done.output
    again, kept = json.loads(done.stdout), report_of(study)
    names = ("arm", "metric", "seeds", "mean", "sd", "difference")
    assert [[row[name] for name in names] for row in again["accuracy"]] == [
        [row[name] for name in names] for row in kept["accuracy"]
    ]
    assert again["runs"] == kept["runs"]
    assert kept["image_resamples"] == 400


def test_no_record_names_a_folder_of_a_machine() -> None:
    kinds = {".json", ".jsonl", ".yaml", ".csv", ".md", ".tex"}
    files = [path for path in (TOP / "results").rglob("*") if path.suffix in kinds]
    assert len(files) > 100
    absolute = re.compile(r"(?<![\w.:/])/(tmp|home|root|work|mnt|data|var|usr|Users)/")
    assert not [path for path in files if absolute.search(path.read_text())]
