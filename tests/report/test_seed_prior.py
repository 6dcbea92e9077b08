"""The public spread of seeds: which runs it is made of, what it is worth, and when a study does not take it."""

from dataclasses import replace
from math import sqrt
from typing import Any

import pytest
from rich.console import Console

from mrbench.errors import UserError
from mrbench.report import prior
from mrbench.report.build import build
from mrbench.report.caveats import interval_notes, settling
from mrbench.report.collect import Arm, Study
from mrbench.report.planning import Aim, MoreSeeds
from mrbench.report.published import seed_variance
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import NOISE, TOO_FEW, WORSE, Spread, moderated
from mrbench.report.table import accuracy
from mrbench.report.terminal import show


def study(scores: dict[str, list[float]], data: str | None = "coco_2017", **fields: Any) -> Study:
    """A study without files: arm -> box AP by seed; mask AP is 3.7 lower."""

    def run(arm: str, seed: int, score: float) -> RunRecord:
        return RunRecord(
            arm=arm,
            seed=seed,
            run_id=f"{arm}{seed}",
            state="completed",
            metrics={"box/AP": score, "mask/AP": score - 3.7, "box/AP50": score + 20},
            images=fields.get("images", 5000),
            config={"data.name": data},
        )

    arms = tuple(
        Arm(name, (), None, "", tuple(run(name, seed, score) for seed, score in enumerate(values)))
        for name, values in scores.items()
    )
    return Study("s", "s", "", next(iter(scores)), fields.get("metrics", ("box/AP", "mask/AP")), arms)


def test_public_runs_are_final_distinct_and_not_diverged() -> None:
    """346 runs are on file: 4 diverged and 50 are earlier ones handed in again with the next release."""
    on_file = {(row.recipe, row.release, row.submitter, row.system, row.run) for row in seed_variance()}
    assert len(on_file) == 346
    runs = prior.public_runs()
    finals = [run for recipe in runs.values() for run in recipe]
    assert len(runs) == 4
    assert sorted(map(len, runs.values())) == [10, 25, 50, 207]
    assert len(finals) == 346 - 4 - 50
    assert all(run.epoch >= 12 and run.box_ap > 37 for run in finals)
    assert len({(run.recipe, run.box_ap, run.mask_ap) for run in finals}) > 285


def test_the_public_spread_is_pooled_over_recipes() -> None:
    """Recipes' standard deviations of box AP 0.0907, 0.1178, 0.1032, 0.1115 over 25, 10, 207, 50 runs."""
    squares = 24 * 0.0907**2 + 9 * 0.1178**2 + 206 * 0.1032**2 + 49 * 0.1115**2
    spread = prior.public_spread("box/AP")
    assert spread.df == 288
    assert spread.sd == pytest.approx(sqrt(squares / 288), abs=1e-4)
    assert 0.08 < prior.public_spread("mask/AP").sd < spread.sd


def test_prior_and_own_spread_are_weighted_by_degrees_of_freedom() -> None:
    """Smyth 2004, section 3: (30 * 0.01 + 10 * 0.0144) / 40 = 0.0111 with 40 degrees of freedom."""
    found = moderated(Spread(0.12, 10), Spread(0.1, 30))
    assert found.df == 40
    assert found.sd**2 == pytest.approx(0.0111)
    assert moderated(Spread(float("nan"), 0), Spread(0.1, 30)) == Spread(0.1, 30)
    assert moderated(Spread(0.2, 3), None) == Spread(0.2, 3)


def test_a_study_noisier_than_the_prior_allows_stands_alone() -> None:
    """F with 4 and 30 degrees of freedom exceeds 2.690 in 5 %: a ratio of variances of 2.6 is combined, 2.8 is not."""
    assert moderated(Spread(sqrt(2.6), 4), Spread(1.0, 30)).df == 34
    assert moderated(Spread(sqrt(2.8), 4), Spread(1.0, 30)) == Spread(sqrt(2.8), 4)


def test_fewer_test_images_widen_the_public_spread() -> None:
    whole, part = prior.Prior("public", 5000).spread("box/AP"), prior.Prior("public", 1250).spread("box/AP")
    assert whole is not None
    assert part is not None
    assert part.sd == pytest.approx(2 * whole.sd)
    assert whole.df == prior.WEIGHT
    assert prior.Prior("public", 5000).spread("box/AP50") is None
    assert prior.Prior("own", 5000).spread("box/AP") is None


def test_the_public_spread_is_for_coco_alone_unless_asked_for() -> None:
    assert prior.choose(study({"a": [37.0]})).kind == "public"
    assert prior.choose(study({"a": [37.0]}, data="shapes")).kind == "own"
    assert prior.choose(study({"a": [37.0]}, data=None)).kind == "own"
    asked = prior.choose(study({"a": [37.0]}, data="shapes"), "public")
    assert (asked.kind, asked.foreign) == ("public", True)
    assert "not trained on COCO" in " ".join(
        interval_notes(build(study({"a": [1.0], "b": [2.0]}, "shapes"), 0, "public"))
    )
    with pytest.raises(UserError) as error:
        prior.choose(study({"a": [37.0]}), "publik")
    assert "public" in str(error.value.hint)


def test_single_coco_runs_are_decided_by_the_public_spread_and_marked() -> None:
    """Two single runs differ by 0.104 sqrt(2) = 0.147 in the mean square; with 30 degrees of freedom the interval is
    2.042 times as wide to each side: 0.30."""
    report = build(study({"base": [37.8], "small": [37.6], "large": [37.3]}), resamples=0)
    box = report.answers[0].differences
    assert box["small"].decision == NOISE
    assert box["large"].decision == WORSE
    assert box["large"].interval is not None
    assert box["large"].interval.half_width == pytest.approx(2.042 * 0.1042 * sqrt(2), abs=1e-3)
    assert box["large"].interval.prior
    rows = {row.cells[0].text: row for row in accuracy(report).rows if row.group == "box AP"}
    assert rows["small"].cells[1].text == "1†"
    assert rows["base"].cells[1].text == "1"
    notes = " ".join(interval_notes(report))
    assert "292 public runs" in notes
    assert "†" in notes


def test_without_a_prior_single_runs_are_not_decided() -> None:
    scores = {"base": [37.8, 37.9, 37.7, 37.8], "arm": [30.0]}
    assert build(study(scores), 0, "none").answers[0].differences["arm"].decision == TOO_FEW
    alone = build(study({"base": [37.8], "arm": [30.0]}, "shapes"), 0).answers[0].differences["arm"]
    assert alone.decision == TOO_FEW
    assert alone.interval is None


def test_own_seeds_of_the_baseline_judge_a_single_run() -> None:
    """Baseline 10.0, 10.2, 10.4, 10.6: variance 0.0667 with 3 degrees of freedom; a run against their mean 10.3 has
    a standard error of sqrt(0.0667 (1 + 1/4)) = 0.2887, and t = 3.182: 11.3 is outside 0.919, 11.1 is inside."""
    for score, decided in ((11.3, "better"), (11.1, NOISE)):
        report = build(study({"base": [10.0, 10.2, 10.4, 10.6], "arm": [score]}, "shapes"), 0)
        found = report.answers[0].differences["arm"]
        assert found.interval is not None
        assert found.interval.half_width == pytest.approx(3.182446 * 0.288675, abs=1e-5)
        assert found.decision == decided
        assert not found.paired
        assert accuracy(report).rows[1].cells[1].text == "1†"
    two = build(study({"base": [10.0, 10.2], "arm": [99.0]}, "shapes"), 0).answers[0].differences["arm"]
    assert two.decision == TOO_FEW  # one degree of freedom does not tell what the noise is


def test_five_seeds_need_no_prior() -> None:
    five = [37.8, 37.9, 37.7, 37.8, 37.95]
    found = build(
        study({"base": five, "arm": [x + d for x, d in zip(five, [0.1, 0.2, 0.1, 0.3, 0.2], strict=True)]}), 0
    )
    interval = found.answers[0].differences["arm"].interval
    assert interval is not None
    assert not interval.prior
    assert interval.df == 4


def test_a_refused_prior_is_said() -> None:
    report = build(study({"base": [30.0, 37.0, 33.0], "arm": [36.0, 31.0, 30.0]}), 0)
    interval = report.answers[0].differences["arm"].interval
    assert interval is not None
    assert not interval.prior
    assert "differ more than in the public runs" in " ".join(interval_notes(report))


def test_a_narrow_terminal_says_how_many_seeds_would_settle_a_row() -> None:
    report = build(study({"base": [37.8, 37.9], "arm": [37.9, 37.8]}), resamples=0, aim=Aim(0.1))
    console = Console(record=True, width=80)
    show(report, console)
    need = report.answers[0].more_seeds["arm"].seeds
    assert need is not None
    assert need > 5
    text = " ".join(console.export_text().split())
    told = "To see a true difference of 0.1 points with 80 % chance takes in box AP"
    assert f"{told} {need} more seeds for arm and for the baseline" in text
    assert text.count("To see a true difference") == 1
    row = next(row for row in accuracy(report).records() if row["metric"] == "box AP" and row["arm"] == "arm")
    assert row["more_seeds"] == need


def test_all_metrics_and_arms_share_one_sentence_on_more_seeds() -> None:
    report = build(study({"base": [37.8, 37.9], "arm": [37.9, 37.8]}), resamples=0)
    box, mask = replace(report.answers[0], metric="box/AP"), replace(report.answers[0], metric="mask/AP")
    needs = {"pool": MoreSeeds(2), "roi": MoreSeeds(2), "deep": MoreSeeds(1), "old": MoreSeeds(0)}
    needs |= {"wide": MoreSeeds(None), "few": MoreSeeds(None, images_forbid=True)}
    answers = (replace(box, more_seeds={"pool": MoreSeeds(2)}), replace(mask, more_seeds=needs))
    assert settling(replace(report, answers=answers)) == [
        "To see a true difference of 0.4 points with 80 % chance takes in box AP 2 more seeds for pool and for the "
        "baseline; in mask AP 2 more seeds for each of pool and roi and for the baseline, 1 more seed for deep and "
        "for the baseline, nothing more for old (it would have shown), more than 1,000 more seeds for wide "
        "and for the baseline, more test images, not seeds, for few."
    ]
    same = replace(report, answers=(answers[0], replace(answers[0], metric="mask/AP")))
    assert "takes in box AP and mask AP 2 more seeds for pool and for the baseline." in settling(same)[0]


def test_the_decision_needs_the_corrected_p() -> None:
    """Seven single runs, one 0.31 away: p = 0.044 alone, 7 times that in a table of seven."""
    scores = {"base": [37.8]} | {f"arm{i}": [37.8] for i in range(6)} | {"far": [38.11]}
    differences = build(study(scores), 0).answers[0].differences
    far = differences["far"]
    assert far.p is not None
    assert far.p_holm == pytest.approx(7 * far.p)
    assert far.p < 0.05
    assert far.decision == NOISE
    two = build(study({"base": [37.8], "far": [38.11]}), 0).answers[0].differences["far"]
    assert two.decision == "better"
    assert two.p_holm == two.p


def test_mixed_data_take_no_public_prior() -> None:
    both = study({"a": [37.0], "b": [37.0]})
    other = replace(both.arms[1].runs[0], config={"data.name": "shapes"})
    mixed = replace(both, arms=(both.arms[0], replace(both.arms[1], runs=(other,))))
    assert prior.choose(mixed).kind == "own"


def test_decision_number_and_sentence_agree_where_short_runs_of_two_seeds_learned_nothing() -> None:
    report = build(study({"gn": [0.06, 0.05], "bn": [0.0, 0.0]}, "shapes", metrics=("box/AP",)), resamples=0)
    row = next(row for row in accuracy(report).records() if row["arm"] == "bn")
    assert (row["decision"], row["more_seeds"]) == ("too few seeds", 2)
    assert "takes in box AP 2 more seeds for bn and for the baseline" in settling(report)[0]


@pytest.mark.parametrize(("level", "told"), [(0.06, True), (1.2, False)])
def test_runs_that_learned_nothing_are_said_to_have(level: float, told: bool) -> None:
    report = build(study({"gn": [level, level], "bn": [0.0, 0.0]}, "shapes", metrics=("box/AP",)), resamples=0)
    notes = interval_notes(report)
    assert any(note.startswith("No arm has learned anything yet (box AP below 1)") for note in notes) == told
