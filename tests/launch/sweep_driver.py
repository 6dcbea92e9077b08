"""`mrbench sweep` whose jobs call fake_train; says at its end whether the sweeping process knows torch."""

import functools
import signal
import sys

import typer

from mrbench.cli.common import show_error
from mrbench.cli.sweep import sweep_command
from mrbench.errors import UserError
from mrbench.launch import sweep

# Where the tests are run in the background, their shell has Ctrl-C ignored by all that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
sweep.Sweep = functools.partial(sweep.Sweep, entry="fake_train:train")  # type: ignore[misc, assignment]
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(sweep_command)

code: int | str | None = 0
try:
    app()
except UserError as error:
    show_error(error)
    code = 2
except SystemExit as end:
    code = end.code
print(f"torch imported: {bool({'torch', 'torchvision'} & set(sys.modules))}", file=sys.stderr)
sys.exit(code)
