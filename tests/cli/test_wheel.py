"""The wheel works away from the clone: configuration, studies and published numbers travel inside it."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

CLONE = Path(__file__).resolve().parents[2]

TINY = [
    "schedule.iterations=2",
    "schedule.warmup_iterations=0",
    "data.shapes.train_images=4",
    "data.shapes.val_images=2",
    "data.shapes.image_size=64",
    "model.backbone.width=16",
    "runtime.num_workers=0",
]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment with mrbench from the wheel; its dependencies are those of this environment."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CLONE)]
    subprocess.run(build, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder / "env")], check=True)
    python = folder / "env" / "bin" / "python"
    wheel = next(folder.glob("mrbench-*.whl"))
    pip = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check"]
    subprocess.run([*pip, str(wheel)], check=True, capture_output=True)
    site = next((folder / "env").glob("lib/python*/site-packages"))
    # Appended to the path, not installed: the clone's own editable install is not followed from here.
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "env" / "bin"


def run(environment: Path, cwd: Path, *arguments: str) -> str:
    done = subprocess.run(
        [str(environment / arguments[0]), *arguments[1:]],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": "", "COLUMNS": "120"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_installed_package_is_not_the_clone(environment: Path, tmp_path: Path) -> None:
    code = "import mrbench, mrbench.config.paths as p; print(mrbench.__file__, p.conf_dir(), p.published_dir())"
    places = run(environment, tmp_path, "python", "-c", code).split()
    assert all(str(environment.parent) in place for place in places)


def test_recipes_and_published_numbers_are_inside(environment: Path, tmp_path: Path) -> None:
    assert "mrbench" in run(environment, tmp_path, "mrbench", "--version")
    assert "mask_rcnn_r50_fpn_1x" in run(environment, tmp_path, "mrbench", "recipes", "list")
    code = "from mrbench.config.paths import *; print(*ablations_dir().iterdir(), *published_dir().iterdir())"
    inside = run(environment, tmp_path, "python", "-c", code)
    assert "demo.yaml" in inside
    assert "accuracy.csv" in inside


def test_a_short_training_run_ends_with_a_result(environment: Path, tmp_path: Path) -> None:
    run(environment, tmp_path, "mrbench", "train", *TINY)
    (folder,) = (tmp_path / "runs").iterdir()
    assert (folder / "evaluation.json").is_file()
    assert "completed" in run(environment, tmp_path, "mrbench", "runs", "list")
