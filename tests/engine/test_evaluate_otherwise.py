"""A run that is trained can be tested in another way, and its own record stays as it is."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.errors import UserError
from mrbench.runs.record import Run

FLIPPED = "evaluation.tta.enabled=true"


def mrbench(*arguments: object) -> str:
    """What the command prints; raises its UserError."""
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def contents(run: Run) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.folder.rglob("*") if path.is_file()}


def test_a_run_is_evaluated_with_test_time_augmentation_beside_its_record(undisturbed: Run, tmp_path: Path) -> None:
    before, own = contents(undisturbed), undisturbed.evaluation()
    assert own is not None
    assert own["tta"] is None
    out = tmp_path / "out"
    same = json.loads(mrbench("eval", undisturbed.folder, FLIPPED, "evaluation.tta.flip=false", "--json"))
    assert same["metrics"] == own["metrics"]
    lower = "model.inference.score_threshold=0.02"
    mrbench("eval", undisturbed.folder, FLIPPED, lower, "--out", out)
    written = Run(out).evaluation()
    assert written is not None
    assert written["tta"] == {"enabled": True, "short_edge": [], "max_size": 4000, "flip": True, "vote": 0.8}
    mrbench("eval", undisturbed.folder, lower, "--out", tmp_path / "plain")
    assert Run(tmp_path / "plain").detections_file().read_bytes() != Run(out).detections_file().read_bytes()
    assert Run(out).detections_file().read_bytes() != undisturbed.detections_file().read_bytes()
    assert contents(undisturbed) == before


def test_pictures_are_looked_at_mirrored_too(undisturbed: Run, tmp_path: Path) -> None:
    Image.new("RGB", (60, 50), (200, 30, 30)).save(tmp_path / "red.png")
    found = []
    for name, flip in (("plain", "false"), ("flipped", "true")):
        overrides = (f"evaluation.tta.enabled={flip}", "model.inference.score_threshold=0.001")
        mrbench("predict", undisturbed.folder, *overrides, tmp_path / "red.png", "--out", tmp_path / name)
        found.append(json.loads((tmp_path / name / "detections.json").read_text())["detections"])
    assert found[0] != found[1]


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["model.norm=bn"], "cannot be changed for a run that is trained"),
        (["precision=bf16"], "cannot be changed for a run that is trained"),
        (["seed=1"], "cannot be changed"),
        (["evaluation.tta.short_edge=[-4]"], "evaluation.tta.short_edge"),
        (["evaluation.tta.flp=true"], "Unknown key"),
        (["evaluation.tta.flip=7.5"], "evaluation.tta.flip"),
        (["another-run"], "Give one run"),
        (["--out", "."], "needs no --out"),
    ],
)
def test_what_training_has_settled_cannot_be_changed(undisturbed: Run, arguments: list[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        mrbench("eval", undisturbed.folder, *arguments)


def test_the_runs_own_folder_is_not_written_over(undisturbed: Run) -> None:
    with pytest.raises(UserError, match="own folder"):
        mrbench("eval", undisturbed.folder, FLIPPED, "--out", undisturbed.folder)


def test_a_trained_model_is_tested_without_the_file_its_body_began_with(undisturbed: Run, tmp_path: Path) -> None:
    moved = tmp_path / "moved" / undisturbed.run_id
    shutil.copytree(undisturbed.folder, moved)
    config = Run(moved).config_file
    text = config.read_text()
    assert "    weights: null\n" in text
    config.write_text(text.replace("    weights: null\n", f"    weights: {tmp_path / 'gone.pkl'}\n", 1))
    assert "gone.pkl" in str(Run(moved).config().model.backbone.weights)
    again = json.loads(mrbench("eval", moved, "--json"))
    own = undisturbed.evaluation()
    assert own is not None
    assert again["metrics"] == own["metrics"]
