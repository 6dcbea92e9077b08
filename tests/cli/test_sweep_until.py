"""A study that grows: seeds go to the arms that need them, the design stays what it was, the report agrees."""

import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.cli.sweep_until import Design, check_options, sweep_until
from mrbench.errors import UserError
from mrbench.report.build import build
from mrbench.report.caveats import interval_notes
from mrbench.report.collect import load_study
from mrbench.study.grid import grid_study
from mrbench.study.plan import Plan, make_plan
from mrbench.study.record import read_study, write_study
from mrbench.study.study import Study

EFFECT = {"model.norm=gn": 0.0, "model.norm=frozen_bn": -5.0, "model.norm=bn": 0.0}


@pytest.fixture
def study() -> Study:
    """Three arms, three seeds; one arm is 5 points worse, the other is the baseline by another name."""
    return grid_study([f"model.norm={','.join(arm.partition('=')[2] for arm in EFFECT)}", "seed=0,1,2"], "grow")


class Lab:
    """Brings plans to their end without training: a run's score is a function of its arm and seed."""

    def __init__(self, root: Path, failing: tuple[str, int] | None = None) -> None:
        self.root = root
        self.failing = failing
        self.done: dict[str, list[int]] = {}

    def start(self, plan: Plan, until: dict[str, int]) -> int:
        write_study(self.root, plan, until)
        for run in plan.runs:
            folder = self.root / "runs" / run.run_id
            if folder.is_dir():
                continue
            folder.mkdir(parents=True)
            self.done.setdefault(run.arm, []).append(run.seed)
            failed = self.failing == (run.arm, run.seed)
            (folder / "status.json").write_text(json.dumps({"state": "failed" if failed else "completed"}))
            noise = np.random.default_rng([run.seed, list(EFFECT).index(run.arm)]).normal(0, 0.3)
            score = 30 + EFFECT[run.arm] + noise
            if not failed:
                metrics = {"box/AP": score, "mask/AP": score - 2}
                (folder / "evaluation.json").write_text(json.dumps({"metrics": metrics, "images": 100}))
        return int(self.failing is not None)


def test_seeds_are_added_to_undecided_arms_and_the_baseline_alone(study: Study, tmp_path: Path) -> None:
    lab, console = Lab(tmp_path), Console(record=True, width=100)
    assert sweep_until(tmp_path, study, (), Design(study.seeds, 5), None, lab.start, console) == 0
    taken = len(lab.done["model.norm=frozen_bn"])
    assert 3 <= taken < 5
    assert lab.done["model.norm=gn"] == list(range(5))
    assert lab.done["model.norm=bn"] == list(range(5))
    told = console.export_text()
    assert f"decided: model.norm=frozen_bn is worse, with {taken} seeds" in told
    assert "not decided with 5 seeds: model.norm=bn" in told


def test_the_report_says_what_the_sweep_decided(study: Study, tmp_path: Path) -> None:
    sweep_until(tmp_path, study, (), Design(study.seeds, 5), None, Lab(tmp_path).start, Console(quiet=True))
    report = build(load_study(tmp_path, "grow"), resamples=0)
    words = {arm: found.decision for arm, found in report.answers[0].differences.items()}
    assert words == {"model.norm=frozen_bn": "worse", "model.norm=bn": "inside the noise"}
    assert "added from 3 to at most 5" in " ".join(interval_notes(report))


def test_the_same_command_goes_on_and_another_design_is_refused(study: Study, tmp_path: Path) -> None:
    console = Console(quiet=True)
    sweep_until(tmp_path, study, (), Design(study.seeds, 5), None, Lab(tmp_path).start, console)
    again = Lab(tmp_path)
    sweep_until(tmp_path, study, (), Design(study.seeds, 5), None, again.start, console)
    assert again.done == {}
    assert read_study(tmp_path, "grow").until == {"first": 3, "most": 5}
    with pytest.raises(UserError) as error:
        sweep_until(tmp_path, study, (), Design(study.seeds, 9), None, again.start, console)
    assert "--max-seeds 5" in error.value.what


def test_an_arm_with_a_failed_run_gets_no_more_seeds(study: Study, tmp_path: Path) -> None:
    lab = Lab(tmp_path, failing=("model.norm=bn", 1))
    assert sweep_until(tmp_path, study, (), Design(study.seeds, 4), None, lab.start, Console(quiet=True)) == 1
    assert lab.done["model.norm=bn"] == [0, 1, 2]


def test_options_that_make_no_sense_are_one_message(study: Study, tmp_path: Path) -> None:
    assert check_options(True, 8, {"--arm": False}) == 8
    for arguments in ((True, None, {}), (False, 8, {}), (True, 8, {"--status": True})):
        with pytest.raises(UserError):
            check_options(*arguments)  # type: ignore[arg-type]
    with pytest.raises(UserError):
        sweep_until(tmp_path, study, (), Design(study.seeds, 2), None, Lab(tmp_path).start, Console(quiet=True))


def test_a_dry_run_shows_the_first_look_and_how_many_runs_there_are_at_most(study: Study, tmp_path: Path) -> None:
    """Three arms: 3 x 3 runs before the first look, 3 x 5 with all seeds."""
    grid = [f"model.norm={','.join(arm.partition('=')[2] for arm in EFFECT)}", "seed=0,1,2", "--name", "grow"]
    command = ["sweep", *grid, "--until-decided", "--dry-run", "--root", str(tmp_path), "--max-seeds"]
    text = CliRunner().invoke(app, [*command, "5"]).output
    assert "9 runs, 0 complete" in text
    assert "with 3 seeds an arm" in text
    assert "5 seeds: 15 runs at most." in text
    assert list(tmp_path.iterdir()) == []
    sweep_until(tmp_path, study, (), Design(study.seeds, 5), None, Lab(tmp_path).start, Console(quiet=True))
    told = json.loads(CliRunner().invoke(app, [*command, "5", "--json"]).stdout)
    assert (len(told["runs"]), told["runs_at_most"], told["seeds_at_most"]) == (9, 15, 5)
    assert {run["state"] for run in told["runs"]} == {"completed"}
    refused = CliRunner().invoke(app, [*command, "9"])
    assert refused.exit_code != 0
    assert "--max-seeds 5" in str(refused.exception)


def test_a_name_on_disk_does_not_say_how_a_study_is_to_grow(study: Study, tmp_path: Path) -> None:
    Lab(tmp_path).start(make_plan(study), {"first": 3, "most": 5})
    for options in (["--seeds", "0-4"], ["--until-decided", "--max-seeds", "5"]):
        refused = CliRunner().invoke(app, ["sweep", "grow", *options, "--dry-run", "--root", str(tmp_path)])
        assert isinstance(refused.exception, UserError)
        assert options[0] in refused.exception.what
