"""Other ways to carry a network out: the same numbers as the plain one, with less memory or in another layout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.execution import check_algorithms, check_compiler, set_algorithms
from mrbench.engine.step import TrainStep
from mrbench.errors import UserError
from mrbench.modeling.build import build_detector

Tiny = Callable[..., RunConfig]
CPU = torch.device("cpu")
RECOMPUTED = "runtime.activation_checkpointing=true"


def start(config: RunConfig) -> TrainStep:
    torch.manual_seed(config.seed)
    return TrainStep(build_detector(config.model, 4), config, CPU)


def batches(config: RunConfig, count: int) -> list[Batch]:
    loader = train_loader(open_split(config.data, "train"), config)
    return [next(loader) for _ in range(count)]


def gradients_of_features(step: TrainStep, batch: Batch) -> tuple[list[Tensor], dict[str, Tensor], int]:
    """The pyramid, the gradient of its sum of squares for every weight of body and neck, and the bytes that are kept
    between forward and backward pass."""
    kept: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    step.optimizer.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        features = step.model.features(batch)
    sum((f.square().sum() for f in features), torch.zeros(())).backward()
    found = {name: p.grad.clone() for name, p in step.model.named_parameters() if p.grad is not None}
    return [f.detach() for f in features], found, sum(kept.values())


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], within: float) -> None:
    """Relative to the largest element of each."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=within * max(float(value.abs().max()), 1e-3))


@pytest.mark.parametrize("norm", ["bn", "gn", "frozen_bn"])
def test_recomputed_stages_have_equal_gradients_and_keep_less(tiny: Tiny, norm: str) -> None:
    plain = tiny(f"model.norm={norm}", "model.backbone.depth=50")
    (batch,) = batches(plain, 1)
    whole, recomputed = start(plain), start(tiny(f"model.norm={norm}", "model.backbone.depth=50", RECOMPUTED))
    maps, expected, bytes_kept = gradients_of_features(whole, batch)
    same_maps, found, fewer_bytes = gradients_of_features(recomputed, batch)
    assert all(torch.equal(a, b) for a, b in zip(maps, same_maps, strict=True))
    assert_close(found, expected, 1e-6)
    assert any(name.startswith("backbone.layer1") for name in found)
    assert fewer_bytes < 0.5 * bytes_kept
    for (name, a), (_, b) in zip(whole.model.named_buffers(), recomputed.model.named_buffers(), strict=True):
        assert torch.equal(a, b), f"{name} has seen the batch once, not twice"


def test_recomputed_regnets_train_as_plain_ones(tiny: Tiny) -> None:
    changes = ("model.backbone.kind=regnet_y_4gf", "model.norm=bn", "model.backbone.freeze_at=0")
    (batch,) = batches(tiny(*changes), 1)
    found = [start(tiny(*changes, *more)) for more in ((), (RECOMPUTED,))]
    for step in found:
        step(batch)
    expected = dict(found[0].model.state_dict())
    assert_close(dict(found[1].model.state_dict()), expected, 1e-6)


def test_channels_last_follows_the_plain_layout(tiny: Tiny) -> None:
    plain, last = start(tiny("optimizer=sgd")), start(tiny("optimizer=sgd", "runtime.channels_last=true"))
    data = batches(tiny(), 3)
    with torch.no_grad():
        maps = last.model.features(data[0])
    assert all(m.is_contiguous(memory_format=torch.channels_last) for m in maps[:4])
    for a, b in zip(plain.model.features(data[0]), maps, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-5)
    for batch in data:
        expected, found = plain(batch), last(batch)
        assert {k: float(v) for k, v in found.items()} == pytest.approx(
            {k: float(v) for k, v in expected.items()}, 1e-3
        )


def test_compiled_body_and_neck_compute_the_same(tiny: Tiny) -> None:
    """Traced into one graph each and then run as torch does, without the C++ that inductor would make of them."""
    step, plain = start(tiny()), start(tiny())
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        graphs.append(graph)
        return graph.forward

    names = list(step.model.state_dict())
    step.model.backbone.compile(backend=backend)
    step.model.neck.compile(backend=backend)
    (batch,) = batches(tiny(), 1)
    maps, expected, _ = gradients_of_features(plain, batch)
    same_maps, found, _ = gradients_of_features(step, batch)
    assert len(graphs) == 2, "body and neck, without a break"
    for a, b in zip(maps, same_maps, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)
    assert_close(found, expected, 1e-6)
    assert list(step.model.state_dict()) == names


def test_what_is_compiled_is_body_and_neck(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[str] = []
    monkeypatch.setattr(nn.Module, "compile", lambda module: compiled.append(type(module).__name__))
    start(tiny("runtime.compile=true"))
    assert compiled == ["ResNet", "FPN"]


def test_without_a_compiler_the_message_says_so(monkeypatch: pytest.MonkeyPatch, tiny: Tiny) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"no g\+\+ or clang\+\+"):
        start(tiny("runtime.compile=true"))
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(UserError, match="my-compiler"):
        check_compiler(CPU)


def test_compiling_and_recomputing_do_not_go_together(tiny: Tiny) -> None:
    with pytest.raises(UserError, match="activation_checkpointing"):
        tiny("runtime.compile=true", RECOMPUTED)


def test_a_gpu_is_kept_to_fixed_algorithms_only_where_asked(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    gpu, asked = torch.device("cuda"), tiny("runtime.deterministic=true").runtime
    try:
        set_algorithms(asked, gpu)
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        for runtime, device in ((tiny().runtime, gpu), (asked, CPU)):
            set_algorithms(runtime, device)
            assert not torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.deterministic = False


def test_a_roi_align_without_a_fixed_order_is_refused_where_one_is_asked_for(tiny: Tiny) -> None:
    gpu, asked, adaptive = torch.device("cuda"), "runtime.deterministic=true", "model.pooler.sampling_ratio=0"
    torchvision = "model.pooler.method=torchvision"
    with pytest.raises(UserError, match="fixed order"):
        check_algorithms(tiny(asked, torchvision, adaptive), gpu)
    check_algorithms(tiny(asked, torchvision, adaptive), CPU)
    check_algorithms(tiny(torchvision, adaptive), gpu)
    check_algorithms(tiny(asked), gpu)
