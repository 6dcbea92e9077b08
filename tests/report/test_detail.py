"""Where arms differ: each number is the runs' own, every format says it, and what older records lack is said."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mrbench.evaluation import errors as evaluated
from mrbench.evaluation.matches import Matches, average_precision
from mrbench.report import charts_detail, detail, detail_table, formats, page_detail, table, terminal, write
from mrbench.report.build import Report, build
from mrbench.report.collect import load_study, with_metrics

CLASSES = [f"class {i}" for i in range(26)]
COSTS = {"classification": 4.0, "localisation": 9.0, "both": 1.0, "duplicate": 0.5, "background": 2.0, "missed": 11.0}
MORE = {"bn": 3.0, "roi_pool": 0.0, "class_agnostic": -3.0, "longer": 0.0}  # points that each arm's errors cost more


def add_detail(root: Path, seeds: int = 3) -> None:
    """What an evaluation writes beyond COCO's numbers: costs, classes and thresholds of the fake runs."""
    study = json.loads((root / "studies/demo.json").read_text())
    for arm, record in study["arms"].items():
        for seed, run_id in record["runs"].items():
            noise = 0.1 * (int(seed) - 1)
            path = root / "runs" / run_id / "evaluation.json"
            content = json.loads(path.read_text())
            costs = {name: value + MORE.get(arm, 0.0) + noise for name, value in COSTS.items()}
            costs |= {"false_positive": 7.0 + noise, "false_negative": 20.0 - noise}
            ap = {name: 30 + (i - 12) * (arm == "bn") + noise for i, name in enumerate(CLASSES)}
            content["errors"] = {kind: {"ap50": 60.0, "cost": costs, "count": {}} for kind in ("box", "mask")}
            content["per_category"] = {name: {"box/AP": x, "mask/AP": x - 1} for name, x in ap.items()}
            content["per_category"]["never seen"] = {"box/AP": None, "mask/AP": None}
            path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def root(make_study: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_study(tmp_path_factory.mktemp("detail"))
    add_detail(folder)
    return folder


@pytest.fixture(scope="module")
def report(root: Path) -> Report:
    return build(load_study(root, "demo"), resamples=30)


def section(report: Report, name: str, kind: str = "box") -> detail.Section:
    found = report.detail.section(name, kind)
    assert found is not None
    return found


def test_categories_are_those_of_the_evaluation() -> None:
    assert evaluated.CATEGORIES == detail.ERRORS
    assert evaluated.TOTALS == detail.TOTALS


def test_a_cost_is_the_mean_over_seeds_and_changes_against_the_baseline(report: Report) -> None:
    for quantity in section(report, "errors", "mask").quantities[:6]:
        assert quantity.summaries["gn"].mean == pytest.approx(COSTS[quantity.name])
        assert quantity.summaries["gn"].sd == pytest.approx(0.1)
        assert quantity.differences["bn"].mean == pytest.approx(3.0)
        assert quantity.differences["roi_pool"].mean == pytest.approx(0.0)


def test_an_error_that_costs_more_is_worse(report: Report) -> None:
    missed = next(item for item in section(report, "errors").quantities if item.name == "missed")
    decisions = {arm: found.decision for arm, found in missed.differences.items()}
    assert decisions["bn"] == "worse"
    assert decisions["class_agnostic"] == "better"
    assert decisions["roi_pool"] == "inside the noise"


def test_thresholds_of_older_records_come_from_their_matches(root: Path, report: Report) -> None:
    run = report.study.arm("gn").runs[0]
    assert run.matches is not None
    matches = Matches.load(run.matches)
    known = average_precision(matches, "mask")
    own = {item.name: item for item in section(report, "thresholds", "mask").quantities}
    assert list(own) == list(detail.THRESHOLDS)
    scores = report.study.arm("gn").scores("mask/AP@0.75")
    assert scores[run.seed] == pytest.approx(known["AP75"])
    assert own["0.75"].summaries["gn"].mean == pytest.approx(np.mean(list(scores.values())))
    means = [run.score(f"mask/AP@{name}") for name in detail.THRESHOLDS]
    assert np.mean([value for value in means if value is not None]) == pytest.approx(known["AP"])


def test_an_evaluation_that_has_thresholds_needs_no_matches(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for file in copy.glob("runs/*/evaluation.json"):
        content = json.loads(file.read_text())
        content["per_threshold"] = {"box": dict.fromkeys(detail.THRESHOLDS, 50.0)}
        file.write_text(json.dumps(content))
        file.with_name("matches.npz").unlink()
    found = build(load_study(copy, "demo"), resamples=0)
    assert all(item.summaries["bn"].mean == 50.0 for item in section(found, "thresholds").quantities)
    assert found.detail.section("thresholds", "mask") is None


def test_differences_hold_the_images_where_matches_allow(report: Report) -> None:
    held = section(report, "thresholds").quantities[0].differences["bn"].interval
    alone = section(report, "errors").quantities[0].differences["bn"].interval
    assert held is not None
    assert held.image_sd is not None
    assert alone is not None
    assert alone.image_sd is None


def test_the_most_changed_classes_are_named_worst_and_best(report: Report) -> None:
    fell, rose = section(report, "classes").changed("bn")
    assert [item.name for item in fell] == CLASSES[:10]
    assert [item.name for item in rose] == CLASSES[:15:-1]
    assert fell[0].differences["bn"].mean == pytest.approx(-12)
    assert {item.differences["bn"].decision for item in fell} == {"worse"}
    shown = [item.name for item in detail_table.classes_shown(report, "bn", "box", most=2)]
    assert shown == ["class 25", "class 24", "class 1", "class 0"]


def test_a_few_of_many_classes_that_change_by_chance_are_not_called(make_study: Any, tmp_path: Path) -> None:
    root = make_study(tmp_path)
    generator = np.random.default_rng(0)
    for file in root.glob("runs/*/evaluation.json"):
        content = json.loads(file.read_text())
        content["per_category"] = {f"c{i}": {"box/AP": 30 + generator.normal()} for i in range(80)}
        file.write_text(json.dumps(content))
    found = section(build(load_study(root, "demo"), resamples=0), "classes")
    alone = sum(d.p is not None and d.p < 0.05 for item in found.quantities for d in item.differences.values())
    called = sum(d.decision in ("better", "worse") for item in found.quantities for d in item.differences.values())
    assert alone >= 8  # of 320, 16 are expected
    assert called <= 1


def cells(found: table.Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in found.rows]


def test_every_format_says_the_same(report: Report) -> None:
    everything = detail_table.everything(report).records()
    by_key = {(r["kind"], r["section"], r["quantity"], r["arm"]): r for r in everything}
    views = [*detail_table.overviews(report), detail_table.classes(report)]
    names = [view.name for view in views if view]
    assert names == ["errors", "sizes", "thresholds", "classes"]
    for view in views[:3]:
        assert view is not None
        for row in view.rows:
            kind, less, _ = row.group.partition(", less gn")
            for column, cell in zip(view.columns[1:], row.cells[1:], strict=True):
                record = by_key[kind, view.name, column.values[0], row.cells[0].text]
                assert cell.values[0] == record["difference" if less else "mean"]
    markdown = write.markdown(report, [])
    text = page_detail.render(report, {})
    written = json.loads(write.as_json(report, write.all_tables(report)))
    assert written["detail"] == everything
    rows = csv.DictReader(io.StringIO(formats.comma_separated(detail_table.everything(report))))
    for row, record in zip(rows, everything, strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in record.items()}
    for view in views[:3]:
        assert view is not None
        for row in cells(view):
            assert " | ".join(formats.markdown_escape(cell) for cell in row) in markdown
            assert all(f">{cell}</t" in text for cell in row)


def test_the_terminal_has_a_short_version_in_80_columns(report: Report) -> None:
    console = Console(record=True, width=80, file=io.StringIO())
    terminal.show_detail(report, console)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    row = next(line for line in text.splitlines() if line.startswith("gn"))
    assert re.split(r"\s{2,}", row.strip()) == ["gn", "4.0 ± 0.1", "9.0 ± 0.1", "2.0 ± 0.1", "11.0 ± 0.1"]
    assert "class 25" in text
    assert "class 20" not in text


def test_older_records_are_reported_and_what_they_lack_is_said(demo: Path) -> None:
    found = build(load_study(demo, "demo"), resamples=30)
    notes = " ".join(detail_table.notes(found.detail))
    assert "Errors by category (box, mask): no run has it on record. `mrbench eval RUN` writes it." in notes
    assert "AP by class (box, mask): no run has it on record." in notes
    assert "threshold" not in notes  # matches.npz has them
    assert charts_detail.errors(found, "box") is None
    assert charts_detail.classes(found, "bn", "box") is None
    text = unescape(page_detail.render(found, {}))
    assert all(line in text for line in detail_table.notes(found.detail))
    assert "no run has it on record" in write.markdown(found, [])


def test_a_study_with_some_older_records_uses_what_there_is(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    study = json.loads((copy / "studies/demo.json").read_text())
    old = [study["arms"]["bn"]["runs"][seed] for seed in ("0", "1", "2")] + [study["arms"]["gn"]["runs"]["1"]]
    for run_id in old:
        path = copy / "runs" / run_id / "evaluation.json"
        content = json.loads(path.read_text())
        del content["errors"]
        path.write_text(json.dumps(content))
    found = build(load_study(copy, "demo"), resamples=0)
    first = section(found, "errors").quantities[0]
    assert first.summaries["bn"].mean is None
    assert first.summaries["gn"].seeds == (0, 2)
    assert first.differences["longer"].mean == pytest.approx(0.0)
    notes = " ".join(detail_table.notes(found.detail))
    assert f"Errors by category (box, mask): not on record for 4 of 15 runs ({old[3]} and 3 more)." in notes
    chart = charts_detail.errors(found, "box")
    assert chart is not None
    assert any(text.get_text() == "no result" for ax in chart.axes for text in ax.texts)
    write.write(found, tmp_path / "out", ["csv", "json"], pictures=0)
    assert (tmp_path / "out/detail.csv").is_file()


def test_nothing_evaluated_has_no_section(root: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    for file in copy.glob("runs/*/evaluation.json"):
        file.unlink()
    found = build(load_study(copy, "demo"), resamples=0)
    assert found.detail.sections == ()
    assert page_detail.render(found, {}) == ""
    assert "Where the arms differ" not in write.markdown(found, [])


def test_proposals_have_no_breakdown(root: Path) -> None:
    study = with_metrics(load_study(root, "demo"), ["box/AP"])
    assert {item.kind for item in build(study, resamples=0).detail.sections} == {"box"}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_tables_fit_the_width_of_an_article(root: Path, tmp_path: Path) -> None:
    """Also with long names, and what errors cost."""
    study = load_study(root, "demo")
    names = {
        "bn": "batch_normalisation_with_synchronised_statistics",
        "roi_pool": "RoIPool of the first of the papers",
    }
    arms = tuple(replace(arm, name=names.get(arm.name, arm.name)) for arm in study.arms)
    text = write.for_papers(build(replace(study, arms=arms), resamples=0))
    assert text.count(r"\begin{table}") == 4  # accuracy, cost, errors of boxes and of masks
    assert r"\shortstack[l]{batch\_normalisation" in text
    (tmp_path / "main.tex").write_text(
        f"\\documentclass{{article}}\\usepackage{{booktabs}}\\begin{{document}}{text}\\end{{document}}\n"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "main.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.findall(r"Overfull.*|Float too large.*", done.stdout) == []


def test_charts_are_drawn_for_each_kind(report: Report) -> None:
    found = charts_detail.figures(report)
    for kind in ("box", "mask"):
        assert {f"errors-{kind}", f"thresholds-{kind}", f"classes-{kind}-1-bn"} <= set(found)
    axes = found["errors-box"].figure.axes
    assert [ax.get_title(loc="left").partition(":")[0] for ax in axes] == ["Cls", "Loc", "Both", "Dupe", "Bkg", "Miss"]
    widths = [bar.get_width() for bar in axes[0].patches]
    assert widths == pytest.approx([4.0 + MORE.get(arm.name, 0.0) for arm in report.study.arms])
    levels, changes = found["thresholds-mask"].figure.axes
    expected = {name: item.mean for item in section(report, "thresholds", "mask").quantities[:1]
                for name, item in item.differences.items()}  # fmt: skip
    assert {line.get_ydata()[0] for line in changes.lines} >= set(expected.values())
    assert len(levels.lines) == len(report.study.arms)
    assert len(found["classes-box-1-bn"].figure.axes[0].get_yticks()) == 20


def test_every_seed_of_an_error_lies_on_the_axis_with_room_for_the_label(root: Path, tmp_path: Path) -> None:
    """Two seeds far apart: the higher one is what the axis must hold, not their mean."""
    copy = tmp_path / "copy"
    shutil.copytree(root, copy)
    study = json.loads((copy / "studies/demo.json").read_text())
    path = copy / "runs" / study["arms"]["bn"]["runs"]["1"] / "evaluation.json"
    content = json.loads(path.read_text())
    content["errors"]["mask"]["cost"]["localisation"] = 40.0
    path.write_text(json.dumps(content))
    chart = charts_detail.errors(build(load_study(copy, "demo"), resamples=0), "mask")
    assert chart is not None
    for ax in chart.axes:
        marks = [x for line in ax.lines for x in line.get_xdata()]
        labels = [text.get_position()[0] for text in ax.texts]
        assert max(marks) <= 40.0
        assert max(labels) < 0.8 * ax.get_xlim()[1]


def test_a_chart_is_part_of_markdown_where_its_table_is(report: Report) -> None:
    text = write.markdown(report, ["accuracy", "errors-box", "classes-box-1-bn"])
    places = [text.index(part) for part in ("charts/accuracy.png", "## Where the arms differ", "charts/errors-box.png",
                                            "### AP by size", "charts/classes-box-1-bn.png")]  # fmt: skip
    assert places == sorted(places)
