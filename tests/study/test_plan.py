"""A study's runs and its record: asked twice, done once."""

import json
from pathlib import Path

import pytest

from mrbench.errors import UserError
from mrbench.report.collect import load_study
from mrbench.study.ablation import find_study, recorded_source
from mrbench.study.ablation import load_study as load_file
from mrbench.study.grid import grid_study
from mrbench.study.plan import make_plan
from mrbench.study.record import read_study, study_file, write_study
from mrbench.study.study import Arm, Study


def test_every_arm_is_composed_with_every_seed_and_the_arm_wins_over_the_command_line() -> None:
    study = Study("s", (Arm("a"), Arm("b", ("optimizer.lr=0.5",))), "a", base=("optimizer.lr=0.1",), seeds=(0, 3))
    plan = make_plan(study, extra=["optimizer.lr=0.2", "optimizer.momentum=0.8"])
    got = [(r.arm, r.seed, r.config.optimizer.lr, r.config.seed, r.config.optimizer.momentum) for r in plan.runs]
    assert got == [("a", 0, 0.2, 0, 0.8), ("a", 3, 0.2, 3, 0.8), ("b", 0, 0.5, 0, 0.8), ("b", 3, 0.5, 3, 0.8)]


def test_the_same_run_of_two_arms_is_done_once(tmp_path: Path) -> None:
    study = Study("s", (Arm("default"), Arm("gn", ("model.norm=gn",)), Arm("bn", ("model.norm=bn",))), "default")
    plan = make_plan(study)
    assert len(plan.runs) == 3
    assert len(plan.unique()) == 2
    record, _ = write_study(tmp_path, plan)
    assert record.arms["default"].runs == record.arms["gn"].runs != record.arms["bn"].runs


def test_runs_of_one_seed_come_before_those_of_the_next() -> None:
    plan = make_plan(grid_study(["model.norm=gn,bn", "seed=0,1"]))
    assert [r.seed for r in plan.unique().values()] == [0, 0, 1, 1]


def test_entering_a_plan_twice_changes_nothing(tmp_path: Path) -> None:
    plan = make_plan(grid_study(["model.norm=gn,bn", "seed=0,1"], "norms"))
    write_study(tmp_path, plan)
    first = study_file(tmp_path, "norms").read_text()
    _, notes = write_study(tmp_path, make_plan(grid_study(["model.norm=gn,bn", "seed=0,1"], "norms")))
    assert study_file(tmp_path, "norms").read_text() == first
    assert not notes
    arm = json.loads(first)["arms"]["model.norm=bn"]
    assert arm["overrides"] == ["model.norm=bn"]
    assert arm["runs"] == {"0": plan.runs[2].run_id, "1": plan.runs[3].run_id}


def test_more_seeds_and_more_arms_keep_what_was_there(tmp_path: Path) -> None:
    write_study(tmp_path, make_plan(grid_study(["model.norm=gn,bn", "seed=0,1"], "norms")))
    before = read_study(tmp_path, "norms")
    record, notes = write_study(tmp_path, make_plan(grid_study(["model.norm=gn,none", "seed=2"], "norms")))
    assert not notes
    assert list(record.arms) == ["model.norm=gn", "model.norm=bn", "model.norm=none"]
    assert list(record.arms["model.norm=gn"].runs) == [0, 1, 2]
    assert record.arms["model.norm=bn"] == before.arms["model.norm=bn"]
    assert list(record.arms["model.norm=none"].runs) == [2]
    assert read_study(tmp_path, "norms") == record


def test_seeds_of_another_recipe_are_not_mixed_into_an_arm(tmp_path: Path) -> None:
    def grid(lr: str, seeds: str) -> Study:
        return grid_study(["model.norm=gn,bn", f"optimizer.lr={lr}", f"seed={seeds}"], "norms")

    write_study(tmp_path, make_plan(grid("0.1", "0,1")))
    record, notes = write_study(tmp_path, make_plan(grid("0.2", "0")))
    assert all(list(arm.runs) == [0] for arm in record.arms.values())
    assert len(notes) == 2


def test_a_missing_study_is_answered_with_the_nearest_and_a_damaged_one_with_its_file(tmp_path: Path) -> None:
    write_study(tmp_path, make_plan(grid_study(["model.norm=gn,bn"], "norms")))
    with pytest.raises(UserError, match="norms"):
        read_study(tmp_path, "norm")
    study_file(tmp_path, "norms").write_text('{"arms": {"a": 3}}')
    with pytest.raises(UserError, match=r"norms\.json is damaged"):
        read_study(tmp_path, "norms")


def test_another_study_of_the_same_name_does_not_replace_the_record(tmp_path: Path) -> None:
    def pool(folder: str, title: str, *arms: Arm) -> Study:
        return Study("pool", arms, arms[0].name, title, source=f"{folder}/pool.yaml")

    kept, _ = write_study(tmp_path, make_plan(pool("my", "Poolers", Arm("a"), Arm("b", ("seed=5",)))))
    assert kept.source == "my/pool.yaml"
    before = study_file(tmp_path, "pool").read_bytes()
    other = pool("my2", "Rates", Arm("c", ("optimizer.lr=0.1",)))
    with pytest.raises(UserError, match=r"another study, 'Poolers' of my/pool\.yaml, and my2/pool\.yaml") as refused:
        write_study(tmp_path, make_plan(other))
    assert "--name" in refused.value.hint
    assert study_file(tmp_path, "pool").read_bytes() == before
    edited = pool("my", "Poolers and rates", Arm("a"), Arm("c", ("optimizer.lr=0.1",)))
    record, _ = write_study(tmp_path, make_plan(edited))  # a file whose title was mended keeps its record
    assert list(record.arms) == ["a", "b", "c"]
    record, _ = write_study(tmp_path, make_plan(pool("my", "Poolers and rates", Arm("d", ("optimizer.lr=0.3",)))))
    assert "d" in record.arms


def test_the_record_names_a_study_of_mrbenchs_own_and_a_file_as_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same record wherever mrbench is installed, and however its own file was asked for."""
    shipped = find_study("demo")
    monkeypatch.chdir(shipped.parents[1])
    assert {recorded_source(str(path)) for path in (shipped, Path("ablations", "demo.yaml"))} == {"demo"}
    monkeypatch.chdir(tmp_path)
    for own in (Path("demo.yaml"), tmp_path / "pool.yaml"):
        own.write_text("baseline: a\narms: {a: }\nseeds: [0]\n")
        record, _ = write_study(tmp_path, make_plan(load_file(str(own))))
        assert record.source == str(own)
    assert recorded_source("the grid") == "the grid"


def test_arms_that_are_the_same_configuration_are_told(tmp_path: Path) -> None:
    arms = (Arm("default"), Arm("gn", ("model.norm=gn",)), Arm("bn", ("model.norm=bn",)), Arm("again"))
    _, notes = write_study(tmp_path, make_plan(Study("s", arms, "default", note="Small.")))
    assert notes == ["s: Arms default, gn and again are the same runs."]
    assert load_study(tmp_path, "s").notes == ("Small. Arms default, gn and again are the same runs.",)
