"""Images whose annotations nobody has, as COCO's test-dev: a run ends with detections to be sent in."""

import json
import shutil
from pathlib import Path

import pytest

from mrbench.cli.eval import eval_command
from mrbench.config.composer import compose
from mrbench.data.embedded import shapes_folder
from mrbench.data.sources import open_split
from mrbench.engine.train import train
from mrbench.errors import UserError
from mrbench.runs.record import open_run


def test_a_run_on_a_test_set_detects_and_does_not_evaluate(
    tmp_path: Path, overrides: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    embedded = shapes_folder(compose(list(overrides)).data.shapes)
    root = shutil.copytree(embedded, tmp_path / "set")
    path = root / "annotations" / "instances_val.json"
    content = json.loads(path.read_text())
    del content["annotations"]
    path.write_text(json.dumps(content))
    own = ["data=coco_folder", f"data.root={root}", "model.inference.score_threshold=0", "schedule.iterations=2"]
    config = compose([*overrides, *own])

    run = open_run(tmp_path, config)
    train(run, config)
    assert run.status().state == "completed"
    found = json.loads(run.detections_file().read_text())
    assert {item["image_id"] for item in found} == {image["id"] for image in content["images"]}
    assert {"image_id", "category_id", "bbox", "score", "segmentation"} == set(found[0])
    evaluation = run.evaluation()
    assert evaluation is not None
    assert (evaluation["metrics"], evaluation["images"]) == ({}, 6)
    assert "no annotations" in evaluation["notes"][0]

    eval_command([str(run.folder)])
    assert "no annotations" in " ".join(capsys.readouterr().out.split())

    path.rename(path.with_name("instances_train.json"))
    with pytest.raises(UserError, match="nothing to learn from"):
        open_split(config.data, "train")
