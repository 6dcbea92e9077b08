"""The report in words: numbers as text, the answer in a sentence, a sentence an arm, its command."""

import shlex

from mrbench.report.build import Answer, Report
from mrbench.report.collect import Arm
from mrbench.report.planning import MOST, MoreSeeds
from mrbench.report.run_record import RunRecord
from mrbench.report.statistics import NOISE, TOO_FEW, Difference

NOTHING = "–"
GUIDE = "docs/reading-a-report.md"  # of the repository; a page that is sent on has no other way to name it
BORROWED = "†"  # behind the number of seeds: the noise of the row comes from elsewhere
BORROWED_BELOW = 3  # seeds
STATES = ("completed", "running", "interrupted", "pending", "preempted", "diverged", "failed", "missing", "damaged")


def number(value: float | None, digits: int) -> str:
    """`26.6`, with a real minus sign; a dash for nothing."""
    if value is None:
        return NOTHING
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def signed(value: float | None, digits: int) -> str:
    """`+0.4`, `−1.7`, `0.0`."""
    text = number(value, digits)
    return f"+{text}" if value is not None and float(f"{value:.{digits}f}") > 0 else text


def metric_name(metric: str) -> str:
    """`box/AP75` as `box AP75`."""
    return metric.replace("/", " ")


def gibibytes(value: float | None) -> str:
    return NOTHING if value is None else f"{value / 2**30:.1f} GiB" if value >= 2**30 else f"{value / 2**20:.0f} MiB"


def kilowatt_hours(joules: float | None) -> str:
    return NOTHING if joules is None else f"{joules / 3.6e6:.3g} kWh"


def duration(hours: float | None) -> str:
    """`34 s`, `12 min`, `5.3 h`."""
    if hours is None:
        return NOTHING
    if hours * 3600 < 90:
        return f"{hours * 3600:.0f} s"
    return f"{hours * 60:.0f} min" if hours < 1.5 else f"{hours:.1f} h"


def speed(value: float | None) -> str:
    """Three digits are what a throughput is good for."""
    if value is None:
        return NOTHING
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def p_value(value: float | None) -> str:
    if value is None:
        return NOTHING
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def listed(items: list[str]) -> str:
    """`a, b and c`."""
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]])) if items else ""


def states(arm: Arm) -> str:
    """`2 completed, 1 failed`."""
    found = [f"{arm.count(state)} {state}" for state in STATES if arm.count(state)]
    return ", ".join(found) or "no runs"


def difference(found: Difference, digits: int) -> str:
    """`−5.5 ± 1.4`: the half-width of the 95 % interval; without one, the bare difference in brackets."""
    if found.mean is None:
        return NOTHING
    if found.interval is None:
        return f"({signed(found.mean, digits)})"
    return f"{signed(found.mean, digits)} ± {number(found.interval.half_width, digits)}"


def seeds(report: Report, answer: Answer, arm: Arm) -> str:
    """`3`, `2 of 3`, `1†` where one or two seeds are judged by a noise that was measured elsewhere."""
    n = answer.summaries[arm.name].n
    text = f"{n}" if n == len(arm.runs) else f"{n} of {len(arm.runs)}"
    found = answer.differences.get(arm.name)
    return text + BORROWED if found and borrowed(found) else text


def borrowed(found: Difference) -> bool:
    """Whether the noise of a row with one or two seeds is a prior's, or that of other arms."""
    if found.interval is None or found.decision == TOO_FEW:
        return False
    return found.fewest_seeds < 2 or (found.fewest_seeds < BORROWED_BELOW and found.interval.prior)


def more_seeds(need: MoreSeeds | None) -> str:
    """`7`; `>1,000`; a dash for a row that is decided, or whose noise is not known."""
    if need is None or need.images_forbid:
        return NOTHING
    return f">{MOST:,}" if need.seeds is None else f"{need.seeds}"


def headline(report: Report) -> str:
    """The answer in one sentence."""
    study, challengers = report.study, report.challengers
    if not any(summary.n for answer in report.answers for summary in answer.summaries.values()):
        return "No run of this study has finished yet: there is nothing to compare."
    if not challengers:
        return "There is one arm: nothing to compare it with."
    groups: dict[str, list[str]] = {}
    for name in challengers:
        groups.setdefault(verdict(report, name), []).append(name)
    clauses = []
    for word, phrase in (
        ("better", "better than {base}"),
        ("worse", "worse than {base}"),
        ("mixed", "both better and worse, by metric"),
        (NOISE, "inside the noise"),
        (TOO_FEW, "not settled: too few seeds"),
        (NOTHING, "without a result"),
    ):
        if names := groups.get(word):
            verb = "is" if len(names) == 1 else "are"
            clauses.append(f"{listed(names)} {verb} {phrase.format(base=study.baseline)}")
    return "; ".join(clauses) + "."


def verdict(report: Report, arm: str) -> str:
    """One word over the metrics: a decision that any metric reached and none contradicts; `mixed` where they do;
    a dash where the arm has no result."""
    found = {answer.differences[arm].decision for answer in report.answers if answer.summaries[arm].n}
    if not found:
        return NOTHING
    if {"better", "worse"} <= found:
        return "mixed"
    return next(word for word in ("better", "worse", TOO_FEW, NOISE) if word in found)


def sentence(report: Report, arm: Arm) -> str:
    """What the study says about one arm, from the numbers."""
    answers = [answer for answer in report.answers if answer.summaries[arm.name].n]
    if not answers:
        return f"No finished run ({states(arm)})."
    if arm.name == report.study.baseline:
        levels = [
            f"{number(answer.summaries[arm.name].mean, answer.digits)} {metric_name(answer.metric)}"
            for answer in answers
        ]
        return f"Reaches {listed(levels)} over {plural(answers[0].summaries[arm.name].n, 'seed')}."
    groups: dict[str, list[str]] = {}
    for answer in answers:
        found = answer.differences[arm.name]
        groups.setdefault(found.decision, []).append(
            f"{metric_name(answer.metric)} {difference(found, answer.digits)}"
        )
    phrases = {"better": "Better", "worse": "Worse", NOISE: "Inside the noise", TOO_FEW: "Too few seeds to tell"}
    clauses = [f"{phrases[word]}: {listed(groups[word])}" for word in phrases if word in groups]
    text = "; ".join(clause if i == 0 else clause[0].lower() + clause[1:] for i, clause in enumerate(clauses)) + "."
    return text + _published_clause(report, arm.name)


def _published_clause(report: Report, arm: str) -> str:
    changes = [
        f"{metric_name(answer.metric)} {signed(answer.published_changes[arm], 1)}"
        for answer in report.answers
        if arm in answer.published_changes
    ]
    return f" Published change: {listed(changes)}." if changes else ""


def command(report: Report, arm: Arm) -> str | None:
    """What runs this row again; None where the record does not tell."""
    if report.study.by_hand or not arm.overrides:
        commands = [run.provenance.get("command") for run in arm.runs if run.provenance]
        return str(commands[0]) if commands and commands[0] else None
    seeds = ",".join(str(run.seed) for run in arm.runs)
    overrides = [item for item in arm.overrides if not item.startswith("seed=")]
    return shlex.join(["mrbench", "sweep", *overrides]) + (f" seed={seeds}" if seeds else "")


def commands(report: Report) -> list[str]:
    """What runs everything again: the study's one command, or where it has none each arm's below its name."""
    if report.study.command:
        return report.study.command.split("\n")
    return [f"# {arm.name}\n{line}" for arm in report.study.arms if (line := command(report, arm))]


def problems(report: Report) -> list[str]:
    """One line for each run without a result."""
    return [
        f"{run.arm}, {seed_name(report, run)}: {run.state}" + (f" ({run.problem})" if run.problem else "")
        for run in report.study.runs
        if run.state != "completed" or not run.metrics
    ]


def seed_name(report: Report, run: RunRecord) -> str:
    """`seed 7`; in arms that were made by hand with the run's hash, as several may have the same seed."""
    tag = f" ({run.run_id.rpartition('-')[2]})" if report.study.by_hand and run.run_id else ""
    return f"seed {run.own_seed}{tag}"
