"""`mrbench report`: what a study showed, on the terminal and as files."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import Root, root_folder, say_written
from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.report.collect import Study
    from mrbench.report.planning import Aim


def report_command(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="STUDY|RUN...", help="Studies, or runs to compare, by name.")
    ] = None,
    root: Root = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="What to make: terminal, markdown, csv, json, latex, html, with commas between, or all.",
            show_default="all, or terminal with --compare",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out",
            help="Folder for the files; - prints one format; otherwise ROOT/results/STUDY (of speed: speed).",
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option("--metrics", help="Such as box/AP,mask/AP75; otherwise the study's own.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", help="The arm to compare with; otherwise the study's own.")
    ] = None,
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, help="Bootstrap draws of test images; 0: intervals over seeds only.")
    ] = 400,
    where: Annotated[
        list[str] | None,
        typer.Option("--where", metavar="KEY=VALUE", help="Only runs so configured; may be given several times."),
    ] = None,
    group_by: Annotated[
        str | None, typer.Option("--group-by", metavar="KEY,...", help="Arms by the values of these settings.")
    ] = None,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Two single runs side by side, and as files where --format or --out asks. Says nothing of seeds.",
        ),
    ] = False,
    prior: Annotated[
        str,
        typer.Option(
            help="Seed noise where an arm has few seeds. public: that of public runs on COCO, with the study's own; "
            "own: that of the study's other runs; none: single runs are not decided; auto: public on COCO, else own."
        ),
    ] = "auto",
    difference: Annotated[
        float, typer.Option(help="The difference, in points, that `more seeds` is planned for.")
    ] = 0.4,
    detail: Annotated[
        bool, typer.Option("--detail", help="On the terminal too: kinds of errors, sizes, the most changed classes.")
    ] = False,
    pictures: Annotated[
        int,
        typer.Option(min=0, help="Validation pictures an arm that the page shows, where they differ most; 0: none."),
    ] = 3,
    bench: Annotated[
        bool, typer.Option("--bench", help="The names are records of `mrbench gpu-bench`, files: report speed.")
    ] = False,
    power: Annotated[float, typer.Option(help="The chance with which it is to be seen, between 0.05 and 1.")] = 0.8,
) -> None:
    """Tell a real difference from noise: tables, charts and a page of a sweep.

    Every arm gets its mean and spread over seeds, its difference to the
    baseline paired over seeds with a 95 % interval, and a decision: better,
    worse, inside the noise, too few seeds. Runs that failed or are not done
    are counted and named. Runs given by hand form arms by their
    configuration; the first one's is the baseline. Several studies make one
    report, against the first one's baseline.

    Example: mrbench report demo

    Example: mrbench report --where model.norm=gn,bn --where data.name=shapes

    Example: mrbench report norms demo --group-by model.norm

    Example: mrbench report --compare 74bdd1 1ac0

    Example: mrbench report demo --metrics mask/AP,mask/APs --format html

    Example: mrbench report demo --format json --out - | jq .answer

    Example: mrbench report --bench bench/*.json --out results/gpu
    """
    if bench:
        _bench(names or [], root_folder(root), out)
        return
    if compare:
        from mrbench.cli.report_compare import compare as compare_runs

        compare_runs(names or [], _listed(formats), out, resamples, root_folder(root))
        return

    from mrbench.report import collect, grouping
    from mrbench.report.planning import Aim
    from mrbench.report.rules import parse_rules

    folder = root_folder(root)
    if not (names or where or group_by):
        raise _nothing_named(folder)
    kinds = _kinds(_listed(formats))
    study = grouping.gather(folder, names or [], parse_rules(where or []), _listed(group_by))
    study = collect.with_metrics(study, _listed(metrics)) if metrics else study
    study = collect.with_baseline(study, baseline) if baseline else study
    place = Path(out) if out else folder / "results" / study.name
    _report(study, kinds, place, out == "-", resamples, prior, Aim(difference, power), detail, pictures)


def _bench(files: list[str], root: Path, out: str | None) -> None:
    """Speed instead of accuracy: rows and comparisons on the terminal; Markdown, CSV and charts as files."""
    from mrbench.report import speed_page
    from mrbench.report.speed import read_records

    if not files:
        raise UserError("--bench reports records of gpu-bench.", "For example: mrbench report --bench bench/*.json")
    records = read_records([Path(name) for name in files])
    typer.echo(speed_page.summary(records))
    written = speed_page.write(records, Path(out) if out else root / "results" / "speed")
    say_written(written)


def _listed(text: str | None) -> list[str]:
    return [item.strip() for item in (text or "").split(",") if item.strip()]


def _nothing_named(root: Path) -> UserError:
    from mrbench.config.suggest import few
    from mrbench.report.collect import study_names

    known = study_names(root)
    hint = f"Studies here: {few(known)}." if known else "`mrbench sweep ablations/demo.yaml` makes a study."
    return UserError("Say which study or runs to report.", hint)


def _kinds(formats: list[str]) -> list[str]:
    from mrbench.config.suggest import did_you_mean
    from mrbench.report.write import FORMATS

    kinds = [kind.lower() for kind in formats]
    for kind in kinds:
        if kind not in (*FORMATS, "all"):
            raise UserError(f"There is no format {kind!r}.", did_you_mean(kind, (*FORMATS, "all")))
    return list(FORMATS) if "all" in kinds or not kinds else kinds


def _report(
    study: "Study",
    kinds: list[str],
    folder: Path,
    to_stdout: bool,
    resamples: int,
    prior: str,
    aim: "Aim",
    detail: bool,
    pictures: int,
) -> None:
    from rich.console import Console

    from mrbench.config.paths import published_dir
    from mrbench.report import build, earlier, terminal, write

    if to_stdout and len(kinds) != 1:
        raise UserError("--out - prints one format.", "For example: --format json --out -")
    if folder.resolve() == published_dir().resolve():
        raise UserError(f"{folder} holds the numbers of the literature.", "Choose another folder with --out.")
    if not to_stdout and set(kinds) != {"terminal"}:
        earlier.check_folder(folder, study)
    report = build.build(study, resamples, prior, aim)
    if to_stdout and kinds != ["terminal"]:
        typer.echo(write.text(report, kinds[0], pictures), nl=False)
        return
    if "terminal" in kinds:
        terminal.show(report, Console())
        if detail:
            terminal.show_detail(report, Console())
    written = [] if to_stdout else write.write(report, folder, kinds, pictures)
    if written:
        say_written(written)
