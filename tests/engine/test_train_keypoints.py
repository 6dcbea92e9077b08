"""A run that learns keypoints, as a person starts it."""

import json
import subprocess
import sys

from mrbench.evaluation.coco import KEYPOINT_METRICS


def test_a_run_of_two_iterations_ends_with_keypoint_numbers_and_the_report_shows_them(shared, overrides, tmp_path):
    changes = [
        "data=coco_folder",
        f"data.root={shared / 'data/coco-mini'}",
        "data.train.annotations=annotations/person_keypoints_train.json",
        "data.val.annotations=annotations/person_keypoints_val.json",
        "augmentation=short_edge",
        "augmentation.short_edge=[64]",
        "augmentation.max_size=96",
        "model.keypoint_head.enabled=true",
        "model.keypoint_head.convs=1",
        "model.keypoint_head.channels=16",
        "model.inference.score_threshold=0.01",
        "schedule.iterations=2",
        "runtime.accumulate=2",
    ]
    whole = [sys.executable, "-m", "mrbench", "train", "--root", str(tmp_path), *overrides, *changes]
    done = subprocess.run(whole, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    metrics = json.loads((run / "evaluation.json").read_text())["metrics"]
    assert {name for name in metrics if name.startswith("keypoint/")} == {f"keypoint/{n}" for n in KEYPOINT_METRICS}
    assert all(value is not None and value >= 0 for name, value in metrics.items() if name.startswith("keypoint/"))
    assert {"box/AP", "mask/AP"} <= metrics.keys()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(line["keypoint"] > 0 for line in lines if line["kind"] == "train")
    (found,) = (run / "detections").glob("*.json")
    results = json.loads(found.read_text())
    assert results
    assert all(len(item["keypoints"]) == 51 for item in results)

    report = [sys.executable, "-m", "mrbench", "report", run.name, "--root", str(tmp_path)]
    shown = subprocess.run(report, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert "keypoint AP" in shown.stdout
