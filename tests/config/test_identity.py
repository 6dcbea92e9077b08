"""Identity: the same science has the same name, anything else another."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from mrbench.config.composer import compose
from mrbench.config.identity import canonical_json, run_id, science, science_as_written
from mrbench.errors import UserError


def test_where_and_how_a_run_is_carried_out_does_not_change_its_name() -> None:
    assert run_id(compose()) == run_id(compose(["runtime.num_workers=0", "runtime.devices=2", "launcher.parallel=3"]))


@pytest.mark.parametrize(
    "override", ["seed=1", "model.norm=bn", "optimizer.lr=0.003", "evaluation.max_detections=50", "precision=bf16"]
)
def test_what_changes_the_science_changes_the_name(override: str) -> None:
    assert run_id(compose()) != run_id(compose([override]))


def test_the_name_is_the_hash_of_the_canonical_json() -> None:
    config = compose()
    text = json.dumps(science(config), sort_keys=True, separators=(",", ":"))
    plain = canonical_json(science(config))
    assert json.loads(plain) == json.loads(text)
    assert run_id(config) == f"mask_rcnn_small-shapes-{hashlib.sha256(plain.encode()).hexdigest()[:10]}"
    assert "runtime" not in asdict(config) or "runtime" not in plain


def test_canonical_json_does_not_tell_whole_floats_from_integers() -> None:
    assert (
        canonical_json({"b": 1.0, "a": [2, 0.5]}) == '{"a":[2,0.5],"b":1}' == canonical_json({"a": [2.0, 0.5], "b": 1})
    )


def make_folder(folder: Path, extra: int) -> Path:
    (folder / "annotations").mkdir(parents=True)
    for split in ("train", "val"):
        text = json.dumps({"images": [], "annotations": [], "categories": [{"id": extra, "name": "x"}]})
        (folder / "annotations" / f"instances_{split}.json").write_text(text)
    return folder


def test_an_unnamed_data_set_is_known_by_its_content_not_its_place(tmp_path: Path) -> None:
    a, b = make_folder(tmp_path / "1" / "set", 1), make_folder(tmp_path / "2" / "set", 1)
    c = make_folder(tmp_path / "3" / "set", 2)
    ids = [run_id(compose(["data=coco_folder", f"data.root={p}"])) for p in (a, b, c)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0].startswith("mask_rcnn_small-set-")


@pytest.mark.parametrize("data", ["data=shapes", "data=coco_2017", "data.kind=coco_folder"])
def test_a_written_configuration_has_the_same_science_but_the_fingerprint(tmp_path: Path, data: str) -> None:
    named = [f"data.root={make_folder(tmp_path / 'mine', 0)}", "data.name=null"] if "kind" in data else []
    config = compose([data, *named])
    expected = flat(science(config))
    assert ("data.fingerprint" in expected) == bool(named)
    expected.pop("data.fingerprint", None)
    assert science_as_written(flat(asdict(config))) == expected


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flat(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found


def test_a_missing_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.root"):
        run_id(compose(["data=coco_folder"]))
    with pytest.raises(UserError, match="not a folder"):
        run_id(compose(["data=coco_folder", f"data.root={tmp_path / 'no'}"]))
    with pytest.raises(UserError, match="No annotations of the train split"):
        run_id(compose(["data=coco_folder", f"data.root={tmp_path}"]))
