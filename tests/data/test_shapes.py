"""The embedded data set: deterministic, made once, and made anew when it is damaged."""

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from mrbench.config.schema import DataConfig, ShapesConfig
from mrbench.data.embedded import cache_folder, scene_annotations, shapes_folder
from mrbench.data.shapes import draw_scene
from mrbench.data.sources import open_split
from mrbench.errors import UserError

SMALL = ShapesConfig(train_images=12, val_images=5)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def bytes_of(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MRBENCH_CACHE", "/one")
    monkeypatch.setenv("XDG_CACHE_HOME", "/two")
    assert cache_folder() == Path("/one")
    monkeypatch.delenv("MRBENCH_CACHE")
    assert cache_folder() == Path("/two/mrbench")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "mrbench"


def test_a_picture_drawn_alone_equals_that_of_the_whole_set(cache: Path) -> None:
    folder = shapes_folder(SMALL)
    content = json.loads((folder / "annotations" / "instances_val.json").read_text())
    scene = draw_scene(SMALL, "val", 3)
    on_disk = np.asarray(Image.open(folder / "images" / "val" / "000004.png"))
    assert np.array_equal(on_disk, scene.pixels.astype(np.uint8))
    written = [a for a in content["annotations"] if a["image_id"] == 4]
    assert [{k: v for k, v in a.items() if k not in ("id", "image_id")} for a in written] == scene_annotations(scene)


def test_splits_seeds_and_numbers_differ() -> None:
    pictures = [
        draw_scene(ShapesConfig(seed=seed), split, number).pixels.tobytes()
        for seed in (0, 1)
        for split in ("train", "val")
        for number in (0, 1)
    ]
    assert len(set(pictures)) == len(pictures)


def test_scenes_keep_to_their_settings() -> None:
    settings = ShapesConfig(crowd=0.5)
    scenes = [draw_scene(settings, "train", i) for i in range(150)]
    assert {len(s.labels) for s in scenes} == {1, 2, 3, 4, 5, 6} | ({0} & {len(s.labels) for s in scenes})
    assert {label for s in scenes for label in s.labels} == {0, 1, 2, 3}
    crowds = sum(s.crowd_label is not None for s in scenes)
    assert 50 < crowds < 100
    sides = []
    for scene in scenes:
        annotations = scene_annotations(scene)
        masks = [coco_mask.decode(a["segmentation"]) for a in annotations]
        # Every pixel belongs to one shape at most: masks are what is in sight.
        assert sum(masks).max() <= 1
        for annotation, mask in zip(annotations, masks, strict=True):
            assert annotation["area"] == mask.sum()
            x, y, w, h = (int(v) for v in annotation["bbox"])
            assert mask[y : y + h, x : x + w].sum() == mask.sum()
            if not annotation["iscrowd"]:
                assert mask.sum() >= 16
                sides.append(max(w, h))
    # Sizes spread over several octaves.
    counts, _ = np.histogram(np.log2(sides), bins=[3, 4, 5, 6])
    assert (counts > 30).all()


def test_it_is_made_once_and_opens_as_coco(cache: Path) -> None:
    data = DataConfig(shapes=SMALL)
    train = open_split(data, "train")
    before = {p: p.stat().st_mtime_ns for p in cache.rglob("*.png")}
    val = open_split(data, "val")
    assert (len(train), len(val)) == (12, 5)
    assert [c.name for c in train.categories] == ["circle", "square", "triangle", "star"]
    assert before == {p: p.stat().st_mtime_ns for p in cache.rglob("*.png")}
    # Other settings are another data set, beside it.
    assert shapes_folder(ShapesConfig(train_images=12, val_images=5, noise=2.0)) != train.annotation_file.parents[1]


def test_damage_is_noticed_and_mended(cache: Path) -> None:
    folder = shapes_folder(SMALL)
    whole = bytes_of(folder)
    annotations = folder / "annotations" / "instances_train.json"

    def other_annotations() -> None:
        annotations.write_text(annotations.read_text().replace("[", "[ ", 1))

    def lost_picture() -> None:
        (folder / "images" / "train" / "000002.png").unlink()

    def cut_off_picture() -> None:
        path = folder / "images" / "val" / "000002.png"
        path.write_bytes(path.read_bytes()[:500])

    def lost_manifest() -> None:
        (folder / "manifest.json").unlink()

    for damage in (other_annotations, lost_picture, cut_off_picture, lost_manifest):
        damage()
        assert bytes_of(folder) != whole
        assert shapes_folder(SMALL) == folder
        assert bytes_of(folder) == whole


def test_what_a_killed_process_left_is_replaced(cache: Path) -> None:
    folder = shapes_folder(SMALL)
    whole = bytes_of(folder)
    folder.rename(folder.with_name(folder.name + ".partial"))
    assert bytes_of(shapes_folder(SMALL)) == whole
    assert [p.name for p in cache.iterdir() if p.is_dir()] == [folder.name]


def test_several_processes_at_once_make_one_set(cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        folders = pool.map(shapes_folder, [SMALL] * 3)
    assert len(set(folders)) == 1
    assert [p for p in cache.iterdir() if p.is_dir()] == [folders[0]]
    assert len(list(folders[0].rglob("*.png"))) == 17


def test_cache_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MRBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match="Cannot make the embedded data set") as raised:
        shapes_folder(SMALL)
    assert "MRBENCH_CACHE" in raised.value.hint


def test_ranges_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match=r"data\.shapes\.instances"):
        shapes_folder(ShapesConfig(instances=[4, 2]))
    with pytest.raises(UserError, match=r"data\.shapes\.diameters"):
        shapes_folder(ShapesConfig(diameters=[1.0, 20.0]))
