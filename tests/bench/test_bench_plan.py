"""What a person types becomes a plan, or one message."""

from collections.abc import Callable

import pytest

from mrbench.bench import plan as plans
from mrbench.config.compose import compose, load
from mrbench.errors import UserError

CPU = {"type": "cpu", "threads": 1, "refusals": dict.fromkeys(("fp32", "fp16", "bf16")) | {"tf32": "not on a CPU"}}
GPU = {"type": "cuda", "name": "A GPU", "memory": 1 << 34, "refusals": dict.fromkeys(plans.PRECISIONS)}


@pytest.mark.parametrize(
    "text, size", [("2GiB", 2 << 30), ("500 MB", 500 * 10**6), ("1.5gib", 3 << 29), ("1024", 1024)]
)
def test_sizes(text: str, size: int) -> None:
    assert plans.memory_size(text) == size


@pytest.mark.parametrize(
    "read, text",
    [
        (plans.memory_size, "2 parsecs"),
        (plans.memory_size, "0GiB"),
        (plans.image_size, "800"),
        (plans.image_size, "0x10"),
        (plans.batch_sizes, "2,x"),
        (plans.batch_sizes, "0"),
        (lambda text: plans.words("--mode", text, plans.MODES), "trian"),
        (lambda text: plans.words("--mode", text, plans.MODES), ","),
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
    assert (plan.model, plan.device, plan.precisions) == ("mask_rcnn_small", "cpu", ["fp32"])
    assert (plan.batches, plan.image_size) == ({"train": [2], "infer": [1]}, [128, 128])


def test_on_a_gpu_the_paper_s_model_is_measured_in_all_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: GPU)
    plan, _ = plans.make_plan([])
    assert (plan.model, plan.image_size) == ("mask_rcnn_r50_fpn", [800, 1333])
    assert plan.precisions == ["fp32", "tf32", "fp16", "bf16"]
    assert plans.make_plan(["model=mask_rcnn_small", "precision=bf16"])[0].precisions == ["bf16"]
    assert plans.make_plan(["model=mask_rcnn_small"])[0].model == "mask_rcnn_small"


def test_the_plan_holds_the_whole_configuration(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    plan, _ = plans.make_plan(["optimizer.lr=0.5"])
    file = tmp_path / "config.yaml"  # type: ignore[operator]
    file.write_text(plan.config)
    assert load(file) == compose(["optimizer.lr=0.5"])


def test_a_recipe_s_own_picture_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "describe_device", lambda _config: CPU)
    assert plans.make_plan(["recipe=mask_rcnn_r50_fpn_1x"])[0].image_size == [800, 1333]
    assert plans.make_plan(["augmentation=large_scale_jitter"])[0].image_size == [1024, 1024]


def test_a_size_and_a_data_set_contradict_each_other() -> None:
    with pytest.raises(UserError, match="synthetic"):
        plans.make_plan([], size="800x1333", inputs="data")
