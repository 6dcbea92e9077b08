"""The studies of ablations/: what they ask, and that each arm is what its published row was trained with."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.config.composer import Composer, compose
from mrbench.config.identity import run_id
from mrbench.config.paths import ablations_dir
from mrbench.config.recipes import changes, recipes
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError
from mrbench.study.ablation import load_study, published_rows, study_names
from mrbench.study.plan import make_plan
from mrbench.study.study import Study

OF_ONE_SCALE = ("demo", "nuclei_scale_jitter")  # made for a machine without a GPU, and for data of its own
AT_SCALES = [(name, scale) for name in study_names() if name not in OF_ONE_SCALE for scale in ("small", "full")]


@pytest.fixture(scope="module")
def composer() -> Composer:
    return Composer()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Annotations of an unnamed data set, which a run's identity reads."""
    annotations = tmp_path_factory.mktemp("people") / "annotations"
    annotations.mkdir()
    for split in ("train", "val"):
        (annotations / f"person_keypoints_{split}.json").write_text("{}")
    return annotations.parent


def composed(study: Study, composer: Composer, *more: str) -> dict[str, RunConfig]:
    return {arm.name: composer.compose((*study.base, *more, *arm.overrides)) for arm in study.arms}


@pytest.mark.parametrize("name", OF_ONE_SCALE)
def test_a_study_of_one_scale_has_no_two_arms_that_are_the_same_run(name: str, composer: Composer) -> None:
    study = load_study(name)
    assert len({run_id(config) for config in composed(study, composer).values()}) == len(study.arms)
    assert study.at_scale() == study


@pytest.mark.parametrize("name,scale", AT_SCALES)
def test_every_study_has_both_scales_and_no_two_arms_are_the_same_run(
    name: str, scale: str, composer: Composer, folder: Path
) -> None:
    study = load_study(name).at_scale(scale)
    configs = composed(study, composer, f"data.root={folder}")
    assert len({run_id(config) for config in configs.values()}) == len(study.arms) >= 2
    assert study.title
    assert study.question.endswith("?")
    assert study.note
    if scale == "small":
        assert {config.data.kind for config in configs.values()} <= {"shapes", "coco_folder"}
        assert max(config.schedule.iterations for config in configs.values()) <= 1800
        assert all(config.model.name == "mask_rcnn_small" for config in configs.values())
    else:
        assert any(arm.published for arm in study.arms)


def test_an_arm_that_names_a_published_row_is_the_recipe_of_that_row(composer: Composer) -> None:
    recipe_of = {result.row: recipe.name for recipe in recipes() for result in recipe.published}
    rows = 0
    for name, scale in AT_SCALES:
        if scale == "full":
            study = load_study(name).at_scale(scale)
            configs = composed(study, composer)
            for arm in study.arms:
                if arm.published:
                    recipe = composer.compose([f"recipe={recipe_of[arm.published]}"])
                    different = changes(recipe, configs[arm.name])
                    assert not different, f"{name}: {arm.name}"
                    assert run_id(recipe) == run_id(configs[arm.name])
                    rows += 1
    assert rows > 50


def test_every_arm_of_the_papers_tables_is_there() -> None:
    ids = {arm.published for name in study_names() for arm in load_study(name).arms if arm.published}
    of_tables = ("paper/t2", "paper/t3", "paper/t5", "paper/t6", "paper/t8", "paper/text", "lsj/table", "zoo/lsj/r50")
    assert {row for row in published_rows() if row.startswith(of_tables)} <= ids


def test_a_plan_of_a_shipped_study_is_what_hydra_composes() -> None:
    plan = make_plan(load_study("schedule").at_scale("full"), ["runtime.devices=8"], seeds=[3])
    assert [run.seed for run in plan.runs] == [3] * 4
    assert all(run.config == compose(run.overrides) for run in plan.runs[:2])


def test_the_page_of_all_studies_is_current() -> None:
    done = CliRunner().invoke(app, ["studies", "table"])
    page = ablations_dir().parent / "docs" / "ablations.md"
    assert page.read_text() == done.output, "mrbench studies table -o docs/ablations.md writes it"
    for name in study_names():
        assert f"## {name}\n" in done.output
    assert "lsj/table/gn: box 43.5, mask 39.8" in done.output


def test_the_list_names_every_study() -> None:
    listed = CliRunner().invoke(app, ["studies", "list"], env={"COLUMNS": "400"}).output
    assert [line.split()[0] for line in listed.splitlines()[1:]] == study_names()


def test_a_study_is_shown_with_its_arms_scales_seeds_and_published_rows() -> None:
    shown = CliRunner().invoke(app, ["studies", "show", "schedule"]).stdout
    study = load_study("schedule")
    for arm in study.arms:
        assert f"\n  {arm.name}{' (baseline)' * (arm.name == study.baseline)}\n" in shown
    assert {f"--scale {scale}: " in shown for scale in ("small", "full")} == {True}
    assert f"seeds: {', '.join(map(str, study.seeds))};" in shown
    assert "published zoo/lsj/r50_100ep: box 44.6, mask 40.3" in shown
    missing = CliRunner().invoke(app, ["studies", "show", "schedul"])
    assert isinstance(missing.exception, UserError)
    assert "schedule" in missing.exception.hint
