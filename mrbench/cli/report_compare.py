"""`mrbench report --compare`: two single runs beside each other, on the terminal and as files."""

from pathlib import Path

import typer

from mrbench.cli.common import say_written
from mrbench.cli.runs_compare import configurations, short_names, show
from mrbench.errors import UserError


def compare(names: list[str], kinds: list[str], out: str | None, resamples: int, root: Path) -> None:
    """Metrics with intervals over images, and what was not the same: settings, code, packages, hardware.

    Without `kinds` they go to the terminal, with `out` to files of all formats too. Raises UserError where there are
    not two runs, or no such format, and where the folder cannot be written.
    """
    from mrbench.report.compared import FILES, FORMATS, Compared, text
    from mrbench.report.side_by_side import side_by_side
    from mrbench.runs.comparison import compare_surroundings
    from mrbench.runs.files import write_text
    from mrbench.runs.record import find_runs

    if len(names) != 2:
        raise UserError("--compare sets two runs side by side.", "For example: mrbench report --compare 74bdd1 1ac0")
    if "all" in kinds or (out and not kinds):
        kinds = list(FORMATS)
    kinds = kinds or ["terminal"]
    if unknown := [kind for kind in kinds if kind not in FORMATS]:
        raise UserError(f"--compare has no format {unknown[0]!r}.", f"There are: {', '.join(FORMATS)}.")
    if out == "-" and len(kinds) != 1:
        raise UserError("--out - prints one format.", "For example: --format json --out -")
    found = find_runs(root, names)
    if found[0].folder == found[1].folder:
        raise UserError("One run is nothing to compare", "Give two: mrbench runs list shows them.")
    around = {name: (one, other) for name, one, other in compare_surroundings(*found)}
    first, second = short_names(found)
    compared = Compared(side_by_side(found, resamples), (first, second), configurations(found), around)
    if out == "-" and kinds != ["terminal"]:
        typer.echo(text(compared, kinds[0]), nl=False)
        return
    if "terminal" in kinds:
        show(compared.result, found, compared.configuration)
        typer.echo("\nenvironment" if around else "\nThe environment is the same.")
        for name, values in around.items():
            typer.echo(f"  {name}: {' | '.join(map(str, values))}")
    place = Path(out) if out else root / "results" / f"{found[0].run_id}-and-{second}"
    texts = {place / FILES[kind]: text(compared, kind) for kind in FILES if kind in kinds and out != "-"}
    for path, content in texts.items():
        write_text(path, content)
    if texts:
        say_written(list(texts))  # Markdown first, where it is asked for
