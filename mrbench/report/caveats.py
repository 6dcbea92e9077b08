"""What a report says beside its numbers: what the intervals hold, and what the study cannot answer."""

from mrbench.report import arm_names, words
from mrbench.report.build import MOST_CHARTED, Answer, Report
from mrbench.report.planning import MOST, MoreSeeds
from mrbench.report.prior import WEIGHT as PUBLIC_WEIGHT
from mrbench.report.prior import public_runs
from mrbench.report.statistics import NOISE, OWN_SPREAD_FROM, TOO_FEW, Difference

UNLEARNT = 1.0  # AP below which an arm has learned next to nothing


def interval_notes(report: Report) -> list[str]:
    """What the intervals hold, with the noise they rest on."""
    if not report.challengers:
        return _spread_note(report)
    study = report.study
    notes = _spread_note(report)
    if study.baseline_because:
        notes.append(f"Baseline: {study.baseline}, {study.baseline_because}. --baseline NAME takes another arm.")
    pooled = [_noise(answer) for answer in report.answers if answer.pairs.df]
    found = [answer.differences[name] for answer in report.answers for name in report.challengers]
    if any(difference.interval for difference in found):
        holds = "the choice of seed"
        if report.resamples:
            holds += f" and of test images (bootstrap, {report.resamples:,} resamples of whole images)"
        paired = all(difference.paired for difference in found if difference.interval)
        pairing = "paired over shared seeds" if paired else "paired over shared seeds where there are any"
        notes.append(
            f"Differences to {report.study.baseline} are {pairing}; ± is half of the 95 % interval (Student's t), "
            f"which holds {holds}."
        )
        several = len(report.challengers)
        if report.study.until:
            notes.append(_growth_note(report.study.until))
        elif several > 1:
            notes.append(
                f"Each interval is for one comparison. Decisions and p are for a metric's {several} arms together "
                "(Holm's correction): 5 % chance that any arm that changes nothing is called better or worse."
            )
        if pooled and any(d.interval and d.interval.pooled for d in found):
            notes.append(f"The seed noise is pooled over the arms of the study: {words.listed(pooled)}.")
        notes += _prior_notes(report, found)
    if report.image_problem:
        notes.append(report.image_problem)
    if any(difference.decision == TOO_FEW and difference.mean is not None for difference in found):
        notes.append("Too few seeds: two shared seeds and 3 degrees of freedom are the least to call something noise.")
    return notes


def _growth_note(until: tuple[int, int]) -> str:
    first, most = until
    return (
        f"Seeds were added from {first} to at most {most} until an arm was decided. Decisions allow for all looks and "
        "arms together: 5 % chance that any arm that changes nothing is called better or worse. Intervals and p "
        "are those of the last look alone, and flatter an arm that was decided early."
    )


def _prior_notes(report: Report, found: list[Difference]) -> list[str]:
    """What noise was borrowed from elsewhere, and where it was not fit to be."""
    notes: list[str] = []
    used: list[Answer] = []
    refused: list[Answer] = []
    for answer in report.answers:
        if answer.noise.prior is None:
            continue
        own = [d.interval for d in answer.differences.values() if d.interval and d.interval.pooled]
        (refused if any(not interval.prior for interval in own) else used).append(answer)
    if used:
        spreads = words.listed(
            [f"{words.metric_name(a.metric)} sd {a.noise.prior.sd:.2f}" for a in used if a.noise.prior]
        )
        runs = sum(map(len, public_runs().values()))
        notes.append(
            f"Rows with fewer than {OWN_SPREAD_FROM} seeds take in the seed noise of {runs} public runs of Mask R-CNN "
            f"R50-FPN on COCO ({spreads}, counted as {PUBLIC_WEIGHT} degrees of freedom; --prior public)."
        )
        if report.prior.foreign:
            notes.append("These runs were not trained on COCO: the public seed noise may not be theirs.")
    if refused:
        names = words.listed([words.metric_name(answer.metric) for answer in refused])
        notes.append(f"{names}: seeds differ more than in the public runs, whose noise is not used.")
    if any(map(words.borrowed, found)):
        source = "the public runs" if used else "the study's other runs (--prior own)"
        notes.append(f"{words.BORROWED} One or two seeds on a side: how far seeds differ is taken from {source}.")
    return notes


def _spread_note(report: Report) -> list[str]:
    notes = [
        *report.study.warnings,
        "Mean ± sd: over an arm's own seeds, in percent.",
        *_divergence(report),
        *_unlearnt(report),
    ]
    if any(arm_names.abbreviated(arm.name) for arm in report.study.arms):
        notes.append(
            "(+1), (+2) behind an arm's name: it differs from others in one, two settings more than the name tells. "
            "The page and report.md list them all."
        )
    if len(report.study.arms) > MOST_CHARTED:
        notes.append(f"Charts show {MOST_CHARTED} arms: the baseline, and those that differ most from it.")
    return notes


def _divergence(report: Report) -> list[str]:
    """Arms of which runs diverged: their means are those of the runs that did not."""
    counts = [(arm.name, arm.count("diverged"), len(arm.runs)) for arm in report.study.arms]
    told = [f"{name} {bad} of {words.plural(total, 'run')}" for name, bad, total in counts if bad]
    return [f"Diverged, and left out of means and differences: {words.listed(told)}."] if told else []


def _unlearnt(report: Report) -> list[str]:
    """Whether no arm has learned anything yet, by every AP that the report is of."""
    levels: dict[str, list[float]] = {}
    for answer in report.answers:
        means = [mean for summary in answer.summaries.values() if (mean := summary.mean) is not None]
        if answer.metric.endswith("/AP") and means:
            levels[words.metric_name(answer.metric)] = means
    if not levels or max(map(max, levels.values())) >= UNLEARNT:
        return []
    return [
        f"No arm has learned anything yet ({words.listed(list(levels))} below {UNLEARNT:g}): what differs here says "
        "nothing of the arms; train longer."
    ]


def _noise(answer: Answer) -> str:
    sd = f"{answer.pairs.sd:.2f}"
    return f"{words.metric_name(answer.metric)} sd {sd} with {words.plural(answer.pairs.df, 'degree')} of freedom"


def cannot_answer(report: Report) -> list[str]:
    """Questions that this study leaves open: its own notes, and rows that are not settled."""
    lines = list(report.study.notes)
    lines += _undecided(report)
    if any(answer.published for answer in report.answers):
        lines.append(
            "Published values were measured on their own data at full length: compare changes, not levels, "
            "unless the arm trains that very recipe."
        )
    return lines


def _undecided(report: Report) -> list[str]:
    """Which arms no metric decided, and how large a difference would have had to be."""
    names = [name for name in report.challengers if words.verdict(report, name) in (NOISE, TOO_FEW)]
    widths = []
    for answer in report.answers:
        found = [answer.differences[name].interval for name in names]
        widest = max((interval.half_width for interval in found if interval), default=None)
        if widest is not None:
            widths.append(f"{words.number(widest, answer.digits)} {words.metric_name(answer.metric)}")
    if not widths:
        return []
    below = words.listed(widths)
    return [
        f"{words.listed(names)}: differences below about {below} cannot be told from noise with these runs.",
        *settling(report),
    ]


def settling(report: Report) -> list[str]:
    """A sentence for all metrics: how many more seeds would show a difference of the chosen size."""
    takes: dict[str, list[str]] = {}  # what it takes -> for which metrics
    for answer in report.answers:
        arms: dict[MoreSeeds, list[str]] = {}
        for name, need in answer.more_seeds.items():
            arms.setdefault(need, []).append(name)
        if arms:
            told = ", ".join(_need(need, names) for need, names in arms.items())
            takes.setdefault(told, []).append(words.metric_name(answer.metric))
    if not takes:
        return []
    aim, told = report.aim, "; ".join(f"in {words.listed(metrics)} {needs}" for needs, metrics in takes.items())
    return [f"To see a true difference of {aim.difference:g} points with {100 * aim.power:.0f} % chance takes {told}."]


def _need(need: MoreSeeds, arms: list[str]) -> str:
    if need.images_forbid:
        return f"more test images, not seeds, for {words.listed(arms)}"
    if need.seeds == 0:
        return f"nothing more for {words.listed(arms)} (it would have shown)"
    each = f"each of {words.listed(arms)}" if len(arms) > 1 else arms[0]
    count = f"more than {MOST:,} more" if need.seeds is None else f"{need.seeds} more"
    return f"{count} {'seed' if need.seeds == 1 else 'seeds'} for {each} and for the baseline"


def evaluation_notes(report: Report) -> list[str]:
    """What the evaluations said about themselves, each once."""
    return list(dict.fromkeys(note for run in report.study.runs for note in run.notes))
