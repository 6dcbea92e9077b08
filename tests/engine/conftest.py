"""A model and a data set so small that a run takes a second."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mrbench.config.composer import compose
from mrbench.config.schema import RunConfig
from mrbench.runs.record import Run, open_run

TINY = (
    "data.shapes.image_size=64",
    "data.shapes.train_images=24",
    "data.shapes.val_images=6",
    "data.shapes.diameters=[9,40]",
    "model.group_size=4",
    "model.backbone.width=8",
    "model.neck.channels=16",
    "model.rpn.samples=32",
    "model.rpn.pre_nms_train=50",
    "model.rpn.post_nms_train=32",
    "model.roi.samples=32",
    "model.box_head.fc_channels=16",
    "model.mask_head.convs=1",
    "model.mask_head.channels=16",
    "schedule.images_per_batch=4",
    "schedule.iterations=12",
    "schedule.warmup_iterations=2",
    "evaluation.period=6",
    "runtime.device=cpu",
    "runtime.threads=1",
    "runtime.num_workers=0",
    "runtime.checkpoint_period=4",
    "runtime.log_period=2",
)

Tiny = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def overrides() -> tuple[str, ...]:
    """The command line of a tiny run."""
    return TINY


@pytest.fixture(scope="session")
def every_proposal() -> tuple[str, ...]:
    """All anchors become proposals and all proposals are trained on: nothing hangs on the order of their scores.

    The scores of an untrained network lie so close together that a difference in the last bit can reorder them, and
    so change which proposals survive. Two ways to compute the same losses are compared without that.
    """
    sizes = ("model.rpn.pre_nms_train=400", "model.rpn.post_nms_train=400", "model.roi.samples=512")
    # 340 anchors, inside the picture: clipped to its border they would be equal, and NMS drops equal boxes.
    cheap = ("model.rpn.anchor_sizes=[6,12,18,30]", "data.shapes.instances=[1,2]", "model.pooler.mask_size=7")
    return (*sizes, *cheap, "model.rpn.nms_threshold=1.0", "model.roi.positive_fraction=1.0")


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """Composes a tiny run, changed by further overrides."""
    return lambda *changes: compose([*TINY, *changes])


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny: Tiny) -> Run:
    """A tiny run that nothing happened to, with one process and no workers."""
    from mrbench.engine.train import train

    config = tiny()
    run = open_run(tmp_path_factory.mktemp("undisturbed"), config)
    train(run, config)
    return run


@pytest.fixture(scope="session")
def assert_same_result() -> Callable[[Run, Run], None]:
    """Whether two runs ended with bit-identical metrics (but for times), detections and weights."""
    from mrbench.runs.metrics import TIMING

    def without_times(run: Run) -> list[dict[str, object]]:
        return [{key: value for key, value in line.items() if key not in TIMING} for line in run.metrics()]

    def weights(run: Run) -> dict[str, torch.Tensor]:
        return torch.load(run.checkpoint_dir / "final.pt", weights_only=True)["model"]

    def check(a: Run, b: Run) -> None:
        assert a.status().state == b.status().state == "completed"
        assert without_times(a) == without_times(b)
        assert a.detections_file().read_bytes() == b.detections_file().read_bytes()
        first, second = weights(a), weights(b)
        assert list(first) == list(second)
        assert all(torch.equal(first[name], second[name]) for name in first)

    return check


@pytest.fixture(scope="session")
def scripts() -> Path:
    """Programs that a test starts, in this folder."""
    return Path(__file__).parent
