"""`mrbench data prepare`: archives are verified and unpacked whole, and nothing half done is trusted."""

import hashlib
import io
import tarfile
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mrbench.cli.data import app
from mrbench.data import archives
from mrbench.data.archives import DATASETS, Archive, Part
from mrbench.data.prepare import look, unpack
from mrbench.errors import UserError

NAMES = [f"train/{i}.jpg" for i in range(4)]


def zipped(path: Path, names: list[str]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, b"picture " + name.encode())


def archive_of(path: Path, parts: tuple[Part, ...]) -> Archive:
    return Archive(path.name, "http://example.org", hashlib.md5(path.read_bytes()).hexdigest(), parts)


@pytest.fixture
def pictures(tmp_path: Path) -> Archive:
    zipped(tmp_path / "train.zip", [*NAMES, "README", "../train/outside.jpg"])
    return archive_of(tmp_path / "train.zip", (Part("train", "*.jpg", 4),))


def test_an_archive_is_verified_and_unpacked(tmp_path: Path, pictures: Archive) -> None:
    assert look(pictures, tmp_path).state == "packed"
    unpack(pictures, tmp_path, lambda done: None)
    assert look(pictures, tmp_path).state == "present"
    assert (tmp_path / "train" / "3.jpg").read_bytes() == b"picture train/3.jpg"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["train", "train.zip"]
    (tmp_path / "train.zip").unlink()
    assert look(pictures, tmp_path).state == "present"


def test_what_was_unpacked_by_halves_is_unpacked_again(tmp_path: Path, pictures: Archive) -> None:
    (tmp_path / "train").mkdir()
    for name in NAMES[:2]:
        (tmp_path / name).write_bytes(b"")  # written, but the disk was full
    (tmp_path / ".train.zip.unpacking" / "train").mkdir(parents=True)
    assert look(pictures, tmp_path) == look(pictures, tmp_path)
    assert look(pictures, tmp_path).counts == (0,)
    unpack(pictures, tmp_path, lambda done: None)
    assert look(pictures, tmp_path).state == "present"
    assert not (tmp_path / ".train.zip.unpacking").exists()


def test_another_or_cut_off_archive_is_refused(tmp_path: Path, pictures: Archive) -> None:
    path = tmp_path / "train.zip"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match="its MD5 is"):
        unpack(pictures, tmp_path, lambda done: None)
    without_sum = Archive("train.zip", "", None, pictures.parts)
    with pytest.raises(UserError, match="damaged"):
        unpack(without_sum, tmp_path, lambda done: None)
    zipped(path, NAMES[:3])
    with pytest.raises(UserError, match="3 of 4 files"):
        unpack(without_sum, tmp_path, lambda done: None)
    assert [p.name for p in tmp_path.iterdir()] == ["train.zip"]


def test_the_lists_of_minival_are_taken_from_a_tar(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "lists.tgz", "w:gz") as packed:
        entry = tarfile.TarInfo("coco/annotations/instances_minival2014.json")
        entry.size = 2
        packed.addfile(entry, io.BytesIO(b"{}"))
    archive = archive_of(tmp_path / "lists.tgz", (Part("annotations", "instances_minival2014.json", 1),))
    unpack(archive, tmp_path, lambda done: None)
    assert (tmp_path / "annotations" / "instances_minival2014.json").read_text() == "{}"


def test_the_command_says_what_is_missing_and_ends_well_when_nothing_is(
    tmp_path: Path, pictures: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    optional = Archive("test.zip", "http://example.org/test.zip", None, (Part("test", "*.jpg", 1),), "test-dev")
    monkeypatch.setitem(archives.DATASETS, "coco2017", (pictures, optional))
    (tmp_path / "train.zip").rename(tmp_path / "elsewhere")
    result = CliRunner().invoke(app, ["prepare", "coco2017", str(tmp_path)])
    assert result.exit_code == 1
    assert "train.zip: missing\n  http://example.org" in result.output
    (tmp_path / "elsewhere").rename(tmp_path / "train.zip")
    for told in ("MD5 right, unpacked", "4 of 4"):  # the second time nothing is left to do
        result = CliRunner().invoke(app, ["prepare", "coco2017", str(tmp_path)])
        assert result.exit_code == 0, result.output
        assert told in result.output
        assert "test.zip: missing, only for test-dev" in result.output
    wrong = CliRunner().invoke(app, ["prepare", "coco2016", str(tmp_path)])
    assert isinstance(wrong.exception, UserError)
    assert "coco2017" in wrong.exception.hint


def test_what_the_archives_make_is_what_the_configurations_read() -> None:
    from mrbench.config.composer import compose

    for name, group in (("coco2017", "coco_2017"), ("coco2014", "coco_2014"), ("coco2017", "coco_2017_test_dev")):
        data = compose([f"data={group}", "data.root=/data"]).data
        parts = [part for archive in DATASETS[name] for part in archive.parts]
        for split in (data.train, data.val, *data.train_more):
            assert any(f"{part.folder}/{part.pattern}" == split.annotations for part in parts)
            assert any(part.folder == split.images and part.pattern == "*.jpg" for part in parts)
