"""Composition: what comes out, and what a mistake is answered with."""

from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from mrbench.config.compose import compose_as_written, groups, keys, load, to_yaml
from mrbench.config.composer import compose
from mrbench.errors import UserError


def test_the_default_is_a_small_model_on_embedded_data() -> None:
    config = compose()
    assert (config.model.name, config.data.kind) == ("mask_rcnn_small", "shapes")
    assert config.model.box_head.norm == config.model.neck.norm == "gn"


def test_overrides_reach_values_groups_and_what_refers_to_them() -> None:
    config = compose(["model.norm=sync_bn", "schedule=1x", "optimizer.lr=1e-3", "model.rpn.anchor_ratios=[1.0,2.0]"])
    assert config.model.backbone.norm == config.model.mask_head.norm == "sync_bn"
    assert config.schedule.milestones == [60000, 80000]
    assert config.optimizer.lr == 1e-3
    assert config.model.rpn.anchor_ratios == [1.0, 2.0]


def test_detectron2_1x_has_its_published_values() -> None:
    # detectron2 configs/Base-RCNN-FPN.yaml and configs/COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml
    config = compose(["recipe=mask_rcnn_r50_fpn_1x"])
    schedule, optimizer = config.schedule, config.optimizer
    assert (schedule.images_per_batch, schedule.iterations, schedule.milestones) == (16, 90000, [60000, 80000])
    assert (schedule.warmup_iterations, schedule.warmup_factor) == (1000, 0.001)
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (0.02, 0.9, 1e-4)
    assert sorted(config.augmentation.short_edge) == [640, 672, 704, 736, 768, 800]
    assert (config.model.rpn.pre_nms_train, config.model.rpn.post_nms_train) == (2000, 1000)


@pytest.mark.parametrize("group,choice", [(g, c) for g, cs in groups().items() if g != "recipe" for c in cs])
def test_every_choice_of_every_group_composes_and_is_read_back_equal(group: str, choice: str, tmp_path: Path) -> None:
    config = compose([f"{group}={choice}"])
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load(path) == config


@pytest.mark.parametrize(
    "override,says",
    [
        ("model.nrom=gn", "model.norm"),
        ("weight_decay=1", "optimizer.weight_decay"),
        ("model=mask_rcn_small", "mask_rcnn_small"),
        ("recipe=mask_rcnn_r50_fpn_1xx", "mask_rcnn_r50_fpn_1x"),
        ("model.norm=gm", "sync_bn"),
        ("model.backbone.depth=49", "50"),
        ("optimizer.lr=fast", "optimizer.lr=fast"),
        ("schedule.iterations=1.5", "schedule.iterations=1.5"),
        ("schedule.warmup_factor=2", "schedule.warmup_factor"),
        ("schedule.images_per_batch=0", "schedule.images_per_batch"),
        ("model.rpn.anchor_sizes=[8]", "4 pyramid levels"),
        ("augmentation.jitter=[2,1]", "augmentation.jitter"),
        ("augmentation.jitter=[0.5]", "augmentation.jitter"),
        ("augmentation.short_edge=[]", "augmentation.short_edge"),
        ("augmentation.short_edge_sampling=range", "augmentation.short_edge"),
        ("augmentation.colour_jitter=[0.1]", "augmentation.colour_jitter"),
        ("augmentation.colour_jitter=[0,0,0,0.6]", "augmentation.colour_jitter"),
        ("augmentation.copy_paste=1.1", "augmentation.copy_paste"),
        ("augmentation.short_edge=[0]", "augmentation.short_edge"),
        ("runtime.devices=3", "runtime.devices=3"),
        ("model.pooler.sampling_ratio=0", "sampling_ratio"),
        ("seed=0,1", "mrbench sweep"),
        ("+new=1", "fixed"),
        ("rubbish", "key=value"),
        ("data.shapes.instances=[1,2", "key=value"),
    ],
)
def test_a_mistake_is_answered_with_what_was_probably_meant(override: str, says: str) -> None:
    with pytest.raises(UserError) as caught:
        compose([override])
    assert says in str(caught.value)


def test_a_user_folder_adds_choices_and_overrides_ours(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("kind: sgd\nlr: 0.123\n")
    assert compose(["optimizer=mine"], tmp_path).optimizer.lr == 0.123
    with pytest.raises(UserError, match="no optimizer of that name"):
        compose(["optimizer=mine"])
    with pytest.raises(UserError, match="not a folder"):
        compose([], tmp_path / "missing")


def test_a_user_file_with_a_wrong_key_names_it(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("kind: sgd\nrate: 0.123\n")
    with pytest.raises(UserError, match="rate"):
        compose(["optimizer=mine"], tmp_path)


def test_a_user_file_that_is_not_yaml_is_named(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("kind: sgd\nrate 0.123\n")
    with pytest.raises(UserError, match=r"not YAML.*mine\.yaml"):
        compose(["optimizer=mine"], tmp_path)


def test_keys_are_dotted_and_reach_every_leaf() -> None:
    assert {"seed", "model.rpn.convs", "data.shapes.cue", "runtime.num_workers"} <= set(keys())


@pytest.mark.parametrize(
    "root",
    ["1e5", "0123", "-1.5", "1_000", "null", "yes", "2020-01-01", ".inf", "1:30", "a: b", "é ü", "", "$x"],
)
def test_a_configuration_is_written_as_omegaconf_writes_it_and_read_back(root: str, tmp_path: Path) -> None:
    config = replace(compose(["recipe=mask_rcnn_r50_fpn_1x", "optimizer.weight_decay=1e-12"]))
    config = replace(config, data=replace(config.data, root=root))
    text = to_yaml(config)
    assert text == OmegaConf.to_yaml(OmegaConf.structured(config))
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    assert load(path) == config


@pytest.mark.parametrize(
    "overrides,says,hint",
    [
        (["schedule=1x", "schedule.iterations=70000"], "does not reach", "schedule.milestones=[60000]"),
        (["schedule=1x", "schedule.iterations=60000"], "does not reach", "schedule.milestones=[]"),
        (["schedule=small", "schedule.milestones=[600]"], "no effect with schedule.decay=cosine", "decay=steps"),
    ],
)
def test_milestones_that_change_nothing_are_refused_but_read_from_disk(
    overrides: list[str], says: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=says) as refused:
        compose(overrides)
    assert hint in refused.value.hint
    old = compose_as_written(overrides)
    (tmp_path / "config.yaml").write_text(to_yaml(old))
    assert load(tmp_path / "config.yaml") == old


def test_allowed_words_are_told_once() -> None:
    with pytest.raises(UserError, match=r"model\.norm=batch is not one of none, frozen_bn, bn") as refused:
        compose(["model.norm=batch"])
    assert refused.value.hint == ""
    with pytest.raises(UserError) as refused:
        compose(["model.norm=frozenbn"])
    assert refused.value.hint == "Did you mean frozen_bn?"
