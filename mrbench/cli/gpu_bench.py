"""`mrbench gpu-bench`: speed, memory and the largest batch, on whatever device there is."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mrbench.cli.common import ConfigDir, Overrides, Root, root_folder, run_ending
from mrbench.errors import UserError

if TYPE_CHECKING:
    from rich.progress import Progress

    from mrbench.bench.largest_batch import Search
    from mrbench.bench.record import Measurement, Plan, Record


def gpu_bench_command(
    overrides: Overrides = None,
    mode: Annotated[
        str, typer.Option("--mode", help="train, infer, data, end-to-end, eval, or several with commas.")
    ] = "train,infer",
    precision: Annotated[
        str | None,
        typer.Option(
            "--precision",
            help="fp32, tf32, fp16, bf16, or several with commas.  [default: the configuration's; on a GPU all, "
            "unless a recipe or precision is chosen]",
        ),
    ] = None,
    batch: Annotated[
        str | None,
        typer.Option(
            "--batch",
            help="Images a step and device, or several with commas.  "
            "[default: training and loading 2, infer 1 and on a GPU 8, eval 25]",
        ),
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(
            "--image-size",
            help="Height x width in pixels, as 800x1333, or several with commas.  [default: the configuration's; "
            "on a GPU 800x1333 unless a model, recipe or data is chosen]",
        ),
    ] = None,
    channels_last: Annotated[
        str | None,
        typer.Option("--channels-last", help="off, on, or off,on.  [default: runtime.channels_last]"),
    ] = None,
    compiled: Annotated[
        str | None, typer.Option("--compile", help="off, on, or off,on.  [default: runtime.compile]")
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            "--devices",
            help="GPUs, or processes on a CPU, as 1,2,4: shows how well they scale.  [default: 1]",
        ),
    ] = None,
    instances: Annotated[int, typer.Option("--instances", min=0, help="Objects in a synthetic picture.")] = 7,
    positives: Annotated[
        int | None,
        typer.Option(
            "--positives",
            min=0,
            help="Positive RoIs an image where weights are random.  [default: half of those there is room for]",
        ),
    ] = None,
    inputs: Annotated[
        str, typer.Option("--inputs", help="synthetic, or data: the first batches of the data set.")
    ] = "synthetic",
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Blocks, of a second or more each.")] = 10,
    largest_batch: Annotated[
        bool, typer.Option("--largest-batch", help="Search the largest batch too, in fresh processes.")
    ] = False,
    memory_limit: Annotated[
        str | None,
        typer.Option(
            "--memory-limit",
            help="As 2GiB: what may be used, on a GPU by the search only.  [default: what there is]",
        ),
    ] = None,
    peer: Annotated[
        str | None,
        typer.Option("--peer", help="torchvision: its own network on the same work, in turns with ours."),
    ] = None,
    budget: Annotated[
        str | None, typer.Option("--budget", help="As 90s, 5m or 1h: measure only what fits.  [default: everything]")
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option("--compare", help="An earlier record of this machine; exit code 3 where something is slower."),
    ] = None,
    session_noise: Annotated[
        float,
        typer.Option("--session-noise", min=0, help="Percent by which --compare expects sessions to differ."),
    ] = 2.0,
    compare_anyway: Annotated[
        bool, typer.Option("--compare-anyway", help="Compare with another machine's or protocol's record too.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", help="The record, JSON, with a CSV beside it.  [default: a telling name in bench/ of the root]"
        ),
    ] = None,
    root: Root = None,
    config_dir: ConfigDir = None,
) -> None:
    """Measure images per second, latency, peak memory and the largest batch.

    Training steps, detection, the loader, both together, or the metrics are timed in fresh processes, after a warm-up
    that ends when step times are stable, in blocks that give a spread. Without a GPU it takes the small model, and
    the memory limit as the wall. Overrides with several values, as model=a,b, measure each.

    An interrupted benchmark goes on where it stopped when the same command is given again.

    Example: mrbench gpu-bench --precision fp32,bf16 --largest-batch --memory-limit 4GiB

    Example: mrbench gpu-bench model=mask_rcnn_r50_fpn --peer torchvision --budget 10m

    Example: mrbench gpu-bench --compare bench/before.json
    """
    from mrbench.bench import session
    from mrbench.bench.comparing import check_comparable
    from mrbench.bench.exporting import comma_separated
    from mrbench.bench.fitting import within_budget
    from mrbench.bench.plan import default_path, make_plan
    from mrbench.bench.telling import comparison_lines, heading, left_out_lines
    from mrbench.engine.signals import StopSignal
    from mrbench.runs.files import write_text
    from mrbench.runs.provenance import collect

    earlier = None if compare is None else _earlier(compare, compare_anyway)
    fixed, arms = _arms(overrides or [])
    plan, device = make_plan(
        fixed,
        config_dir,
        arms=arms,
        mode=mode,
        precision=precision,
        batch=batch,
        size=image_size,
        channels_last=channels_last,
        compiled=compiled,
        devices=devices,
        instances=instances,
        positives=positives,
        inputs=inputs,
        repeats=repeats,
        largest_batch=largest_batch,
        memory_limit=memory_limit,
        peer=peer,
        budget=budget,
    )
    path = out or default_path(root_folder(root) / "bench", plan, device, collect())
    session.check_out(path)
    before = session.gpu_before(plan, device)
    nothing = "Nothing was measured yet."
    with run_ending(failed=nothing, stopped=nothing), StopSignal(session.stop_at_once), _watcher(plan) as watcher:
        plan = within_budget(plan, device, path, watcher)
    record = session.open_record(path, plan, device, before)
    if earlier is not None and not compare_anyway:
        check_comparable(earlier, record)
    typer.echo(heading(record))
    for warning in record.warnings:
        typer.echo(f"Warning: {warning}")
    for line in left_out_lines(plan, largest_batch):
        typer.echo(line)
    typer.echo()
    kept = f"What was measured is in {path}; the same command goes on."
    try:
        with run_ending(failed=kept, stopped=kept), _watcher(plan) as watcher:
            session.carry_out(path, record, watcher)
    finally:
        if record.measurements:
            write_text(path.with_suffix(".csv"), comma_separated([record]))
    if lines := comparison_lines(record.measurements):
        typer.echo("\n".join(lines) + "\n")
    typer.echo(f"Record: {path} (and .csv)")
    slower = earlier is not None and _compare(earlier, record, session_noise / 100)
    _judge(record, slower)


def _earlier(path: Path, anyway: bool) -> "Record":
    """Read before anything is measured, so that a wrong path costs nothing."""
    from mrbench.bench.record import read, read_any

    return read_any(path) if anyway else read(path)


def _compare(earlier: "Record", record: "Record", session_noise: float) -> bool:
    """Tells what has changed since the earlier record; whether something is slower."""
    from mrbench.bench.comparing import SLOWER, change_lines, changes

    found = changes(earlier, record, session_noise)
    typer.echo(f"\nAgainst the record of {earlier.started[:10]}:")
    typer.echo("\n".join(f"  {line}" for line in change_lines(found, session_noise)))
    return any(change.verdict == SLOWER for change in found)


def _arms(overrides: list[str]) -> tuple[list[str], dict[str, list[str]] | None]:
    """What all rows share, and what each combination of swept overrides adds to it, by its name."""
    from mrbench.study.grid import grid_study

    study = grid_study(overrides)
    if len(study.seeds) > 1:
        raise UserError(
            "A benchmark has one seed", "Its spread is over blocks; for runs give several to mrbench sweep."
        )
    if len(study.arms) == 1:
        return overrides, None
    return [*study.base, f"seed={study.seeds[0]}"], {arm.name: list(arm.overrides) for arm in study.arms}


def _judge(record: "Record", slower: bool) -> None:
    """Exit code 1 when something failed, 3 when something is slower, a message when not one figure came out."""
    problems = [row.note for row in record.measurements if row.state == "failed"]
    refusals = record.device["refusals"]
    problems += [s.note for s in record.searches if s.note and not refusals[s.case.precision]]
    if problems:
        raise typer.Exit(1)
    if slower:
        raise typer.Exit(3)
    if not any(row.state == "measured" for row in record.measurements):
        row = record.measurements[0]
        raise UserError(
            f"Nothing could be measured; {row.label}: {row.note}",
            "Try a smaller --batch or --image-size, or more memory.",
        )


@contextmanager
def _watcher(plan: "Plan") -> Iterator["_Watcher"]:
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield _Watcher(progress, plan)


class _Watcher:
    """Shows what is being measured while it is, and each figure once it is there."""

    def __init__(self, progress: "Progress", plan: "Plan") -> None:
        self.progress, self.plan = progress, plan
        self.task = progress.add_task("", start=False, left="")
        self.seconds: list[float] = []  # of the rows that were measured now
        self.shown = 0  # rows, those of an earlier part of this benchmark with them
        self.began: float | None = None

    def begins(self, what: str) -> None:
        from mrbench.bench.telling import remaining_text

        self.began = time.monotonic()
        left = remaining_text(self.shown, len(self.plan.cases), self.seconds)
        self.progress.reset(self.task, description=what, left=left)
        if self.progress.disable:  # no terminal: a line each, so that a log shows what is under way
            typer.echo(f"{what}  {left}".rstrip(), err=True)

    def measured(self, row: "Measurement") -> None:
        from mrbench.bench.matrix import label
        from mrbench.bench.telling import measurement_text

        self.shown += 1
        if self.began is not None:
            self.seconds.append(time.monotonic() - self.began)
            self.began = None
        self._print(measurement_text(row, label(row.case, self.plan.cases)) + "\n")

    def searched(self, search: "Search") -> None:
        from mrbench.bench.telling import search_text

        self._print(search_text(search, self.plan) + "\n")

    def _print(self, text: str) -> None:
        self.progress.stop()
        typer.echo(text)
        self.progress.start()
