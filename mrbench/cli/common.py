"""What all commands share: their common options, and how a person's mistake is shown."""

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


def run_config(run: "Run", overrides: list[str]) -> "RunConfig":
    """A run's own configuration, but for what `overrides` change of how it is tested."""
    from mrbench.config.compose import changed_for_testing

    return changed_for_testing(run.config(), overrides)


def compose(overrides: list[str] | None, config_dir: Path | None = None) -> "RunConfig":
    from mrbench.config.compose import compose as compose_config

    return compose_config(overrides or [], config_dir)
