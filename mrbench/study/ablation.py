"""Ablation files: a question, a baseline and the arms that are compared with it.

title: Batch norm at a small batch
question: Does group norm train better than batch norm with two images a batch?
note: what a reader must know before believing the answer
base: [data=shapes, model=mask_rcnn_small]
baseline: gn
arms:
  gn: [model.norm=gn]
  bn: {overrides: [model.norm=bn], published: lsj/table/baseline, note: statistics of two images}
factors:                          # a grid besides the named arms; an arm is called as it is overridden
  optimizer.weight_decay: [4e-5, 1e-4]
exclude: [{optimizer.weight_decay: 1e-4}]
seeds: 0-2
metrics: [box/AP, mask/AP]
scales:                           # one question, two sizes
  small: {base: [schedule=small], note: minutes on a CPU}
  full: {base: [recipe=mask_rcnn_r50_fpn_3x], note: a day on 8 GPUs}
"""

import csv
import itertools
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from mrbench.config.paths import ablations_dir, published_dir
from mrbench.config.suggest import did_you_mean
from mrbench.errors import UserError
from mrbench.study.seeds import parse_seeds

STUDY_KEYS = (
    "title", "question", "note", "base", "baseline", "arms", "factors", "exclude", "seeds", "metrics", "scales",
)  # fmt: skip
ARM_KEYS = ("overrides", "published", "note")
SCALE_KEYS = ("base", "note")
SCALES = ("small", "full")
METRICS = ("box/AP", "mask/AP")


@dataclass(frozen=True)
class Arm:
    """One thing that is tried: what it overrides, the published row it answers to, and what to know about it."""

    name: str
    overrides: tuple[str, ...] = ()
    published: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Scale:
    """The same question at another size: overrides that come after the study's base."""

    base: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True)
class Study:
    """A question with its arms. `source` is what errors name: the file, or the command's grid."""

    name: str
    arms: tuple[Arm, ...]
    baseline: str
    title: str = ""
    question: str = ""
    base: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    metrics: tuple[str, ...] = METRICS
    scales: dict[str, Scale] = field(default_factory=dict)
    scale: str | None = None
    note: str = ""
    source: str = ""

    def at_scale(self, scale: str | None = None) -> "Study":
        """The study at one of its scales: `small` where none is asked for and the study has it.

        A scale has a record of its own (`norm-small`, `norm-full`), so that the two are never in one table.
        Raises UserError for a scale that the study does not have.
        """
        if self.scale is not None or (scale is None and not self.scales):
            return self
        chosen = scale or ("small" if "small" in self.scales else next(iter(self.scales)))
        if chosen not in self.scales:
            raise UserError(
                f"{self.source}: there is no scale '{chosen}'",
                did_you_mean(chosen, self.scales, "The study has one scale only: leave --scale out."),
            )
        at = self.scales[chosen]
        return replace(
            self,
            name=f"{self.name}-{chosen}",
            base=self.base + at.base,
            scale=chosen,
            note=" ".join(filter(None, (self.note, at.note))),
            scales={},
        )


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, for which a key that comes twice is an error instead of the last one winning."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise UserError(f"'{key}' stands twice (line {line})", "Give each its own name, or remove one.")
            seen.add(key)
        return super().construct_mapping(node, deep)


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


def load_study(name: str) -> Study:
    """Reads and checks an ablation file (nothing is composed yet). Raises UserError naming file and place."""
    path = find_study(name)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
        return _study(path, content)
    except UserError as error:
        raise UserError(f"{path}: {error.what}", error.hint) from error
    except yaml.YAMLError as error:
        raise UserError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read {path}: {error}") from error


def _study(path: Path, content: Any) -> Study:
    found = _mapping(content, "the file", STUDY_KEYS)
    arms = [_arm(str(name), value) for name, value in _mapping(found.get("arms"), "arms").items()]
    arms += _grid(_mapping(found.get("factors"), "factors"), found.get("exclude") or [])
    if not arms:
        raise UserError("there are no arms", "Write them under arms:, or as a grid under factors:.")
    names = [a.name for a in arms]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice:
        raise UserError(f"two arms are called '{twice}'", "Give each its own name.")
    baseline = found.get("baseline")
    if baseline is None:
        raise UserError("baseline is missing", f"Name one of the arms: {', '.join(names[:8])}.")
    if str(baseline) not in names:
        raise UserError(f"the baseline '{baseline}' is not an arm", did_you_mean(str(baseline), names))
    metrics = found.get("metrics") or list(METRICS)
    for metric in metrics if isinstance(metrics, list) else [metrics]:
        if not re.fullmatch(r"(box|mask|keypoint|proposal)/A[PR]\w*", str(metric)):
            raise UserError(f"metrics: '{metric}' is not a metric", "They are called box/AP, box/AP50, mask/APs ...")
    scales = _mapping(found.get("scales"), "scales", SCALES)
    return Study(
        name=path.stem,
        title=_text(found, "title") or path.stem,
        question=_text(found, "question"),
        note=_text(found, "note"),
        base=_overrides(found.get("base"), "base"),
        baseline=str(baseline),
        arms=tuple(arms),
        seeds=tuple(parse_seeds(found.get("seeds", [0]), "seeds")),
        metrics=tuple(map(str, metrics if isinstance(metrics, list) else [metrics])),
        scales={str(name): _scale(str(name), value) for name, value in scales.items()},
        source=str(path),
    )


def _mapping(value: Any, where: str, known: tuple[str, ...] | None = None) -> dict[Any, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where} is not a mapping of names to values")
    for key in value:
        if known is not None and key not in known:
            raise UserError(f"unknown key '{key}' in {where}", did_you_mean(str(key), known))
    return value


def _text(found: dict[Any, Any], key: str) -> str:
    value = found.get(key)
    if value is not None and not isinstance(value, str):
        raise UserError(f"{key} is not a text")
    return " ".join((value or "").split())


def _overrides(value: Any, where: str) -> tuple[str, ...]:
    """A list of overrides, or one of them alone."""
    items = [] if value is None else value if isinstance(value, list) else [value]
    for item in items:
        if not isinstance(item, str) or "=" not in item:
            raise UserError(f"{where}: '{item}' is not an override", "Write a list of key=value, as [model.norm=bn].")
    return tuple(items)


def _arm(name: str, value: Any) -> Arm:
    where = f"arm {name}"
    if value is None or isinstance(value, str | list):
        return Arm(name, _overrides(value, where))
    found = _mapping(value, where, ARM_KEYS)
    published = found.get("published")
    if published is not None:
        rows = published_rows()
        if published not in rows:
            raise UserError(
                f"{where}: there is no published row '{published}'",
                did_you_mean(str(published), rows, "The rows are the ids in results/published/accuracy.csv."),
            )
    return Arm(name, _overrides(found.get("overrides"), where), published, _text(found, "note"))


def _scale(name: str, value: Any) -> Scale:
    where = f"scale {name}"
    found = _mapping(value, where, SCALE_KEYS)
    return Scale(_overrides(found.get("base"), where), _text(found, "note"))


def published_rows() -> list[str]:
    """Ids of results/published/accuracy.csv."""
    with (published_dir() / "accuracy.csv").open(newline="", encoding="utf-8") as file:
        return [row["id"] for row in csv.DictReader(file)]


def override_value(value: Any) -> str:
    """A YAML value as Hydra's grammar writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{','.join(map(override_value, value))}]"
    return str(value)


def _grid(factors: dict[Any, Any], exclude: Any) -> list[Arm]:
    """One arm for each combination of the factors' values, the last factor varying fastest, less the excluded."""
    if not factors:
        if exclude:
            raise UserError("exclude has nothing to exclude from: there are no factors")
        return []
    choices: dict[str, list[str]] = {}
    for key, values in factors.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"factors: {key} needs a list of values")
        choices[str(key)] = [override_value(v) for v in values]
    excluded = _exclusions(exclude, choices)
    arms = []
    for combination in itertools.product(*choices.values()):
        chosen = dict(zip(choices, combination, strict=True))
        if any(matches(chosen) for matches in excluded):
            continue
        parts = tuple(f"{k}={v}" for k, v in chosen.items())
        arms.append(Arm(",".join(parts), parts))
    return arms


def _exclusions(exclude: Any, choices: dict[str, list[str]]) -> list[Callable[[dict[str, str]], bool]]:
    if not isinstance(exclude, list):
        raise UserError("exclude is not a list", "Write [{model.norm: bn, optimizer.lr: 0.02}].")
    rules: list[dict[str, str]] = []
    for item in exclude:
        rule = {str(k): override_value(v) for k, v in _mapping(item, "exclude", tuple(choices)).items()}
        for key, value in rule.items():
            if value not in choices[key]:
                raise UserError(
                    f"exclude: {key}={value} is not among its factor's values", did_you_mean(value, choices[key])
                )
        if rule:
            rules.append(rule)

    def matcher(rule: dict[str, str]) -> Callable[[dict[str, str]], bool]:
        return lambda chosen: all(chosen[k] == v for k, v in rule.items())

    return [matcher(rule) for rule in rules]
