"""Ablation files: a question, the baseline and the arms that are compared with it. docs/sweeps.md has the format."""

import csv
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.paths import ablations_dir, published_dir
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError
from mrbench.study import checked
from mrbench.study.factors import arm_of, combinations, joined
from mrbench.study.seeds import parse_seeds
from mrbench.study.study import KNOWN_METRICS, METRICS, SCALES, Arm, Scale, Study

STUDY_KEYS = (
    "title", "question", "note", "base", "baseline", "arms", "factors", "exclude", "seeds", "metrics", "scales",
)  # fmt: skip
ARM_KEYS = ("builds_on", "overrides", "published", "note", *SCALES)
SCALE_KEYS = ("base", "without", "note")


def study_names() -> list[str]:
    """The studies that come with mrbench."""
    return sorted(p.stem for p in ablations_dir().glob("*.yaml"))


def find_study(name: str) -> Path:
    """The file of a study: a path, or the name of one that comes with mrbench. Raises UserError."""
    for path in (Path(name), ablations_dir() / f"{name}.yaml", ablations_dir() / Path(name).name):
        if path.is_file() and path.suffix in (".yaml", ".yml"):
            return path
    if Path(name).is_file():
        raise UserError(f"{name} is not an ablation file", "Ablation files end in .yaml.")
    raise UserError(
        f"There is no study '{name}'",
        did_you_mean(Path(name).stem, study_names(), "Give an ablation file, or overrides as model.norm=gn,bn."),
    )


def recorded_source(source: str) -> str:
    """A study's source as its record has it: one that comes with mrbench by its name, wherever mrbench lies on this
    machine; a person's own file, or a grid, as it was given."""
    path = Path(source)
    shipped = path.stem in study_names() and path.resolve() == (ablations_dir() / path.name).resolve()
    return path.stem if shipped else source


def load_study(name: str) -> Study:
    """Reads and checks an ablation file (nothing is composed yet). Raises UserError naming file and place."""
    path = find_study(name)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), checked.Loader)
        return _study(path, content)
    except UserError as error:
        raise UserError(f"{path}: {error.what}", error.hint) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {_of_yaml(error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}") from error


def _of_yaml(error: yaml.YAMLError) -> str:
    """On one line, without the name that YAML has for a text, as its file's is told already."""
    return " ".join(str(error).split()).replace('in "<unicode string>", line', "at line")


def _study(path: Path, content: Any) -> Study:
    found = checked.mapping(content, "the file", STUDY_KEYS)
    arms = _arms(found)
    baseline = found.get("baseline")
    if baseline is None:
        raise UserError("baseline is missing", f"Name one of the arms: {', '.join(list(arms)[:8])}.")
    if str(baseline) not in arms:
        raise UserError(
            f"the baseline '{baseline}' is not an arm{checked.line_of(found, 'baseline')}",
            did_you_mean(str(baseline), arms),
        )
    metrics = found.get("metrics") or list(METRICS)
    for metric in metrics if isinstance(metrics, list) else [metrics]:
        if metric not in KNOWN_METRICS:
            raise UserError(
                f"metrics: '{metric}' is not a metric{checked.line_of(found, 'metrics')}",
                did_you_mean(str(metric), KNOWN_METRICS, "They are called box/AP, box/AP50, mask/APs ..."),
            )
    scales = checked.mapping(found.get("scales"), "scales", SCALES)
    return Study(
        name=path.stem,
        title=checked.text(found, "title") or path.stem,
        question=checked.text(found, "question"),
        note=checked.text(found, "note"),
        base=checked.overrides(found.get("base"), "base"),
        baseline=str(baseline),
        arms=tuple(arms.values()),
        seeds=tuple(parse_seeds(found.get("seeds", [0]), f"seeds{checked.line_of(found, 'seeds')}")),
        metrics=tuple(map(str, metrics if isinstance(metrics, list) else [metrics])),
        scales={
            name: _scale(f"scale {name}{checked.line_of(scales, name)}", scales[name], set(arms), str(baseline))
            for name in scales
        },
        source=str(path),
    )


def _arms(found: checked.Mapping) -> dict[str, Arm]:
    """Name -> arm: the named ones, then the factors' combinations."""
    given = checked.mapping(found.get("arms"), "arms")
    named: dict[str, Arm] = {}
    for name, value in given.items():
        named[str(name)] = _arm(str(name), value, f"arm {name}{checked.line_of(given, name)}", named)
    arms = dict(named)
    for arm in combinations(checked.mapping(found.get("factors"), "factors"), found.get("exclude")):
        if arm.name in named:
            del arms[arm.name]  # it stands where the grid has it
            arms[arm.name] = replace(joined([arm, named.pop(arm.name)]), name=arm.name)
        elif arm.name in arms:
            raise UserError(f"two arms are called '{arm.name}'", "Give each level of a factor its own name.")
        else:
            arms[arm.name] = arm
    if not arms:
        raise UserError("there are no arms", "Write them under arms:, or as a grid under factors:.")
    return arms


def _arm(name: str, value: Any, where: str, earlier: dict[str, Arm]) -> Arm:
    arm = arm_of(name, value, where, ARM_KEYS)
    rows = published_rows()
    if arm.published is not None and arm.published not in rows:
        raise UserError(
            f"{where}: there is no published row '{arm.published}'",
            did_you_mean(str(arm.published), rows, "The rows are the ids in results/published/accuracy.csv."),
        )
    first = value.get("builds_on") if isinstance(value, checked.Mapping) else None
    if first is None:
        return arm
    if str(first) not in earlier:
        raise UserError(
            f"{where} builds on '{first}', which is no arm before it",
            did_you_mean(str(first), earlier, "An arm builds on one that stands above it."),
        )
    below = replace(earlier[str(first)], published=None, note="")
    return replace(joined([below, arm]), name=name)


def _scale(where: str, value: Any, arms: set[str], baseline: str) -> Scale:
    found = checked.mapping(value, where, SCALE_KEYS)
    without = found.get("without") or []
    for name in without if isinstance(without, list) else [without]:
        if str(name) not in arms:
            raise UserError(f"{where}: without: '{name}' is not an arm", did_you_mean(str(name), sorted(arms)))
        if str(name) == baseline:
            raise UserError(f"{where}: without the baseline '{name}' there is nothing to compare with")
    return Scale(
        checked.overrides(found.get("base"), where),
        tuple(map(str, without if isinstance(without, list) else [without])),
        checked.text(found, "note"),
    )


@cache
def published_rows() -> tuple[str, ...]:
    """Ids of results/published/accuracy.csv."""
    with (published_dir() / "accuracy.csv").open(newline="", encoding="utf-8") as file:
        return tuple(row["id"] for row in csv.DictReader(file))
