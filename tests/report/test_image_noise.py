"""The bootstrap over images: against the analytic variance, and what it does where matches are lacking."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mrbench.evaluation.bootstrap import weights
from mrbench.evaluation.matches import Matches
from mrbench.report import images
from mrbench.report.build import build
from mrbench.report.collect import load_study


def test_the_variance_of_a_mean_over_images_is_the_textbook_one() -> None:
    """With the mean of per-image values as the score, the bootstrap variance is (n - 1)/n s^2 / n (Efron 1979)."""
    values = np.random.default_rng(0).normal(50, 10, 200)
    drawn = weights(200, 4000) @ values / 200
    found = images.noise(drawn, 200)
    assert found is not None
    assert found.variance == pytest.approx(values.var(ddof=0) / 200, rel=0.07)


def test_a_difference_is_paired_over_images() -> None:
    """Two networks that find the same images easy: what they share cancels."""
    generator = np.random.default_rng(1)
    shared, own = generator.normal(50, 10, 200), generator.normal(1, 0.5, 200)
    drawn = weights(200, 2000)
    first, second = drawn @ shared / 200, drawn @ (shared + own) / 200
    found = images.noise(second - first, 200)
    assert found is not None
    assert found.variance == pytest.approx(own.var() / 200, rel=0.1)


def test_every_draw_has_as_many_images_as_the_set_and_is_the_same_each_time() -> None:
    drawn = weights(37, 50)
    assert drawn.shape == (50, 37)
    assert (drawn.sum(axis=1) == 37).all()
    assert (drawn == weights(37, 50)).all()


def test_intervals_hold_images_where_matches_are_there(demo: Path) -> None:
    study = load_study(demo, "demo")
    with_images, without = build(study, resamples=50), build(study, resamples=0)
    assert with_images.resamples == 50
    assert without.resamples == 0
    for wide, narrow in zip(with_images.answers, without.answers, strict=True):
        for arm in with_images.challengers:
            first, second = wide.differences[arm].interval, narrow.differences[arm].interval
            assert first is not None
            assert second is not None
            assert first.image_sd is not None
            assert first.image_sd > 0
            assert second.image_sd is None
            assert first.standard_error == pytest.approx(np.hypot(second.standard_error, first.image_sd))


def damage_one(root: Path, how: str) -> None:
    path = next((root / "runs").glob("*bn*0/matches.npz"))
    if how == "missing":
        path.unlink()
    elif how == "damaged":
        path.write_bytes(b"PK not a zip")
    else:
        matches = Matches.load(path)
        if how == "other images":
            matches.image_ids = matches.image_ids + 1
        else:  # of another evaluation
            for kind in matches.kinds.values():
                kind.matched = np.zeros_like(kind.matched)
        matches.save(path)


@pytest.mark.parametrize("how", ["missing", "damaged", "other images", "other evaluation"])
def test_a_run_whose_matches_cannot_be_used_is_named(demo: Path, tmp_path: Path, how: str) -> None:
    root = tmp_path / "root"
    shutil.copytree(demo, root)
    damage_one(root, how)
    report = build(load_study(root, "demo"), resamples=20)
    answer = report.answers[0]
    interval = answer.differences["bn"].interval
    assert interval is not None
    assert interval.image_sd is None
    assert "Some intervals do not hold the choice of test images" in report.image_problem
    assert "bn" in report.image_problem
    other = answer.differences["longer"].interval
    assert other is not None
    assert other.image_sd is not None


def test_a_metric_that_matches_cannot_give_has_intervals_over_seeds(
    make_study: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_study(tmp_path, seeds=2, matches=False)
    report = build(load_study(root, "demo"), resamples=20)
    assert report.resamples == 0
    assert report.image_problem.count("no matches.npz") == 1
    assert "10 runs, of which the first is" in report.image_problem
    assert report.image_problem.startswith("Intervals do not hold")
