"""Runs without a study file, and several studies at once: gathered, filtered, and put into arms by configuration."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from mrbench.config.suggest import did_you_mean, did_you_mean_of_own
from mrbench.errors import UserError
from mrbench.report import arm_names
from mrbench.report.collect import Arm, Study, default_metrics, load_study, study_names, with_divergence
from mrbench.report.rules import Rule, told, values_there
from mrbench.report.run_record import RunRecord, read_record, show
from mrbench.runs.files import read_json
from mrbench.runs.record import Run, find_runs, list_runs

LONGEST_NAME = 80  # of a folder that is called after several studies
MOST_VALUES = 6  # of a setting that a warning lists
MOST_SETTINGS = 3


def gather(root: Path, names: Sequence[str], rules: Sequence[Rule] = (), group_by: Sequence[str] = ()) -> Study:
    """One study of everything that is named: studies, runs, or (no name) all runs of `root`.

    `rules` choose among the runs. With `group_by` arms are made by the values of those keys, otherwise they are the
    studies' own, and for runs those that differ in the seed alone. Of several studies the first one's baseline
    holds; runs that all come from one study are compared with the arm that has its baseline's. Raises UserError
    where a name, a key or a value is not there.
    """
    studies, runs = split_names(root, names)
    found = [load_study(root, name) for name in studies]
    if runs or not names:
        found.append(_of_runs([read_record(run, "", 0) for run in runs or list_runs(root)], (), bool(runs)))
    everything = [run for study in found for run in study.runs]
    _check_keys([*(rule.key for rule in rules), *group_by], everything)
    if rules:
        found = [study for study in (_chosen(study, rules) for study in found) if study.arms]
        if not found:
            raise UserError(f"No run has {told(rules)}.", values_there(rules, everything))
    if group_by:
        unique = {run.folder or run.run_id or (run.arm, run.seed): run for study in found for run in study.runs}
        grouped = _of_runs(list(unique.values()), group_by, False)
        together = _joined(found)
        grouped = replace(grouped, metrics=together.metrics, notes=(*together.notes, *grouped.notes))
        return _against_the_study_s(root, studies, grouped)
    joined = _joined(found)
    return joined if studies or runs else _against_the_study_s(root, [], joined)


def _against_the_study_s(root: Path, named: Sequence[str], study: Study) -> Study:
    """`study`, whose arms were made anew, against the arm that has all runs of a study's baseline, where every run
    comes from that one study (one of those that are `named`, or any of `root`); otherwise as it is."""
    ids = {run.run_id for run in study.runs}
    found: dict[str, str] = {}  # arm -> the study that has it for its baseline
    for name in named or study_names(root):
        try:
            record = read_json(root / "studies" / f"{name}.json")
            own = {arm: set((item.get("runs") or {}).values()) for arm, item in record["arms"].items()}
            baseline = own[record.get("baseline") or next(iter(own))] & ids
        except (AttributeError, KeyError, StopIteration, TypeError, UserError):
            continue  # not a study: nothing that these runs need
        if baseline and ids <= set().union(*own.values()):
            holding = [arm.name for arm in study.arms if baseline <= {run.run_id for run in arm.runs}]
            found |= dict.fromkeys(holding, name)
    if len(found) != 1:
        return study
    ((baseline_arm, name),) = found.items()
    return replace(study, baseline=baseline_arm, baseline_because=f"as in the study {name}")


def split_names(root: Path, names: Sequence[str]) -> tuple[list[str], list[Run]]:
    """Which names are studies and which are runs; UserError with the nearest of both where one is neither."""
    known = study_names(root)
    studies, others = [], []
    for name in names:
        if name in known:
            studies.append(name)
        elif Path(name).suffix == ".yaml" and Path(name).stem in known:
            studies.append(Path(name).stem)
        else:
            others.append(name)
    try:
        runs = find_runs(root, others)
    except UserError as error:
        if "may be any of" in error.what:
            raise
        name = next(name for name in others if f"'{name}'" in error.what)
        near = did_you_mean_of_own(name, known + [run.run_id for run in list_runs(root)])
        sweep = "`mrbench sweep` makes studies; --root names another folder."
        raise UserError(f"There is no study or run {name!r} in '{root}'.", near or sweep) from error
    return list(dict.fromkeys(studies)), list({run.folder: run for run in runs}.values())


def _check_keys(keys: Sequence[str], runs: Sequence[RunRecord]) -> None:
    known = {key for run in runs for key in run.config}
    for key in keys:
        if known and key not in known:
            raise UserError(f"No run has the setting {key!r}.", did_you_mean(key, sorted(known)))


def _chosen(study: Study, rules: Sequence[Rule]) -> Study:
    """The study with the runs for which all rules hold, and the arms that are left."""
    arms = [
        replace(arm, runs=tuple(run for run in arm.runs if all(rule.holds(run) for rule in rules)))
        for arm in study.arms
    ]
    left = tuple(arm for arm in arms if arm.runs)
    baseline, because = study.baseline, study.baseline_because
    if left and not any(arm.name == baseline for arm in left):
        baseline, because = left[0].name, f"the first that is left, as no run of {baseline} has {told(rules)}"
    if not study.by_hand:
        return replace(study, arms=left, baseline=baseline, baseline_because=because)
    again = _of_runs([run for arm in left for run in arm.runs], (), True) if left else replace(study, arms=())
    title = f"{len(again.runs)} runs with {told(rules)}"
    return replace(again, title=title, baseline_because=study.baseline_because)


def _of_runs(runs: Sequence[RunRecord], group_by: Sequence[str], in_order: bool) -> Study:
    """Runs as a study. Arms by `group_by`, or by everything but the seed; the first is the baseline: that of the first
    run (`in_order`), or the least value."""
    if not runs:
        raise UserError("There is no run to report.", "`mrbench sweep` makes runs; --root names another folder.")
    groups: dict[arm_names.Key, list[RunRecord]] = {}
    for run in runs:
        science = _science(run)
        values = {key: science.get(key, show(run.config.get(key))) for key in group_by} if group_by else science
        key = tuple(values.items()) or ((run.run_id or "", ""),)
        groups.setdefault(key, []).append(run)
    keys = list(groups) if in_order else sorted(groups, key=lambda key: [_natural(value) for _, value in key])
    names = arm_names.of_groups(keys) if len(keys) > 1 or not group_by else [arm_names.of_values(keys[0])]
    varying = _varying(list(groups.values())) if group_by else []
    numbers = _numbers([groups[key] for key in keys], varying)
    arms = []
    for name, key, seeds in zip(names, keys, numbers, strict=True):
        members = [replace(run, arm=name, seed=seed) for run, seed in zip(groups[key], seeds, strict=True)]
        arms.append(Arm(name, (), None, "", tuple(sorted(members, key=lambda run: run.seed))))
    first = runs[0].run_id or "runs"
    note = (
        f"Runs of an arm differ in {', '.join(varying)} besides the seed: each combination with a seed counts as a "
        "seed, and arms are paired over those that both have."
    )
    name = first if len(runs) == 1 else f"{first}-and-{len(runs) - 1}-more"
    settings = ", ".join(group_by) or "the settings in which arms differ"
    because = (
        "the first run's" if in_order else f"the first by {settings}: the smallest number, or the first word by letter"
    )
    by = f"-by-{'-'.join(key.rpartition('.')[2] for key in group_by)}" if group_by else ""
    return Study(
        name=(f"{len(runs)}-runs{by}" if by else name),
        title=first if len(runs) == 1 else f"{len(runs)} runs" + (f" by {', '.join(group_by)}" if by else " compared"),
        question="",
        baseline=names[0],
        metrics=default_metrics(runs),
        arms=tuple(arms if group_by else map(with_divergence, arms)),  # a mixture's 0 may be that of a short schedule
        notes=(note,) if varying else (),
        by_hand=True,
        warnings=tuple(
            _mixture(name, groups[key]) for name, key in zip(names, keys, strict=True) if _varying([groups[key]])
        ),
        baseline_because=because,
    )


def _science(run: RunRecord) -> dict[str, str]:
    """What tells recipes apart, as text."""
    return {key: show(value) for key, value in run.science.items()}


def _natural(value: str) -> tuple[int, float, str]:
    """Numbers by size, before words by letter."""
    try:
        return 0, float(value), ""
    except ValueError:
        return 1, 0.0, value


def _varying(groups: Sequence[Sequence[RunRecord]]) -> list[str]:
    """Settings that are not the same for all runs of a group."""
    found: dict[str, None] = {}
    for group in groups:
        first, *others = (_science(run) for run in group)
        for other in others:
            found |= {key: None for key in sorted(first.keys() | other.keys()) if first.get(key) != other.get(key)}
    return list(found)


def _mixture(arm: str, runs: Sequence[RunRecord]) -> str:
    """`arm X mixes schedule.iterations=0,2,20`, and what to think of its mean."""
    told = []
    keys = _varying([runs])
    for key in keys[:MOST_SETTINGS]:
        values = sorted({_science(run).get(key, "nothing") for run in runs}, key=_natural)
        told.append(f"{key}={','.join(values[:MOST_VALUES])}" + (",..." if len(values) > MOST_VALUES else ""))
    more = len(keys) - MOST_SETTINGS
    settings = " and ".join(told) if more <= 0 else f"{', '.join(told)} and {more} more setting{'s' * (more != 1)}"
    return f"arm {arm} mixes {settings}: its mean and spread are not those of one configuration over seeds."


def _numbers(groups: Sequence[Sequence[RunRecord]], varying: Sequence[str]) -> list[list[int]]:
    """What pairs the runs of one group with those of another: their seed, or where they differ in more than the seed
    the place of (values, seed) among all that there are. Each number once a group."""
    own = [[(_values_of(run, varying), int(run.config.get("seed", 0))) for run in group] for group in groups]
    blocks = sorted({block for group in own for block in group})
    places = {block: place for place, block in enumerate(blocks)}
    numbers = []
    for group in own:
        taken: list[int] = []
        for block in group:
            number = places[block] if varying else block[1]
            while number in taken:  # the same under two identities, as of two versions of the code
                number += 1
            taken.append(number)
        numbers.append(taken)
    return numbers


def _values_of(run: RunRecord, keys: Sequence[str]) -> tuple[tuple[int, float, str], ...]:
    if not keys:
        return ()
    science = _science(run)
    return tuple(_natural(science.get(key, "")) for key in keys)


def _joined(studies: Sequence[Study]) -> Study:
    """Several studies as one: an arm with the same runs as one before it is that arm, one with the same name only is
    called `study/arm`."""
    if len(studies) == 1:
        return studies[0]
    arms: list[Arm] = []
    seen: dict[frozenset[str | None], str] = {}
    for study in studies:
        for arm in study.arms:
            runs = frozenset(run.run_id for run in arm.runs)
            if runs in seen:
                continue
            name = f"{study.name}/{arm.name}" if any(arm.name == other.name for other in arms) else arm.name
            seen[runs] = name
            arms.append(replace(arm, name=name, runs=tuple(replace(run, arm=name) for run in arm.runs)))
    name = "+".join(study.name for study in studies)
    return Study(
        name=name if len(name) <= LONGEST_NAME else f"{studies[0].name}+{len(studies) - 1}-more",
        title="; ".join(dict.fromkeys(study.title for study in studies)),
        question=" ".join(dict.fromkeys(study.question for study in studies if study.question)),
        baseline=studies[0].baseline,
        metrics=tuple(dict.fromkeys(metric for study in studies for metric in study.metrics)),
        arms=tuple(arms),
        notes=tuple(dict.fromkeys(note for study in studies for note in study.notes)),
        by_hand=all(study.by_hand for study in studies),
        command="\n".join(study.command for study in studies if study.command),
        warnings=tuple(f"{study.name}: {warning}" for study in studies for warning in study.warnings),
        baseline_because=studies[0].baseline_because or f"that of {studies[0].name}, the first study",
    )
