"""`mrbench predict` from the command line: what it draws and writes, and how mistakes end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mrbench.config.composer import compose
from mrbench.modeling.build import build_detector
from mrbench.runs.record import open_run

# A small embedded data set, and a model that has not learnt anything but puts out five detections a picture.
SETTINGS = [
    "data.shapes.train_images=2",
    "data.shapes.val_images=2",
    "model.inference.score_threshold=0",
    "model.inference.detections_per_image=5",
]


def mrbench(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", "from mrbench.cli.app import main; main()", "predict", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "MRBENCH_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"},
    )


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    for name, size in (("a.jpg", (90, 120)), ("b.png", (128, 100))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(tmp_path / "in" / name)
    return tmp_path


def test_every_picture_is_drawn_and_all_detections_written(pictures):
    torch.manual_seed(0)
    model = build_detector(compose(SETTINGS).model, 4)
    torch.save(model.state_dict(), pictures / "weights.pt")
    done = mrbench(pictures, "--weights", "weights.pt", *SETTINGS, "in", "--out", "drawn", "--threshold", "0")
    assert done.returncode == 0, done.stderr
    assert "2 pictures with 10 detections" in done.stdout
    assert sorted(p.name for p in (pictures / "drawn").iterdir()) == ["a.png", "b.png", "detections.json"]
    assert Image.open(pictures / "drawn/a.png").size == (120 * 5, 90 * 5)
    written = json.loads((pictures / "drawn/detections.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["in/a.jpg", "in/b.png"]
    assert len(written["detections"]) == 10
    assert {tuple(item["segmentation"]["size"]) for item in written["detections"]} == {(90, 120), (128, 100)}
    known = {category["id"] for category in written["categories"]}
    assert {item["category_id"] for item in written["detections"]} <= known


def test_a_low_threshold_is_not_cut_short_by_the_model_s_own(pictures):
    """A model of small scores, of which its configuration would drop all."""
    torch.manual_seed(0)
    torch.save(build_detector(compose(SETTINGS).model, 4).state_dict(), pictures / "weights.pt")
    settings = [*SETTINGS, "model.inference.score_threshold=0.99", "model.inference.detections_per_image=1"]
    done = mrbench(pictures, "--weights", "weights.pt", *settings, "in/a.jpg", "--out", "drawn", "--threshold", "0.0")
    assert done.returncode == 0, done.stderr
    assert "1 picture with 1 detection of score 0 or more in drawn" in done.stdout
    done = mrbench(pictures, "--weights", "weights.pt", *settings, "in/a.jpg", "--out", "drawn", "--threshold", "1")
    assert "1 picture with 0 detections" in done.stdout


@pytest.mark.parametrize(
    "arguments, said",
    [
        (("--weights", "weights.pt", "in"), "weights.pt"),
        (("no-such-run", "in"), "no-such-run"),
        (("--weights", "in/a.jpg", "in/b.png"), "not a checkpoint"),
        (("--weights", "in/a.jpg", "gone.png"), "gone.png"),
        (("--weights", "in/a.jpg"), "no pictures"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(pictures, arguments, said):
    more = ["data.shapes.train_images=2", "data.shapes.val_images=2"] if "--weights" in arguments else []
    done = mrbench(pictures, *arguments, *more)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("path,says", [("nope.png", "There is no file"), ("README.md", "is not a picture")])
def test_paths_are_looked_at_before_torch_is_loaded(path: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("no picture")
    run = open_run(tmp_path, compose())
    code = (
        "import sys\n"
        "from mrbench.cli.predict import predict_command\n"
        "from mrbench.errors import UserError\n"
        "try:\n"
        "    predict_command([sys.argv[1], sys.argv[2]])\n"
        "except UserError as error:\n"
        "    print(error.what, 'torch' in sys.modules)\n"
    )
    asked = [sys.executable, "-c", code, str(run.folder), str(tmp_path / path)]
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert says in done.stdout, done.stderr
    assert done.stdout.endswith("False\n")
