"""Draws of the bootstrap that are kept beside a run: used where they are of its matches, and never otherwise."""

import os
from pathlib import Path

import numpy as np
import pytest

from mrbench.bench.reporting import make_matches
from mrbench.evaluation import bootstrap
from mrbench.evaluation.matches import Matches, average_precision


def fake_matches(quality: float) -> Matches:
    return make_matches(quality, np.random.default_rng(0))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    fake_matches(0.6).save(tmp_path / "matches.npz")
    return tmp_path / "matches.npz"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that were computed, in order."""
    kinds: list[str] = []
    compute = bootstrap.compute

    def noting(matches: Matches, kind: str, *rest: int) -> bootstrap.Drawn:
        kinds.append(kind)
        return compute(matches, kind, *rest)

    monkeypatch.setattr(bootstrap, "compute", noting)
    return kinds


def same(one: bootstrap.Drawn, other: bootstrap.Drawn) -> bool:
    alike = (one.images, one.count, one.whole) == (other.images, other.count, other.whole)
    equal = [np.array_equal(one.scores[name], other.scores[name], equal_nan=True) for name in one.scores]
    return alike and list(one.scores) == list(other.scores) and all(equal)


def test_each_draw_is_ap_as_coco_defines_it_over_the_images_drawn(file: Path) -> None:
    matches = fake_matches(0.6)
    found = bootstrap.of_run(file, ["mask"], 5)["mask"]
    for place, weights in enumerate(bootstrap.weights(found.count, 5)):
        expected = average_precision(matches, "mask", weights)
        assert {name: float(found.scores[name][place]) for name in expected} == pytest.approx(expected)
    assert found.whole == pytest.approx(average_precision(matches, "mask")["AP"])


def test_what_is_kept_is_what_was_computed_and_is_not_computed_again(file: Path, computed: list[str]) -> None:
    first = {kind: bootstrap.of_run(file, [kind], 5)[kind] for kind in ("box", "mask")}
    again = bootstrap.of_run(file, ["box", "mask"], 5)
    assert computed == ["box", "mask"]
    assert all(same(first[kind], again[kind]) for kind in ("box", "mask"))


def test_what_an_evaluation_leaves_is_what_a_report_would_compute(file: Path, computed: list[str]) -> None:
    expected = {kind: bootstrap.compute(fake_matches(0.6), kind) for kind in ("box", "mask")}
    bootstrap.keep(fake_matches(0.6), file)
    computed.clear()
    found = bootstrap.of_run(file, ["box", "mask"])
    assert computed == []
    assert all(same(found[kind], expected[kind]) for kind in ("box", "mask"))


def test_other_matches_draws_or_seeds_are_computed_anew(file: Path, computed: list[str]) -> None:
    bootstrap.of_run(file, ["box"], 5)
    bootstrap.of_run(file, ["box"], 6)
    bootstrap.of_run(file, ["box"], 6, 1)
    assert computed == ["box"] * 3
    times = file.stat()
    fake_matches(0.7).save(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # no clock decides
    found = bootstrap.of_run(file, ["box"], 6, 1)
    assert computed == ["box"] * 4
    assert same(found["box"], bootstrap.compute(fake_matches(0.7), "box", 6, 1))


@pytest.mark.parametrize("how", ["empty", "torn", "one bit", "text", "a folder"])
def test_a_damaged_file_is_as_none(file: Path, how: str) -> None:
    first, place = bootstrap.of_run(file, ["box"], 50), file.with_name(bootstrap.FILE)
    content = bytearray(place.read_bytes())
    if how == "a folder":
        place.unlink()
        place.mkdir()
    elif how == "one bit":
        content[len(content) // 2] ^= 16
        place.write_bytes(content)
    else:
        place.write_bytes({"empty": b"", "torn": bytes(content[:-200]), "text": b"hello"}[how])
    assert same(first["box"], bootstrap.of_run(file, ["box"], 50)["box"])


def test_a_folder_that_cannot_be_written_to_is_no_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may write anywhere, the system's refusal is played."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    first = bootstrap.of_run(file, ["box"], 5)
    assert not file.with_name(bootstrap.FILE).exists()
    assert same(first["box"], bootstrap.of_run(file, ["box"], 5)["box"])
    assert [path.name for path in file.parent.iterdir()] == ["matches.npz"]


def test_a_kind_that_the_matches_lack_is_left_out(file: Path) -> None:
    assert list(bootstrap.of_run(file, ["box", "keypoint"], 5)) == ["box"]
