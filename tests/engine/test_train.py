"""How a run ends: complete, failed with its reason on record, refused."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from mrbench.config.schema import RunConfig
from mrbench.data.batch import Batch
from mrbench.data.loader import train_loader
from mrbench.data.sources import open_split
from mrbench.engine.evaluate import evaluate_run
from mrbench.engine.failures import NonFiniteLoss
from mrbench.engine.nonfinite import LossGuard
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.evaluation import bootstrap
from mrbench.evaluation.matches import Matches
from mrbench.modeling.detector import MaskRCNN
from mrbench.modeling.losses import LossTerm
from mrbench.runs.lock import run_lock
from mrbench.runs.provenance import write
from mrbench.runs.record import Run, open_run
from mrbench.weights.files import inspect


def command(root: Path, *overrides: str) -> subprocess.CompletedProcess[str]:
    whole = [sys.executable, "-m", "mrbench", "train", "--root", str(root), *overrides]
    return subprocess.run(whole, capture_output=True, text=True, timeout=120)


def test_a_complete_run_has_its_whole_record(undisturbed: Run) -> None:
    status, evaluation = undisturbed.status(), undisturbed.evaluation()
    assert (status.state, status.iteration, status.attempt) == ("completed", 12, 1)
    assert status.images_per_second is not None
    assert status.images_per_second > 0
    assert status.ended is not None
    lines = undisturbed.metrics()
    assert [line["iteration"] for line in lines if line["kind"] == "train"] == [2, 4, 6, 8, 10, 12]
    assert [line["iteration"] for line in lines if line["kind"] == "evaluation"] == [6, 12]
    parts = ("rpn_objectness", "rpn_box", "box_class", "box_regression", "mask")
    for line in lines:
        if line["kind"] == "train":
            assert line["loss"] == pytest.approx(sum(line[part] for part in parts), rel=1e-5)
    told = undisturbed.log_file.read_text()
    assert "iteration 1/12  loss" in told
    assert "iteration 12: evaluating 6 images" in told
    assert evaluation is not None
    assert (evaluation["iteration"], evaluation["images"]) == (12, 6)
    assert {"box/AP", "mask/APl"} <= set(evaluation["metrics"])
    assert set(Matches.load(undisturbed.matches_file).kinds) == {"box", "mask"}
    assert undisturbed.matches_file.with_name(bootstrap.FILE).is_file()  # what a report asks for first
    assert undisturbed.detections_file().is_file()
    kept = [path.name for path in sorted(undisturbed.checkpoint_dir.glob("*.pt"))]
    assert kept == ["00000008.pt", "00000012.pt", "final.pt"]
    provenance = undisturbed.provenance()
    assert provenance["determinism"] == "exact"
    # A network with group norm, whose file of weights has parameters alone.
    tensors = inspect(undisturbed.checkpoint_dir / "final.pt").tensors.values()
    assert provenance["parameters"] == sum(tensor.numel() for tensor in tensors)
    assert 0 < provenance["trained_parameters"] <= provenance["parameters"]


def test_a_complete_run_is_left_as_it_is(undisturbed: Run, tiny: Callable[..., RunConfig]) -> None:
    def state() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in undisturbed.folder.rglob("*") if path.name != ".lock"}

    before = state()
    train(undisturbed, tiny())
    assert state() == before


def test_a_complete_run_says_so(undisturbed: Run, overrides: tuple[str, ...]) -> None:
    done = command(undisturbed.folder.parents[1], *overrides)
    assert done.returncode == 0, done.stderr
    assert "nothing to do" in done.stdout
    assert "mask" in done.stdout


def test_evaluating_a_run_again_gives_its_numbers(undisturbed: Run, tiny: Callable[..., RunConfig]) -> None:
    before = undisturbed.evaluation()
    after = evaluate_run(undisturbed, tiny())
    assert before is not None
    assert after["metrics"] == before["metrics"]
    assert after["iteration"] == 12


def test_a_second_process_on_the_same_run_is_refused(
    tmp_path: Path, tiny: Callable[..., RunConfig], overrides: tuple[str, ...]
) -> None:
    run = open_run(tmp_path, tiny())
    with run_lock(run):
        done = command(tmp_path, *overrides)
    assert done.returncode == 2
    assert f"pid {os.getpid()}" in done.stderr
    assert "Traceback" not in done.stderr
    assert run.status().state == "pending"


@pytest.mark.parametrize("log_period", [1, 100])
def test_a_loss_that_is_not_finite_is_on_record(
    tmp_path: Path, tiny: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, log_period: int
) -> None:
    config = tiny(f"runtime.log_period={log_period}", f"seed={log_period}")
    forward = MaskRCNN.forward

    def spoilt(self: MaskRCNN, batch: Batch) -> dict[str, LossTerm]:
        terms = forward(self, batch)
        if batch.iteration == 5:
            terms["mask"] = LossTerm(terms["mask"].sum * float("inf"), terms["mask"].count)
        return terms

    run = open_run(tmp_path, config)
    monkeypatch.setattr(MaskRCNN, "forward", spoilt)
    with pytest.raises(NonFiniteLoss):
        train(run, config)
    status = run.status()
    assert status.state == "failed"
    assert status.error is not None
    expected = next(train_loader(open_split(config.data, "train"), config, start=5)).image_ids
    assert status.error["kind"] == "non_finite_loss"
    assert status.error["iteration"] == 6
    assert status.error["loss"] == "mask"
    assert status.error["image_ids"] == expected
    saved = [path.name for path in run.checkpoint_dir.glob("*.pt")]
    assert saved == ["00000004.pt"], "nothing is saved after it"


def test_a_rate_that_is_far_too_high_ends_as_a_failed_run(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    config = tiny("optimizer=sgd", "optimizer.lr=1e30", "optimizer.clip_norm=null", "schedule.warmup_iterations=0")
    run = open_run(tmp_path, config)
    with pytest.raises(NonFiniteLoss, match="at iteration"):
        train(run, config)
    assert run.status().state == "failed"


def test_the_guard_finds_the_first_bad_iteration_among_many() -> None:
    guard = LossGuard()
    bad = {3: ("box", float("nan")), 4: ("mask", float("inf"))}
    for iteration in range(1, 6):
        losses = {"box": 1.0, "mask": 2.0}
        if iteration in bad:
            losses[bad[iteration][0]] = bad[iteration][1]
        tensors = {name: torch.tensor(value) for name, value in losses.items()}
        guard.add(iteration, {"loss": sum(tensors.values(), torch.tensor(0.0)), **tensors}, [iteration, 10])
    with pytest.raises(NonFiniteLoss) as caught:
        guard.check()
    assert (caught.value.iteration, caught.value.loss, caught.value.image_ids) == (3, "box", [3, 10])
    guard.check()  # what was looked at is forgotten


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a tmpfs with these options, for tests that need a file system of their own."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    mounted = []

    def mount_with(options: str) -> Path:
        call = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(call, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("there is no mount command")
        if done.returncode:
            pytest.skip(f"mounting needs root: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield mount_with
    for place in mounted:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


def test_a_read_only_folder_is_refused(mount: Callable[[str], Path], overrides: tuple[str, ...]) -> None:
    done = command(mount("size=1m,ro"), *overrides)
    assert done.returncode == 2
    assert "Cannot write" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_disk_that_fills_up_is_said_and_the_run_goes_on_later(
    mount: Callable[[str], Path], overrides: tuple[str, ...], tiny: Callable[..., RunConfig]
) -> None:
    root = mount("size=400k")
    done = command(root, *overrides)
    assert done.returncode == 2, done.stderr
    assert "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    run = open_run(root, tiny())
    assert not list(run.checkpoint_dir.glob("*.pt")), "no half-written checkpoint stays"
    subprocess.run(["mount", "-o", "remount,size=40m", str(root)], check=True)
    train(run, tiny())
    assert run.status().state == "completed"


def test_a_mistake_in_the_data_is_known_before_training(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    config = tiny()
    config.model.weights = str(tmp_path / "missing.pt")
    run = open_run(tmp_path, config)
    with pytest.raises(UserError, match=r"missing\.pt"):
        train(run, config)
    assert run.status().state == "pending"


def test_a_mistake_before_the_first_step_leaves_the_record_as_it_was(
    tmp_path: Path, tiny: Callable[..., RunConfig]
) -> None:
    config = tiny()
    run = open_run(tmp_path, config)
    run.update(state="preempted", attempt=3, iteration=7)
    run.log("stopped")
    write(run, {"command": "as it was", "code": {"source_sha256": "0"}})
    before = {path: path.read_bytes() for path in sorted(run.folder.iterdir()) if path.name != ".lock"}
    config.model.weights = str(tmp_path / "missing.pt")  # is looked for after the new provenance is written
    with pytest.raises(UserError, match=r"missing\.pt"):
        train(run, config)
    assert {path: path.read_bytes() for path in sorted(run.folder.iterdir()) if path.name != ".lock"} == before
