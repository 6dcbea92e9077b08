"""Draws of the bootstrap that are kept beside a run: used where they are of its matches, and never otherwise."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mrbench.evaluation.matches import Matches, average_precision
from mrbench.report import draws

Fake = Callable[..., Matches]


@pytest.fixture
def file(tmp_path: Path, fake_matches: Fake) -> Path:
    fake_matches(0.6).save(tmp_path / "matches.npz")
    return tmp_path / "matches.npz"


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that were computed, in order."""
    kinds: list[str] = []
    compute: Callable[..., draws.Drawn] = draws.compute

    def noting(matches: object, kind: str, *rest: int) -> draws.Drawn:
        kinds.append(kind)
        return compute(matches, kind, *rest)

    monkeypatch.setattr(draws, "compute", noting)
    return kinds


def same(one: draws.Drawn | None, other: draws.Drawn | None) -> bool:
    assert one is not None
    assert other is not None
    equal = all(np.array_equal(one.scores[name], other.scores[name], equal_nan=True) for name in one.scores)
    return (one.images, one.count, one.whole) == (other.images, other.count, other.whole) and equal


def test_each_draw_is_ap_as_coco_defines_it_over_the_images_drawn(file: Path, fake_matches: Fake) -> None:
    matches = fake_matches(0.6)
    found = draws.of_run(file, "mask", 5)
    assert found is not None
    for place, weights in enumerate(draws.weights(found.count, 5)):
        expected = average_precision(matches, "mask", weights)
        assert {name: float(found.scores[name][place]) for name in expected} == pytest.approx(expected)
    assert found.whole == pytest.approx(average_precision(matches, "mask")["AP"])


def test_what_is_kept_is_what_was_computed_and_is_not_computed_again(file: Path, computed: list[str]) -> None:
    first = [draws.of_run(file, kind, 5) for kind in ("box", "mask")]
    again = [draws.of_run(file, kind, 5) for kind in ("box", "mask")]
    assert computed == ["box", "mask"]
    assert all(map(same, first, again))


def test_other_matches_draws_or_seeds_are_computed_anew(file: Path, computed: list[str], fake_matches: Fake) -> None:
    draws.of_run(file, "box", 5)
    draws.of_run(file, "box", 6)
    draws.of_run(file, "box", 6, 1)
    assert computed == ["box"] * 3
    times = file.stat()
    fake_matches(0.7).save(file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # no clock decides
    found = draws.of_run(file, "box", 6, 1)
    assert computed == ["box"] * 4
    assert same(found, draws.compute(fake_matches(0.7), "box", 6, 1))


@pytest.mark.parametrize("how", ["empty", "torn", "one bit", "text", "a folder"])
def test_a_damaged_file_is_as_none(file: Path, how: str) -> None:
    first, place = draws.of_run(file, "box", 50), file.with_name(draws.FILE)
    content = bytearray(place.read_bytes())
    if how == "a folder":
        place.unlink()
        place.mkdir()
    elif how == "one bit":
        content[len(content) // 2] ^= 16
        place.write_bytes(content)
    else:
        place.write_bytes({"empty": b"", "torn": bytes(content[:-200]), "text": b"hello"}[how])
    assert same(first, draws.of_run(file, "box", 50))


def test_a_folder_that_cannot_be_written_to_is_no_error(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root may write anywhere, the system's refusal is played."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "replace", refuse)
    first = draws.of_run(file, "box", 5)
    assert not file.with_name(draws.FILE).exists()
    assert same(first, draws.of_run(file, "box", 5))
    assert [path.name for path in file.parent.iterdir()] == ["matches.npz"]


def test_a_kind_that_the_matches_lack_is_none(file: Path) -> None:
    assert draws.of_run(file, "keypoint", 5) is None
