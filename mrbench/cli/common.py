"""What all commands share: their common options, and how a person's mistake is shown."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.config.schema import RunConfig
    from mrbench.runs.record import Run

Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="What differs from the default, in Hydra's grammar: key=value or group=choice."),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", help="Folder of runs/ and studies/; otherwise $MRBENCH_ROOT, or the current folder."),
]
ConfigDir = Annotated[
    Path | None, typer.Option("--config-dir", help="A folder with configuration groups of your own.")
]


def root_folder(root: Path | None) -> Path:
    from mrbench.runs.record import default_root

    return root or default_root()


def show_error(error: UserError) -> None:
    """One message on standard error: what is wrong, and what to do."""
    typer.secho(f"error: {error.what}", fg=typer.colors.RED, err=True)
    if error.hint:
        typer.echo(error.hint, err=True)


@contextmanager
def run_ending(failed: str = "", stopped: str = "") -> Iterator[None]:
    """Shows how a run of the block ends before its time, without a traceback, and leaves with its exit code.

    `failed` and `stopped` are what to add: where details are, and how to go on.
    """
    from mrbench.engine.failures import RunFailed
    from mrbench.engine.signals import Preempted

    try:
        yield
    except RunFailed as error:
        typer.secho(f"failed: {error}", fg=typer.colors.RED, err=True)
        if failed:
            typer.echo(failed, err=True)
        raise typer.Exit(1) from error
    except Preempted as error:
        typer.echo(f"{error}{stopped and ': '}{stopped}", err=True)
        raise typer.Exit(128 + error.signum) from error


def run_config(run: "Run", overrides: list[str]) -> "RunConfig":
    """A run's own configuration, but for what `overrides` change of how it is tested."""
    from mrbench.config.compose import changed_for_testing

    return changed_for_testing(run.config(), overrides)


def say_written(paths: Sequence[Path]) -> None:
    """What was written, and which file to open first."""
    typer.echo(f"Wrote {paths[0]}" if len(paths) == 1 else f"Wrote {len(paths)} files; begin with {paths[0]}")


def scaling(overrides: list[str] | None, config_dir: Path | None = None) -> list[str]:
    """Lines that say what `schedule.scale_to_batch` changes in what `overrides` ask for; none where it does not."""
    from mrbench.config.compose import compose_as_written
    from mrbench.config.recipes import changes
    from mrbench.config.scaling import scaled

    written = compose_as_written(overrides or [], config_dir)
    base, images = written.schedule.scale_to_batch, written.schedule.images_per_batch
    if base is None or base == images:
        return []
    changed = [c for c in changes(written, scaled(written)) if c.key != "schedule.scale_to_batch"]
    factors = f"lengths x {base / images:g}, rate x {images / base:g}"
    return [
        f"written for {base} images a batch, runs with {images}: {factors}",
        *(f"  {change.key}: {plain(change.old)} -> {plain(change.new)}" for change in changed),
    ]


def plain(value: object) -> str:
    """A value of the configuration as it is written in an override."""
    if is_dataclass(value):
        return f"{{{', '.join(f'{f.name}: {plain(getattr(value, f.name))}' for f in fields(value))}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(plain, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def compose(overrides: list[str] | None, config_dir: Path | None = None) -> "RunConfig":
    from mrbench.config.composer import compose as compose_config

    return compose_config(overrides or [], config_dir)
