"""`mrbench sweep` whose jobs call paced.py: JOB=slow|train python driver.py [arguments of mrbench sweep]."""

import functools
import os
import sys

import typer

from mrbench.cli.common import show_error
from mrbench.cli.sweep import sweep_command
from mrbench.errors import UserError
from mrbench.launch import sweep

sweep.Sweep = functools.partial(sweep.Sweep, entry=f"paced:{os.environ['JOB']}")  # type: ignore[misc, assignment]
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(sweep_command)

try:
    app()
except UserError as error:
    show_error(error)
    sys.exit(2)
