"""From overrides in Hydra's grammar to a validated `RunConfig`."""

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from mrbench.config.paths import conf_dir
from mrbench.config.scaling import scaled
from mrbench.config.schema import RunConfig
from mrbench.config.suggest import did_you_mean
from mrbench.config.validate import validate, validate_asked, validate_for_testing
from mrbench.errors import UserError


def groups(config_dir: Path | None = None) -> dict[str, list[str]]:
    """Hydra groups and their choices, from conf/ and a user's own folder. Raises UserError where that is none."""
    if config_dir is not None and not config_dir.is_dir():
        raise UserError(f"--config-dir is not a folder: {config_dir.resolve()}")
    found: dict[str, list[str]] = {}
    for top in (conf_dir(), config_dir):
        if top is None:
            continue
        for folder in sorted(p for p in top.iterdir() if p.is_dir()):
            names = (p.relative_to(folder).with_suffix("").as_posix() for p in sorted(folder.rglob("*.yaml")))
            found[folder.name] = list(dict.fromkeys([*found.get(folder.name, []), *names]))
    return found


def keys(node: Any = RunConfig, prefix: str = "") -> list[str]:
    """All keys of the configuration, dotted."""
    instance = node() if isinstance(node, type) else node
    found: list[str] = []
    for f in fields(instance):
        value = getattr(instance, f.name)
        found.append(f"{prefix}{f.name}")
        if is_dataclass(value):
            found += keys(value, f"{prefix}{f.name}.")
    return found


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar; raises UserError naming the one that cannot be read."""
    parser = OverridesParser.create()
    parsed = []
    for text in overrides:
        try:
            parsed.append(parser.parse_override(text))
        except HydraException as error:
            raise UserError(
                f"Cannot read the override '{text}'",
                "Write key=value, as optimizer.lr=0.01 or model=mask_rcnn_r50_fpn.",
            ) from error
    return parsed


def check_names(overrides: Sequence[Override], config_dir: Path | None = None) -> None:
    """Raises UserError with the nearest right names for an unknown key, group or choice."""
    known_groups, known_keys = groups(config_dir), keys()
    for override in overrides:
        key = override.key_or_group
        text = override.input_line or key
        if override.is_sweep_override():
            raise UserError(f"'{text}' asks for several runs", f"Use: mrbench sweep {text}")
        if override.is_add() or override.is_force_add() or override.is_delete():
            raise UserError(f"'{text}' adds or removes a key", "The configuration's keys are fixed: write key=value.")
        value = override.value()
        if key in known_groups and not isinstance(value, dict):
            choices = known_groups[key]
            for name in value if isinstance(value, list) else [value]:
                if name is not None and str(name) not in choices:
                    raise UserError(
                        f"{key}={name}: there is no {key} of that name",
                        did_you_mean(str(name), choices, f"There are: {', '.join(choices)}."),
                    )
        elif key not in known_keys and key not in known_groups:
            raise UserError(
                f"Unknown key '{key}' in '{text}'",
                did_you_mean(key, [*known_keys, *known_groups], "mrbench train --cfg prints all keys."),
            )


def compose_by_hydra(overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """What `mrbench.config.composer.compose` gives, composed by Hydra alone. Raises UserError."""
    return finished(_to_config(compose_node(overrides, config_dir), overrides))


def compose_as_written(overrides: Sequence[str] = (), config_dir: Path | None = None) -> RunConfig:
    """As `compose`, before `mrbench.config.scaling` fits the schedule to the batch: to show what that changes."""
    config = _to_config(compose_node(overrides, config_dir), overrides)
    validate(config)
    return config


def finished(config: RunConfig) -> RunConfig:
    """A composed configuration, checked, with its schedule fitted to its batch. Raises UserError."""
    validate(config)
    fitted = scaled(config)
    if fitted is not config:
        validate(fitted)
    validate_asked(fitted)
    return fitted


def compose_node(overrides: Sequence[str] = (), config_dir: Path | None = None) -> DictConfig:
    """What Hydra composes, with references (${model.norm}) not followed yet. Raises UserError."""
    if config_dir is not None:
        config_dir = config_dir.resolve()
    check_names(parse(overrides), config_dir)
    _store_schema()
    search = [f"hydra.searchpath=[file://{conf_dir()}]"] if config_dir else []
    top = config_dir if config_dir and (config_dir / "config.yaml").is_file() else conf_dir()
    if config_dir and top != config_dir:
        search = [f"hydra.searchpath=[file://{config_dir}]"]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(top), version_base="1.3"):
            return hydra_compose("config", overrides=[*overrides, *search])
    except (HydraException, OmegaConfBaseException) as error:
        raise _cannot_be(error, overrides) from error
    except YAMLError as error:
        raise UserError(f"A configuration file is not YAML: {' '.join(str(error).split())}") from error
    finally:
        with suppress(Exception):
            GlobalHydra.instance().clear()


@cache
def _store_schema() -> None:
    ConfigStore.instance().store(name="schema", node=RunConfig)


def _to_config(node: DictConfig, overrides: Sequence[str]) -> RunConfig:
    try:
        return cast(RunConfig, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise _cannot_be(error, overrides) from error


def _cannot_be(error: Exception, overrides: Sequence[str]) -> UserError:
    return UserError(_first_lines(error, overrides), "mrbench train --cfg prints what the keys hold.")


# What a trained model can be tested with in another way than it was trained for.
OF_TESTING = ("augmentation.", "data.", "evaluation.", "model.inference.", "precision.", "runtime.")


def changed_for_testing(config: RunConfig, overrides: Sequence[str]) -> RunConfig:
    """A run's configuration with values set anew by `overrides`, each a key=value.

    Raises UserError for keys that only a new training could follow, and as `compose` does.
    """
    parsed = parse(overrides)
    check_names(parsed)
    node = OmegaConf.structured(config)
    try:
        for override in parsed:
            key = override.key_or_group
            if not key.startswith(OF_TESTING):
                raise UserError(
                    f"'{override.input_line}' cannot be changed for a run that is trained",
                    f"What can: {', '.join(part + '*' for part in OF_TESTING)}. For more: --weights.",
                )
            OmegaConf.update(node, key, override.value())
        new = cast(RunConfig, OmegaConf.to_object(node))
    except OmegaConfBaseException as error:
        raise _cannot_be(error, overrides) from error
    validate_for_testing(new)
    return new


def _first_lines(error: Exception, overrides: Sequence[str]) -> str:
    """Hydra's and OmegaConf's message without the internals that follow it."""
    cause = error.__cause__ or error
    lines = str(cause).strip().splitlines()
    message = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    key = getattr(cause, "full_key", None)
    given = next((o for o in overrides if key and o.split("=")[0] == key), None)
    return f"{given or key}: {message}" if key else message


class _Dumper(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Puts quotes around text that OmegaConf would read as a number: YAML 1.1 takes `1e5` for text, OmegaConf not."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)([eE][-+]?\d+)?$"), list("-+.0123456789")
)


def to_yaml(config: RunConfig) -> str:
    """The text that `OmegaConf.to_yaml` gives, in a twentieth of the time: a study writes it for thousands of runs."""
    return yaml.dump(asdict(config), Dumper=_Dumper, default_flow_style=False, allow_unicode=True, sort_keys=False)


def load(path: Path) -> RunConfig:
    """A run's config.yaml. Raises UserError when it is missing or does not fit the schema."""
    try:
        node = OmegaConf.merge(OmegaConf.structured(RunConfig), OmegaConf.load(path))
        config = cast(RunConfig, OmegaConf.to_object(node))
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}") from error
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UserError(f"{path} is not a configuration of this version: {str(error).splitlines()[0]}") from error
    validate(config)
    return config
