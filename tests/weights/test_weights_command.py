"""`mrbench weights` and `mrbench eval --weights` on files of other projects."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mrbench.config.composer import compose
from mrbench.engine.checkpoint import save_weights
from mrbench.modeling.build import build_detector
from mrbench.runs.record import Run, open_run
from mrbench.weights.export import export_detectron2

NARROW = [
    "model=mask_rcnn_r50_fpn",
    "model.backbone.width=8",
    "model.backbone.weights=null",
    "model.neck.channels=16",
    "model.box_head.fc_channels=16",
    "model.mask_head.channels=16",
]


def mrbench(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mrbench", *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "120"},
    )


@pytest.fixture
def run(tmp_path: Path) -> Run:
    config = compose(["data.shapes.classes=3"])
    made = open_run(tmp_path, config)
    save_weights(made.checkpoint_dir, build_detector(config.model, 3), 7)
    return made


def test_a_runs_weights_become_safetensors_with_their_settings(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "model.safetensors"
    done = mrbench("weights", "export", run.run_id, "--root", tmp_path, "--to", "safetensors", "-o", out)
    assert done.returncode == 0, done.stderr
    weights = torch.load(run.checkpoint_dir / "final.pt", weights_only=True)["model"]
    written = load_file(out)
    assert written.keys() == weights.keys()
    assert all(torch.equal(written[name], weights[name]) for name in weights)
    shown = mrbench("weights", "inspect", out, "--tensors")
    assert shown.returncode == 0
    assert f"mrbench, {len(weights)} tensors (safetensors)" in shown.stdout
    assert "model.pixel_mean=[127.5,127.5,127.5]" in shown.stdout
    assert "box_head.classes.weight" in shown.stdout


def test_what_detectron2_cannot_hold_is_refused(run: Run, tmp_path: Path) -> None:
    done = mrbench("weights", "export", run.run_id, "--root", tmp_path, "--to", "detectron2", "-o", tmp_path / "m.pkl")
    assert done.returncode == 2
    assert "Detectron2 has no name for backbone.conv2.weight" in done.stderr
    assert not (tmp_path / "m.pkl").exists()


def test_a_foreign_file_is_evaluated_once_the_settings_fit(tmp_path: Path) -> None:
    config = compose(NARROW)
    export_detectron2(build_detector(config.model, 4).state_dict(), tmp_path / "model.pkl")
    data = ["data.shapes.val_images=2", "data.shapes.train_images=2", "runtime.num_workers=0"]
    command = ["eval", "--weights", tmp_path / "model.pkl", *NARROW, *data, "augmentation=none"]
    refused = mrbench(*command)
    assert refused.returncode == 2
    assert "Detectron2" in refused.stderr
    assert "model.backbone.stride_in_1x1=true" in refused.stderr
    assert "Traceback" not in refused.stderr
    done = mrbench(*command, "model.pixel_std=[1,1,1]", "model.backbone.stride_in_1x1=true")
    assert done.returncode == 0, done.stderr
    assert "trained on BGR pictures" in done.stderr
    assert done.stdout.splitlines()[1].split()[0] == "box"
    told = mrbench(*command, "model.weights_mismatch=tell")
    assert told.returncode == 0, told.stderr
    assert "not as the weights were trained: model.backbone.stride_in_1x1=true" in told.stderr


def test_files_that_are_no_weights_end_in_one_message(tmp_path: Path) -> None:
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps({"a": np.zeros(2), "b": os.getcwd}))
    for name in ("bad.pkl", "absent.pth"):
        done = mrbench("weights", "inspect", tmp_path / name)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
