"""What a person types becomes a plan, or one message."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mrbench.bench import plan as plans
from mrbench.bench.matrix import MODES, Case, label
from mrbench.config.compose import load
from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig
from mrbench.errors import UserError

CPU = {"type": "cpu", "threads": 1, "refusals": dict.fromkeys(("fp32", "fp16", "bf16")) | {"tf32": "not on a CPU"}}
GPU = {"type": "cuda", "name": "A GPU", "memory": 1 << 34, "count": 1, "refusals": dict.fromkeys(plans.PRECISIONS)}


def load_text(text: str) -> RunConfig:
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        return load(Path(file.name))


@pytest.mark.parametrize(
    "text, size",
    [("2GiB", 2 << 30), ("500 MB", 500 * 10**6), ("1.5gib", 3 << 29), ("4g", 4 << 30), ("2097152", 2 << 20)],
)
def test_sizes(text: str, size: int) -> None:
    assert plans.memory_size(text) == size


@pytest.mark.parametrize(
    "read, text",
    [
        (plans.memory_size, "2 parsecs"),
        (plans.memory_size, "0GiB"),
        (plans.memory_size, "4"),
        (plans.image_size, "800"),
        (plans.image_size, "0x10"),
        (lambda text: plans.numbers("--batch", text, "images"), "2,x"),
        (lambda text: plans.numbers("--devices", text, "devices"), "0"),
        (lambda text: plans.words("--mode", text, MODES), "trian"),
        (lambda text: plans.words("--mode", text, MODES), ","),
    ],
)
def test_what_cannot_be_read_is_one_message(read: Callable[[str], object], text: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert caught.value.hint


def test_a_mistyped_precision_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="bf16"):
        plans.words("--precision", "bf61", plans.PRECISIONS)


def test_without_a_gpu_the_small_model_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    plan, _ = plans.make_plan([])
    small = ("mask_rcnn_small", "fp32")
    assert plan.cases == [Case("train", *small, 2, [128, 128]), Case("infer", *small, 1, [128, 128])]
    assert (list(plan.configs), plan.device) == (["mask_rcnn_small"], "cpu")


def test_on_a_gpu_the_paper_s_model_is_measured_in_all_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: GPU)
    plan, _ = plans.make_plan([])
    assert {(case.model, *case.image_size) for case in plan.cases} == {("mask_rcnn_r50_fpn", 800, 1333)}
    assert [case.precision for case in plan.cases if case.mode == "train"] == ["fp32", "tf32", "fp16", "bf16"]
    assert {case.batch for case in plan.cases if case.mode == "infer"} == {1, 8}
    chosen = plans.make_plan(["model=mask_rcnn_small", "precision=bf16"])[0]
    assert {(case.model, case.precision) for case in chosen.cases} == {("mask_rcnn_small", "bf16")}


def test_rows_of_swept_switches_have_what_their_name_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    arms = {"plain": ["runtime.compile=false"], "both": ["runtime.compile=true", "runtime.channels_last=true"]}
    plan, _ = plans.make_plan([], arms=arms, mode="train")
    assert [(c.model, c.compile, c.channels_last) for c in plan.cases] == [
        ("plain", False, False),
        ("both", True, True),
    ]


def test_models_sizes_and_switches_are_all_combined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    arms = {"plain": ["model=mask_rcnn_small"], "paper": ["recipe=mask_rcnn_r50_fpn_1x", "precision=bf16"]}
    axes = {"size": "64x64,96x128", "batch": "1,2,4", "channels_last": "off,on", "compiled": "off,on", "devices": "1"}
    plan, _ = plans.make_plan([], arms=arms, mode="train,eval", **axes)
    training = [case for case in plan.cases if case.mode == "train"]
    assert len(training) == len({str(case) for case in training}) == 2 * 2 * 3 * 2 * 2
    assert {(case.model, case.precision) for case in training} == {("plain", "fp32"), ("paper", "bf16")}
    assert [case for case in plan.cases if case.mode == "eval"] == [
        Case("eval", model, None, batch, None) for model in arms for batch in (1, 2, 4)
    ]
    assert load_text(plan.configs["paper"]).model.name == "mask_rcnn_r50_fpn"


def test_a_row_is_labelled_with_what_tells_it_from_the_others() -> None:
    plain = Case("train", "a", "fp32", 2, [64, 64])
    assert label(plain, [plain]) == "train fp32, batch 2"
    fast = Case("train", "b", "bf16", 2, [64, 96], channels_last=True, compile=True, devices=2)
    assert label(fast, [plain, fast]) == "train bf16, batch 2, channels-last, compiled, 2 devices, 64x96, b"


def test_more_devices_than_there_are_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: GPU | {"count": 2})
    with pytest.raises(UserError, match="there are 2 GPUs"):
        plans.make_plan([], devices="1,4")


def test_the_plan_holds_the_whole_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    plan, _ = plans.make_plan(["optimizer.lr=0.5"])
    assert load_text(*plan.configs.values()) == compose(["optimizer.lr=0.5"])


def test_a_recipe_s_own_picture_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    assert plans.make_plan(["recipe=mask_rcnn_r50_fpn_1x"])[0].cases[0].image_size == [800, 1333]
    assert plans.make_plan(["augmentation=large_scale_jitter"])[0].cases[0].image_size == [1024, 1024]


def test_a_size_and_a_data_set_contradict_each_other() -> None:
    with pytest.raises(UserError, match="synthetic"):
        plans.make_plan([], size="800x1333", inputs="data")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"peer": "detectron"}, "--peer: there is no 'detectron'"),
        ({"peer": "torchvision", "mode": "data,eval"}, "measured in train and infer"),
        ({"peer": "torchvision", "devices": "1,2"}, "measured on one device"),
        ({"budget": "5"}, "--budget 5: not a time"),
    ],
)
def test_a_peer_or_a_budget_that_cannot_be_is_one_message(options: dict[str, str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        plans.make_plan([], **options)  # type: ignore[arg-type]
