"""Recipes against the published numbers and the public configuration files that they stand for."""

from collections import Counter
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.config.compose import groups
from mrbench.config.composer import compose
from mrbench.config.recipes import Change, ParameterCount, Recipe, changes, find_recipe, recipes
from mrbench.config.schema import RunConfig
from mrbench.data.augmentation import plan_test
from mrbench.report import published
from mrbench.report.architectures import generated, replaced, rows_of_networks
from mrbench.report.recipes import EXCLUDED, page

ALL = {recipe.name: recipe for recipe in recipes()}
COMPOSED: dict[str, RunConfig] = {}


def composed(name: str) -> RunConfig:
    if name not in COMPOSED:
        COMPOSED[name] = compose([f"recipe={name}"])
    return COMPOSED[name]


def everything() -> dict[str, RunConfig]:
    return {name: composed(name) for name in ALL}


def test_every_published_training_has_one_recipe() -> None:
    named = Counter(result.row for recipe in ALL.values() for result in recipe.published)
    assert named == Counter(row for row in published.accuracy() if row not in EXCLUDED)
    assert set(EXCLUDED) < set(published.accuracy())


@pytest.mark.parametrize("name", ALL)
def test_a_recipe_says_what_it_is_and_runs_by_the_command_that_it_names(name: str) -> None:
    recipe, config = ALL[name], composed(name)
    for result in recipe.published:
        row = published.lookup(result.row)
        assert result.metrics == {key: value for key, value in row.metrics.items() if key.endswith("/AP")}
    assert recipe.published or recipe.field("Reached") or config.model.rpn.mode == "only"
    assert recipe.summary
    assert not recipe.summary.endswith(".")
    assert recipe.field("Source") or not recipe.published
    assert recipe.commands[-1].startswith(f"mrbench train recipe={name} ")
    assert recipe.parameters
    assert recipe.parent is None or recipe.parent in ALL


@pytest.mark.parametrize("name", [n for n in ALL if composed(n).model.rpn.mode == "precomputed"])
def test_a_second_stage_names_a_first_stage_with_its_body_and_data(name: str) -> None:
    config = composed(name)
    first = composed(Path(str(config.data.train.proposals)).stem)
    assert config.data.val.proposals == config.data.train.proposals
    assert first.model.rpn.mode == "only"
    assert first.model.backbone == config.model.backbone
    assert first.data.name == config.data.name
    assert first.model.rpn.post_nms_test == config.model.rpn.post_nms_train
    assert ALL[name].commands[1].endswith(f"-o {config.data.train.proposals}")


def test_a_recipe_that_starts_from_published_weights_is_not_told_to_be_random() -> None:
    for name, recipe in ALL.items():
        config = composed(name)
        start = config.model.weights or config.model.backbone.weights
        assert (start is None) == (recipe.field("Weights") in ("random", "")), name
        if start not in (None, "imagenet"):
            assert str(start) in recipe.field("Weights") or "not public" in recipe.field("Weights"), name


@pytest.mark.parametrize(
    "name,images,iterations,milestones,rate",
    [
        # Detectron2: configs/COCO-InstanceSegmentation, configs/Misc, configs/Cityscapes
        ("mask_rcnn_r50_fpn_1x", 16, 90000, [60000, 80000], 0.02),
        ("mask_rcnn_r101_c4_3x", 16, 270000, [210000, 250000], 0.02),
        ("mask_rcnn_r50_fpn_9x_syncbn_scratch", 64, 202500, [187500, 197500], 0.08),
        ("mask_rcnn_r50_fpn_cityscapes", 8, 24000, [18000], 0.01),
        # Detectron2: configs/new_baselines; each as its public file computes it from the 100-epoch one
        ("lsj_r50_fpn_100ep", 64, 184375, [163889, 177546], 0.1),
        ("lsj_r101_fpn_200ep", 64, 184375 * 2, [163889 * 2, 177546 * 2], 0.1),
        ("lsj_regnety_4gf_fpn_400ep", 64, 184375 * 4, [163889 * 4, 177546 * 4], 0.1),
        # He et al. 2017, sections 3.1 and 5, appendices A and B
        ("paper_r50_fpn", 16, 160000, [120000], 0.02),
        ("paper_x101_fpn", 8, 160000, [120000], 0.01),
        ("paper_x101_fpn_180k_e2e", 8, 180000, [120000, 160000], 0.01),
        ("paper_x152_fpn_nonlocal_tta", 8, 260000, [200000, 240000], 0.01),
        ("paper_keypoint_r50_fpn", 16, 90000, [60000, 80000], 0.02),
        ("paper_keypoint_r101_fpn_130k", 16, 130000, [100000, 120000], 0.02),
        ("paper_r50_fpn_cityscapes", 8, 24000, [18000], 0.01),
        ("paper_r50_fpn_cityscapes_coco", 8, 4000, [3000], 0.01),
        # tensorpack, examples/FasterRCNN/config.py and README.md of 2018
        ("tensorpack_r101_c4", 8, 360000, [240000, 320000], 0.01),
        ("tensorpack_faster_rcnn_r50_c4_quick", 8, 280000, [150000, 230000], 0.01),
    ],
)
def test_schedules_are_those_of_the_source(
    name: str, images: int, iterations: int, milestones: list[int], rate: float
) -> None:
    schedule = composed(name).schedule
    assert (schedule.images_per_batch, schedule.iterations, schedule.milestones) == (images, iterations, milestones)
    assert (schedule.gamma, schedule.decay) == (0.1, "steps")
    assert composed(name).optimizer.lr == rate


def test_half_of_the_new_baselines_schedule_is_rounded_as_in_the_public_file() -> None:
    half = compose(["recipe=lsj_r50_fpn_100ep", "schedule=lsj_50ep"]).schedule
    assert (half.iterations, half.milestones) == (184375 // 2, [163889 // 2, 177546 // 2])


def test_the_new_baselines_are_those_of_detectron2() -> None:
    # configs/new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py and configs/common/models/mask_rcnn_fpn.py
    config = composed("lsj_r50_fpn_100ep")
    model, augmentation = config.model, config.augmentation
    assert [part.norm for part in (model.backbone, model.neck, model.box_head, model.mask_head)] == ["sync_bn"] * 4
    assert (model.rpn.convs, model.box_head.convs, model.box_head.fcs) == (2, 4, 1)
    assert (model.backbone.freeze_at, model.backbone.weights, model.backbone.stride_in_1x1) == (0, None, True)
    assert (augmentation.resize, augmentation.jitter, augmentation.jitter_size) == ("jitter", [0.1, 2.0], 1024)
    assert (config.optimizer.weight_decay, config.optimizer.weight_decay_norm) == (4e-5, 0.0)
    assert (config.schedule.warmup_iterations, config.schedule.warmup_factor) == (500, 0.067)
    assert config.precision.kind == "fp16"


def test_the_new_baselines_are_tested_as_detectron2_tests() -> None:
    # configs/common/data/coco.py: ResizeShortestEdge(800, max_size=1333); hand-worked for pictures of COCO's sizes
    for name in (name for name in ALL if name.startswith("lsj_")):
        augmentation = composed(name).augmentation
        assert plan_test(augmentation, 480, 640).size == (800, 1067), name
        assert plan_test(augmentation, 640, 240).size == (1333, 500), name


def test_the_papers_recipes_have_what_its_code_does_unlike_detectron2() -> None:
    # He et al. 2017, section 3.1 and appendix B; Detectron, lib/core/config.py
    model = composed("paper_r50_fpn").model
    assert model.rpn.border == 0
    assert model.rpn.smooth_l1_beta == pytest.approx(1 / 9)
    assert (model.roi.smooth_l1_beta, model.roi.samples) == (1.0, 512)
    assert (model.pooler.aligned, model.pooler.sampling_ratio) == (False, 2)
    assert (model.rpn.post_nms_test, model.inference.nms_threshold) == (1000, 0.3)
    c4 = composed("paper_r101_c4").model
    assert (c4.rpn.post_nms_test, c4.roi.samples, c4.backbone.depth) == (300, 64, 101)
    assert composed("paper_x101_fpn_180k").model.inference.nms_threshold == 0.5
    tta = composed("paper_x152_fpn_nonlocal_tta").evaluation.tta
    assert (tta.enabled, tta.flip, tta.short_edge) == (True, True, list(range(400, 1201, 100)))
    # Detectron, TEST.BBOX_VOTE.VOTE_TH and TEST.BBOX_AUG.MAX_SIZE of its X-152
    assert (tta.vote, tta.max_size) == (0.9, 2000)


def test_only_the_papers_cityscapes_takes_coco_classes_by_name() -> None:
    # He et al. 2017, appendix A; configs/Cityscapes/mask_rcnn_R_50_FPN.yaml says that it does not
    assert composed("paper_r50_fpn_cityscapes_coco").model.weights_classes == "by_name"
    assert composed("mask_rcnn_r50_fpn_cityscapes").model.weights_classes == "same"


@pytest.mark.parametrize(
    "row,parent,keys",
    [
        ("paper/t2b/softmax", "paper/t2a/r50_c4", {"model.mask_head.loss"}),
        ("paper/text/class_agnostic", "paper/t2a/r50_c4", {"model.mask_head.class_agnostic"}),
        ("paper/t2c/roipool_max", "paper/t2a/r50_c4", {"model.pooler.kind"}),
        ("paper/t2c/roialign_max", "paper/t2a/r50_c4", {"model.pooler.aggregate"}),
        ("paper/t2e/mlp_3fc", "paper/t2e/fcn", {"model.mask_head.kind", "model.mask_head.fcs"}),
        ("lsj/table/gn", "lsj/table/baseline",
         {"model.norm", *(f"model.{part}.norm" for part in ("backbone", "neck", "box_head", "mask_head"))}),
        ("lsj/table/weight_decay", "lsj/table/baseline", {"optimizer.weight_decay"}),
        ("lsj/table/box_head_2fc", "lsj/table/baseline", {"model.box_head.convs", "model.box_head.fcs"}),
        ("dle/r50_fpn_amp", "dle/r50_fpn_tf32", {"precision.kind"}),
    ],
)  # fmt: skip
def test_an_ablation_changes_what_its_row_says_and_nothing_else(row: str, parent: str, keys: set[str]) -> None:
    by_row = {result.row: name for name, recipe in ALL.items() for result in recipe.published}
    found = changes(composed(by_row[parent]), composed(by_row[row]))
    assert {change.key for change in found} == keys


def test_a_header_is_read_field_by_field() -> None:
    text = (
        "# @package _global_\n# What it is\n# Published: a/b: box 40.1, mask 36.0\n# Published: a/c: keypoint 64.5\n"
        "# Source: a paper,\n#   table 3\n# Parameters: 1,234 (1,000 trainable) with 1 class\n"
        "#   mrbench train recipe=x\ndefaults:\n  - parent\n  - override /model: m\n"
    )
    recipe = Recipe("x", text)
    assert (recipe.summary, recipe.family, recipe.field("Source")) == ("What it is", "a paper", "a paper, table 3")
    assert recipe.metrics == {"box/AP": 40.1, "mask/AP": 36.0, "keypoint/AP": 64.5}
    assert [result.row for result in recipe.published] == ["a/b", "a/c"]
    assert recipe.parameters == ParameterCount(1234, 1000, 1)
    assert (recipe.parent, recipe.commands) == ("parent", ["mrbench train recipe=x"])
    with pytest.raises(ValueError, match="recipe x"):
        _ = Recipe("x", "# Published: a row without numbers\n").published


def test_changes_are_the_keys_whose_values_differ() -> None:
    found = changes(compose(), compose(["schedule.decay=steps", "schedule.milestones=[5]", "model.backbone.depth=18"]))
    assert found == [
        Change("model.backbone.depth", 10, 18),
        Change("schedule.decay", "cosine", "steps"),
        Change("schedule.milestones", [], [5]),
    ]


def test_show_tells_parent_changes_and_children() -> None:
    shown = CliRunner().invoke(app, ["recipes", "show", "paper_r50_c4_softmax"]).stdout
    assert "changes in paper_r50_c4:\n  model.mask_head.loss: sigmoid -> softmax\n" in shown
    assert "iterations: 160000" not in shown
    full = CliRunner().invoke(app, ["recipes", "show", "paper_r50_c4", "--full"]).stdout
    assert "changed by:\n  paper_r101_c4\n" in full
    assert "iterations: 160000" in full


def test_list_fits_80_columns_and_narrows_to_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(app, ["recipes", "list"]).stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert {line.split()[0] for line in lines if line.strip()} >= set(ALL)
    narrowed = CliRunner().invoke(app, ["recipes", "list", "keypoint", "3x"]).stdout
    assert "keypoint_rcnn_r50_fpn_3x" in narrowed
    assert "65.5" in narrowed
    assert "keypoint_rcnn_r50_fpn_1x" not in narrowed


def test_docs_have_the_table_that_the_command_writes() -> None:
    shipped = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text()
    assert shipped == page(list(ALL.values()), everything()), "run: mrbench recipes table -o docs/recipes.md"


def test_docs_have_the_axes_that_the_command_writes() -> None:
    shipped = (Path(__file__).parents[2] / "docs" / "architectures.md").read_text()
    models = {name: config.model for name, config in everything().items()}
    part = generated(list(ALL.values()), models)
    assert replaced(shipped, part) == shipped, "run: mrbench recipes axes -o docs/architectures.md"


def test_every_published_row_stands_at_the_network_that_its_source_names() -> None:
    models = {name: config.model for name, config in everything().items()}
    found = rows_of_networks(list(ALL.values()), models)
    placed = Counter(row for rows in found.values() for row in rows)
    assert placed == Counter(row for row in published.accuracy() if row not in EXCLUDED)
    for network, rows in found.items():
        body = network.body.replace("-64x4d", "").replace("152-32x8d", "152").partition(",")[0]
        added = "-NL" if "non-local" in network.body else ""
        for row in rows:
            assert published.lookup(row).architecture == f"{body}-{network.neck}{added}", row


def test_every_group_is_used_by_a_recipe_or_is_a_choice_of_its_own() -> None:
    used = {word for recipe in ALL.values() for word in recipe.text.split()}
    own = {"flip", "none", "shapes", "lsj_50ep", "2x", "bf16", "fp32"}
    spare = {name for group in ("schedule", "optimizer") for name in groups()[group]} - used - own
    assert not spare
    assert find_recipe("nuclei_small").parent is None
