"""`mrbench eval` on files: the table, JSON, exit codes, and that no model library is loaded for it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

CODE = """
import sys
from mrbench.cli.app import main
try:
    main()
finally:
    loaded = sorted({"torch", "torchvision", "pandas", "matplotlib"} & set(sys.modules))
    print(f"loaded: {loaded}", file=sys.stderr)
"""


def mrbench(*arguments):
    return subprocess.run(
        [sys.executable, "-c", CODE, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "80", "HOME": "/nonexistent"},
    )


@pytest.fixture
def files(tmp_path):
    """One image with one cat; a detection of it."""
    truth = {
        "images": [{"id": 1, "height": 100, "width": 100}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 0}],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "score": 0.9}]
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path / "truth.json", tmp_path / "found.json"


def test_coco_example_as_a_table_without_torch(shared):
    folder = shared / "data/coco-eval-golden"
    done = mrbench(
        "eval",
        "--annotations",
        folder / "instances_val2014_100.json",
        "--detections",
        folder / "instances_val2014_fakebbox100_results.json",
        "--per-category",
    )
    assert done.returncode == 0, done.stderr
    assert "loaded: []" in done.stderr
    lines = done.stdout.splitlines()
    assert " ".join(lines[0].split()) == "AP AP50 AP75 APs APm APl AR1 AR10 AR100 ARs ARm ARl"
    row = "box 50.5 69.7 57.3 58.6 51.9 50.1 38.7 59.4 59.5 64.0 56.6 56.4"
    assert " ".join(lines[1].split()) == row
    assert max(map(len, lines)) <= 80
    assert any(line.split()[:1] == ["person"] for line in lines)


def test_json_has_all_digits_and_null(files):
    truth, found = files
    done = mrbench("eval", "--annotations", truth, "--detections", found, "--json", "--areas", "100,500")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["metrics"]["box/APm"] == pytest.approx(100)
    assert result["metrics"]["box/APs"] is None
    assert result["per_category"]["cat"]["box/AP"] == pytest.approx(100)
    assert result["areas"] == [100, 500]
    assert result["images"] == 1
    assert not any(key.startswith("mask/") for key in result["metrics"])


def test_no_detections_is_zero_with_a_note(files):
    truth, found = files
    found.write_text("[]")
    done = mrbench("eval", "--annotations", truth, "--detections", found, "--kind", "box")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split()[:2] == ["box", "0.0"]
    assert "no detections" in done.stdout


def mistakes(truth, found):
    both = ("--annotations", truth, "--detections", found)
    return {
        "unknown image": (
            (*both,),
            [{"image_id": 7, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}],
            "found.json do not fit the ground truth: 1 broken: detection 1: image_id 7",
        ),
        "not a list": ((*both,), {"a": 1}, "results file"),
        "results as ground truth": (("--annotations", found, "--detections", found), None, "not COCO ground truth"),
        "ground truth as results": (("--annotations", truth, "--detections", truth), None, "not a COCO results file"),
        "cut off": (
            ("--annotations", found.with_name("cut.json"), "--detections", found),
            None,
            "cut.json is not JSON",
        ),
        "missing file": (("--annotations", truth, "--detections", truth.parent / "none.json"), None, "none.json"),
        "one file": (("--annotations", truth), None, "give both"),
        "masks that are not there": ((*both, "--kind", "mask"), None, "no segmentation"),
        "unknown kind": ((*both, "--kind", "boxes"), None, "box, mask, keypoint"),
        "areas": ((*both, "--areas", "9,big"), None, "9,big"),
        "falling areas": ((*both, "--areas", "9,3"), None, "rising"),
        "nothing": ((), None, "Nothing to evaluate"),
        "no such run": (("nothing-like-this",), None, "nothing-like-this"),
        "kind of a run": (("nothing-like-this", "--kind", "box"), None, "go with --annotations"),
        "no such weights": (("--weights", truth.parent / "none.pt"), None, "none.pt"),
    }


@pytest.mark.parametrize("name", list(mistakes(Path("x"), Path("x"))))
def test_mistakes_end_in_one_message_and_exit_code_2(files, name):
    truth, found = files
    (truth.parent / "cut.json").write_text('{"images": [')
    arguments, content, said = mistakes(truth, found)[name]
    if content is not None:
        found.write_text(json.dumps(content))
    done = mrbench("eval", *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
