"""Runs that went wrong or are of another time are in the report with what is missing; and which arms none beats."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mrbench.report import caveats, charts, cost, drawing, grouping, page, published, table, words, write
from mrbench.report.build import MOST_CHARTED, build, charted
from mrbench.report.collect import Arm, load_study, with_divergence
from mrbench.report.run_record import RunRecord


@pytest.fixture
def root(make_study: Callable[..., Path], tmp_path: Path) -> Path:
    return make_study(tmp_path, seeds=3, matches=False)


def change(root: Path, run: str, file: str, **fields: Any) -> None:
    path = root / "runs" / f"mask_rcnn_small-shapes-{run}" / file
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def zero(root: Path, run: str) -> None:
    change(root, run, "evaluation.json", metrics={"box/AP": 0.0, "mask/AP": 0.0})


def test_a_run_that_ends_with_ap_0_or_a_loss_that_is_not_finite_is_counted_and_not_averaged(root: Path) -> None:
    zero(root, "bn000000")
    error = {"kind": "non_finite_loss", "message": "loss is nan at iteration 17 (images 3)"}
    change(root, "bn000001", "status.json", state="failed", error=error)
    change(root, "gn000002", "status.json", state="failed", error={"kind": "out_of_memory", "message": "no memory"})
    report = build(load_study(root, "demo"))
    arm = report.study.arm("bn")
    assert [run.state for run in arm.runs] == ["diverged", "diverged", "completed"]
    assert list(arm.scores("box/AP")) == [2]
    costs = {row["arm"]: (row["runs"], row["diverged"], row["failed"]) for row in table.cost(report).records()}
    assert costs["bn"] == ("1 completed, 2 diverged", 2, 0)
    assert costs["gn"] == ("2 completed, 1 failed", 0, 1)
    assert "Diverged, and left out of means and differences: bn 2 of 3 runs." in caveats.interval_notes(report)
    assert "bn, seed 1: diverged (loss is nan at iteration 17 (images 3))" in words.problems(report)
    found = json.loads(write.as_json(report, write.all_tables(report)))["arms"]
    assert (found["bn"]["diverged"], found["gn"]["failed"]) == (2, 1)


def test_an_arm_that_detects_nothing_or_hardly_anything_counts_as_0(root: Path) -> None:
    """A short training's 0 is its result, whatever other arms reach."""
    for seed in range(3):
        zero(root, f"bn{seed:06x}")
    zero(root, "roi_000000")
    zero(root, "roi_000001")
    change(root, "roi_000002", "evaluation.json", metrics={"box/AP": 0.3, "mask/AP": 0.1})
    report = build(load_study(root, "demo"), resamples=0)
    assert {run.state for run in report.study.runs} == {"completed"}
    means = {name: found.mean for name, found in report.answers[0].summaries.items()}
    assert (means["bn"], means["roi_pool"]) == (0, pytest.approx(0.1))
    assert report.answers[0].differences["bn"].decision == "worse"


def test_public_runs_that_diverged_are_those_that_the_rule_names() -> None:
    """MLPerf's four: their recipes' other runs are far above."""
    finals: dict[Any, dict[Any, Any]] = {}
    for row in sorted(published.seed_variance(), key=lambda row: row.epoch):
        finals.setdefault(row.recipe, {})[row.release, row.submitter, row.system, row.run] = row
    found = 0
    for rows in finals.values():
        runs = [
            RunRecord("arm", i, str(i), "completed", metrics={"box/AP": row.box_ap, "mask/AP": row.mask_ap})
            for i, row in enumerate(rows.values())
        ]
        found += with_divergence(Arm("arm", (), None, "", tuple(runs))).count("diverged")
    assert found == 4


def test_a_report_is_made_of_runs_in_all_states_of_empty_folders_and_of_other_versions(root: Path) -> None:
    runs = root / "runs"
    zero(root, "clas000000")
    change(root, "bn000001", "status.json", state="running", iteration=100)
    change(root, "bn000002", "status.json", state="failed", error={"kind": "out_of_memory", "message": "no memory"})
    for path in (runs / "mask_rcnn_small-shapes-roi_000000").iterdir():
        path.unlink()  # an empty folder
    change(root, "roi_000001", "status.json", state="preempted")
    (runs / "mask_rcnn_small-shapes-roi_000002" / "provenance.json").unlink()
    older = runs / "mask_rcnn_small-shapes-long000000"  # other keys, other versions
    (older / "config.yaml").write_text("seed: 0\nmodel: {name: mask_rcnn_small, normalisation: gn}\n")
    change(root, "long000000", "status.json", generation=0)
    change(root, "long000000", "evaluation.json", metrics={"box/AP": 40.0, "segm": 7})
    change(root, "long000001", "provenance.json", packages={"torch": "2.15.0"}, code={"version": "9"})
    (runs / "mask_rcnn_small-shapes-long000001" / "metrics.jsonl").write_text('{"kind": "train", "iter')
    report = build(load_study(root, "demo"))
    written = write.write(report, root / "out", [kind for kind in write.FORMATS if kind != "terminal"], pictures=0)
    assert all(path.is_file() for path in written)
    text = (root / "out" / "report.md").read_text()
    for told in (
        "class\\_agnostic, seed 0: diverged",
        "bn, seed 1: interrupted",
        "no memory",
        "roi\\_pool, seed 1: preempted",
    ):
        assert told in text
    assert "torch: 2.15.0 (longer)" in text
    assert report.answers[0].summaries["longer"].n == 3
    assert report.answers[1].summaries["longer"].n == 2
    assert any(line.startswith("roi_pool, seed 0:") for line in words.problems(report))


def test_intervals_of_scores_end_at_0_and_100_wherever_they_are_shown(root: Path) -> None:
    for seed, low, high in ((0, 0.2, 99.9), (1, 1.5, 98.0), (2, 3.0, 99.0)):
        change(root, f"bn{seed:06x}", "evaluation.json", metrics={"box/AP": low, "mask/AP": high})
    report = build(load_study(root, "demo"), resamples=0)
    box, mask = (answer.summaries["bn"] for answer in report.answers)
    assert box.interval is not None
    assert box.interval.low < 0
    rows = {(row["metric"], row["arm"]): row for row in table.accuracy(report).records()}
    assert rows["box AP", "bn"]["low"] == 0
    assert rows["mask AP", "bn"]["high"] == 100
    assert (mask.limits or (0, 0))[1] == 100
    figure = charts.accuracy(report)
    for ax in figure.axes:
        ends = [x for line in ax.lines if len(line.get_xdata()) == 2 for x in line.get_xdata()]
        assert min(ends) >= 0
        assert max(ends) <= 100


def test_a_page_without_curves_has_no_empty_place_for_them(root: Path) -> None:
    for run in (root / "runs").iterdir():
        (run / "metrics.jsonl").unlink()
        change(root, run.name.removeprefix("mask_rcnn_small-shapes-"), "status.json", images_per_second=None)
    report = build(load_study(root, "demo"), resamples=0)
    text = page.render(report, drawing.draw(report), 0)
    assert "two points" not in text
    training = text[text.index('id="curves-heading"') :]
    assert '<div class="charts">' not in training[: training.index("</section>")]


def test_no_arm_beats_those_on_paretos_front() -> None:
    """Worked by hand: b is dearer and worse than a; d is as good as c and dearer; e and f are the same point."""
    points = {
        "a": (40.0, 1.0),
        "b": (39.0, 2.0),
        "c": (42.0, 3.0),
        "d": (42.0, 4.0),
        "e": (43.0, 9.0),
        "f": (43.0, 9.0),
    }
    found = cost.unbeaten(points)
    assert found == {"a": True, "b": False, "c": True, "d": False, "e": True, "f": True}


def test_costs_are_device_hours_and_are_not_compared_across_hardware(root: Path) -> None:
    for seed in range(3):
        change(root, f"long{seed:06x}", "status.json", ended="2026-03-01T12:00:00+00:00")
        change(root, f"long{seed:06x}", "provenance.json", processes=4)
    report = build(load_study(root, "demo"), resamples=0)
    found = cost.costs(report)
    assert found["longer"].hours == pytest.approx(2)
    assert found["longer"].device_hours == pytest.approx(8)
    assert found["gn"].device_hours == pytest.approx(70 / 3600)
    assert found["longer"].unbeaten  # the best
    assert not found["bn"].unbeaten  # the worst, and no cheaper
    hardware = {"host": "there", "cpu": "Another", "cores": 2, "memory": 8 * 2**30, "gpus": []}
    change(root, "long000000", "provenance.json", hardware=hardware)
    report = build(load_study(root, "demo"), resamples=0)
    assert {found.unbeaten for found in cost.costs(report).values()} == {None}
    assert "CPU" in cost.notes(report)[0]


def test_the_networks_size_and_the_energy_of_gpus_stand_beside_the_cost_where_they_are_on_record(root: Path) -> None:
    """Runs of 3.6 and 7.2 MJ, which are 1 and 2 kWh; the third has no reading."""
    before = table.cost(build(load_study(root, "demo"), resamples=0))
    assert "energy" not in [column.title for column in before.columns]
    for seed, joules in enumerate((3.6e6, 7.2e6, None)):
        change(root, f"bn{seed:06x}", "status.json", energy=joules)
        change(root, f"bn{seed:06x}", "provenance.json", parameters=1234567)
    found = table.cost(build(load_study(root, "demo"), resamples=0))
    row = next(row for row in found.rows if row.cells[0].text == "bn")
    texts = dict(zip([column.title for column in found.columns], [cell.text for cell in row.cells], strict=True))
    assert (texts["energy"], texts["parameters"]) == ("1.5 kWh", "1,234,567")
    assert {row["arm"]: row["energy_joules"] for row in found.records()}["gn"] is None


def test_charts_of_many_arms_show_the_baseline_and_the_largest_differences(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_study(tmp_path, seeds=1, matches=False)
    record = json.loads((root / "studies" / "demo.json").read_text())
    record["arms"] |= {f"same{i}": record["arms"]["gn"] for i in range(MOST_CHARTED)}
    (root / "studies" / "demo.json").write_text(json.dumps(record))
    report = charted(build(load_study(root, "demo"), resamples=0))
    shown = [arm.name for arm in report.study.arms]
    assert list(cost.costs(report)) == shown
    assert len(shown) == MOST_CHARTED
    assert {"gn", "bn", "roi_pool", "longer"} <= set(shown)
    assert len(grouping.gather(root, ["demo"]).arms) == MOST_CHARTED + 5
