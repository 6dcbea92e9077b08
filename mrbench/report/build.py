"""A study's answers: every arm's mean, difference and decision, by metric. All tables and charts come from it."""

from dataclasses import dataclass, replace

from mrbench.evaluation.bootstrap import RESAMPLES
from mrbench.report import detail, images, planning, reproduction, sequential, statistics
from mrbench.report import prior as priors
from mrbench.report.collect import Study
from mrbench.report.detail import Detail
from mrbench.report.planning import Aim, MoreSeeds
from mrbench.report.prior import Prior
from mrbench.report.reproduction import Beside
from mrbench.report.statistics import Difference, Noise, Spread, Summary

MOST_CHARTED = 20  # arms


@dataclass(frozen=True)
class Answer:
    """One metric of a study. `differences` has every arm but the baseline."""

    metric: str
    summaries: dict[str, Summary]
    differences: dict[str, Difference]
    noise: Noise
    more_seeds: dict[str, MoreSeeds]  # undecided arm -> what would settle it
    published: dict[str, float]  # arm -> published value, where the arm names a row that has one
    published_changes: dict[str, float]
    beside: dict[str, Beside]  # arm -> ours beside the published, of all that name a row

    @property
    def pairs(self) -> Spread:
        return self.noise.pairs

    @property
    def within(self) -> Spread:
        return self.noise.within

    @property
    def digits(self) -> int:
        """Decimals worth printing: the second one means something only where seeds differ by less than 0.5."""
        return 2 if self.within.df and self.within.sd < 0.5 else 1


@dataclass(frozen=True)
class Report:
    study: Study
    answers: tuple[Answer, ...]
    resamples: int  # of images; 0: intervals hold the choice of seeds only
    image_problem: str  # why intervals do not hold the choice of images, or not in all rows
    prior: Prior
    aim: Aim
    detail: Detail

    @property
    def challengers(self) -> list[str]:
        """The arms that are compared with the baseline."""
        return [arm.name for arm in self.study.arms if arm.name != self.study.baseline]


def charted(report: Report) -> Report:
    """What charts show: all arms, or of more than `MOST_CHARTED` the baseline and those that differ most from it by
    the first metric with a result. A chart of a hundred arms cannot be read, and takes longer than all the rest."""
    study = report.study
    if len(study.arms) <= MOST_CHARTED:
        return report
    changes: dict[str, float] = {}
    for answer in reversed(report.answers):
        changes |= {name: abs(d.mean) for name, d in answer.differences.items() if d.mean is not None}
    most = sorted(changes, key=lambda name: -changes[name])[: MOST_CHARTED - 1]
    arms = tuple(arm for arm in study.arms if arm.name == study.baseline or arm.name in most)
    return replace(report, study=replace(study, arms=arms))


def build(study: Study, resamples: int = RESAMPLES, prior: str = "auto", aim: Aim | None = None) -> Report:
    """Every number of the report. `resamples=0` leaves the choice of images out; `prior` is one of `prior.KINDS`.

    Raises UserError where an arm names a published row that does not exist.
    """
    known, aim = priors.choose(study, prior), aim or Aim()
    sampler = images.Sampler(study, resamples)
    answers = tuple(_answer(study, metric, sampler, known, aim) for metric in study.metrics)
    return Report(study, answers, sampler.resamples, sampler.problem, known, aim, detail.build(study, sampler))


def looks(study: Study, metric: str, sampler: images.Sampler, prior: Prior) -> sequential.Outcome | None:
    """What the looks at a study that grew seed by seed have decided; None for one whose seeds were fixed."""
    if study.until is None:
        return None
    return sequential.look_back(
        {arm.name: arm.scores(metric) for arm in study.arms},
        study.baseline,
        sequential.Design(*study.until),
        prior.spread(metric),
        prior.fewest_seeds,
        {arm.name: sampler.of_difference(metric, arm.name, study.baseline) for arm in study.arms},
    )


def _answer(study: Study, metric: str, sampler: images.Sampler, prior: Prior, aim: Aim) -> Answer:
    scores = {arm.name: arm.scores(metric) for arm in study.arms}
    noise = statistics.noise_of(scores, prior.spread(metric), prior.fewest_seeds)
    baseline = study.baseline
    summaries = {
        name: statistics.summarise(own, noise, sampler.of_mean(metric, name, tuple(own)))
        for name, own in scores.items()
    }
    differences = {
        name: statistics.compare(own, scores[baseline], noise, sampler.of_difference(metric, name, baseline))
        for name, own in scores.items()
        if name != baseline
    }
    seen = looks(study, metric, sampler, prior)
    differences = sequential.decide(differences, seen) if seen else statistics.decide(differences, noise)
    needs = {name: planning.more_seeds(found, aim, len(differences)) for name, found in differences.items()}
    rows = {arm.name: arm.published for arm in study.arms if arm.published}
    found = {
        name: reproduction.beside(
            study.arm(name), row, rows.get(baseline), metric, summaries[name], differences.get(name)
        )
        for name, row in rows.items()
    }
    return Answer(
        metric=metric,
        summaries=summaries,
        differences=differences,
        noise=noise,
        more_seeds={name: need for name, need in needs.items() if need is not None},
        published={name: one.value for name, one in found.items() if one.value is not None},
        published_changes={name: one.change for name, one in found.items() if one.change is not None},
        beside=found,
    )
