"""The `mrbench` command: its subcommands and how a mistake ends."""

import os
import sys
from typing import Annotated

import typer

from mrbench import __version__
from mrbench.cli import data, recipes, runs, studies, weights
from mrbench.cli.common import show_error
from mrbench.cli.eval import eval_command
from mrbench.cli.gpu_bench import gpu_bench_command
from mrbench.cli.predict import predict_command
from mrbench.cli.proposals import proposals_command
from mrbench.cli.report import report_command
from mrbench.cli.sweep import sweep_command
from mrbench.cli.train import train_command
from mrbench.errors import UserError

app = typer.Typer(
    name="mrbench",
    help="Reproducible benchmarks and ablations of Mask R-CNN.\n\n"
    "Does this change to the recipe help, by how much, how sure are we, and what does it cost?\n\n"
    "Example: mrbench sweep ablations/demo.yaml, then mrbench report demo.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(show: bool) -> None:
    if show:
        typer.echo(f"mrbench {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command("train")(train_command)
app.command("eval")(eval_command)
app.command("predict")(predict_command)
app.command("proposals")(proposals_command)
app.command("sweep")(sweep_command)
app.command("report")(report_command)
app.command("gpu-bench")(gpu_bench_command)
app.add_typer(recipes.app, name="recipes")
app.add_typer(studies.app, name="studies")
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.add_typer(weights.app, name="weights")


def main() -> None:
    """Runs the command line. A person's mistake ends in one message and exit code 2; a traceback is for bugs."""
    # Read by OpenMP as torch loads. Its threads would otherwise spin while they wait for one that another program
    # keeps off its core, and a training on a busy machine comes almost to a halt.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except UserError as error:
        show_error(error)
        sys.exit(2)
    except BrokenPipeError:  # `mrbench runs list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
