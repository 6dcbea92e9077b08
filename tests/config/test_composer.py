"""Composing many configurations at once, against Hydra composing each of them."""

from pathlib import Path

import pytest

from mrbench.config import composer
from mrbench.config.compose import compose_by_hydra, parse
from mrbench.config.composer import Composer, compose
from mrbench.errors import UserError

COMBINATIONS = [
    [],
    ["model.neck.norm=gn", "model.norm=bn", "model.norm=none"],
    ["model.neck.norm=${model.norm}", "model.norm=sync_bn"],
    ["model.box_head.norm=${model.mask_head.norm}", "model.mask_head.norm=bn"],
    ["model.rpn.samples=${model.roi.samples}", "model.roi.samples=16"],
    ["optimizer.lr=1", "optimizer.weight_decay=4e-5", "optimizer.momentum=0.5"],
    ["optimizer.clip_norm=null", "optimizer.ema=0.999"],
    ["data.name=null", "data.root=/data/coco", "data.keep_empty=true"],
    ["data.name='null'", "model.name=1x"],
    ["data.name=2017", "model.name=12", 'data.root="a b"'],
    ["augmentation.short_edge=[640,800]", "augmentation.jitter=[1,2]", "augmentation.colour_jitter=[0.4,0,0,0.1]"],
    ["schedule.decay=steps", "schedule.milestones=[10,20]"],
    ["schedule.milestones=[]", "evaluation.tta.short_edge=[400,500]", "data.train_more=[]"],
    ["schedule.iterations=1000", "schedule.images_per_batch=8", "schedule.scale_to_batch=16"],
    ["model.box_head.cascade=[0.5,0.6,0.7]", "model.box_head.class_agnostic=true"],
    ["recipe=mask_rcnn_r50_fpn_1x", "model.norm=gn", "seed=7"],
    ["schedule=3x", "recipe=mask_rcnn_r50_fpn_1x", "recipe=lsj_r50_fpn_400ep", "schedule=1x"],
    ["recipe=lsj_r50_fpn_144ep", "schedule=lsj_100ep", "precision=fp16_gradients", "model.norm=gn"],
    ["model.norm=gn", "recipe=lsj_r50_fpn_144ep", "schedule.milestones=[10,20]", "schedule=lsj_100ep"],
    ["recipe=paper_r50_c4", "data.val.proposals=other.npz"],
    ["recipe=nuclei_small", "data.name=bbbc038", "model.norm=${model.backbone.stem}", "model.norm=bn"],
    ["model={norm: bn}", "model.neck.norm=gn"],  # beyond the short way, as are the next
    ["optimizer.lr_factors={backbone: 0.1}", "optimizer.lr=0.3"],
    ["data.train_more=[{annotations: a.json, images: b}]", "data=coco_2017"],
    ["model.name=r50-${model.norm}", "model.norm=bn"],
    ["model.name=\\${model.norm}"],
    ["optimizer.lr=-0.0"],
    ["schedule.warmup_iterations=5", "schedule.iterations=${schedule.images_per_batch}"],
]


def test_equals_hydra_whatever_is_overridden() -> None:
    many = Composer()
    hydras = [repr(compose_by_hydra(overrides)) for overrides in COMBINATIONS]
    for _ in range(2):  # the second time from what the first has left behind
        for overrides, wanted in zip(COMBINATIONS, hydras, strict=True):
            assert repr(many.compose(overrides)) == wanted, overrides


WRONG = [
    ["model.nrom=bn"],
    ["recipe=nothing", "model.norm=bn"],
    ["model.norm=bm"],
    ["optimizer.lr=fast"],
    ["optimizer.momentum=2"],
    ["schedule.milestones=[a]"],
    ["schedule.milestones=[20,10]"],
    ["schedule.milestones=[10,20]"],
    ["model.norm=${model.nrom}"],
    ["model.norm=${model.neck.norm}"],  # which refers to model.norm
    ["augmentation.jitter=${augmentation.short_edge}", "augmentation.short_edge=[3,2]"],
    ["model.pooler.kind=roi_align", "model.pooler.method=separable", "model.pooler.sampling_ratio=0"],
]


def test_a_mistake_is_told_as_hydra_alone_would_have_it_told() -> None:
    many = Composer()
    for overrides in WRONG:
        with pytest.raises(UserError) as wanted:
            compose_by_hydra(overrides)
        with pytest.raises(UserError) as caught:
            many.compose(overrides)
        assert (caught.value.what, caught.value.hint) == (wanted.value.what, wanted.value.hint), overrides
    assert many.compose(["model.norm=bn"]) == compose_by_hydra(["model.norm=bn"])


def test_numbers_are_read_as_hydras_grammar_reads_them() -> None:
    numbers = "0 -0 7 -12 007 1_000 +3 1.5 -0.25 1. .5 4e-5 1e5 2.5e3 1e-05 nan inf 1e 0x1f 3a 12.0 00.5"
    for text in numbers.split():
        simple = composer._SIMPLE.fullmatch(f"seed={text}")
        if simple:
            value = int(simple["whole"]) if simple["whole"] else float(simple["float"])
            wanted = parse([f"seed={text}"])[0].value()
            assert (type(value), value) == (type(wanted), wanted), text


def test_values_alone_never_ask_hydra_again(monkeypatch: pytest.MonkeyPatch) -> None:
    many = Composer()
    many.compose(["recipe=mask_rcnn_r50_fpn_1x"])
    monkeypatch.setattr(composer, "compose_node", None)
    monkeypatch.setattr(composer, "compose_by_hydra", None)
    for seed in range(3):
        overrides = ["recipe=mask_rcnn_r50_fpn_1x", "model.norm=bn", "schedule.milestones=[1,2]", f"seed={seed}"]
        assert many.compose(overrides).seed == seed


def test_configurations_share_nothing() -> None:
    many = Composer()
    first = many.compose(["schedule.decay=steps", "schedule.milestones=[1,2]"])
    first.schedule.milestones.append(3)
    first.model.norm = "none"
    again = many.compose(["schedule.decay=steps", "schedule.milestones=[1,2]"])
    assert again.schedule.milestones == [1, 2]
    assert again.model.norm == "gn"


def test_groups_of_the_users_own_are_composed_with(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_text("kind: sgd\nlr: 0.7\n")
    overrides = ["optimizer=mine", "seed=1"]
    assert (
        Composer(tmp_path).compose(overrides) == compose_by_hydra(overrides, tmp_path) == compose(overrides, tmp_path)
    )
