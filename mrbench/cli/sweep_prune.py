"""`mrbench sweep --prune`: takes the runs off the disk that a study no longer asks for, after it has shown them."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mrbench.errors import UserError

if TYPE_CHECKING:
    from mrbench.study.plan import Plan
    from mrbench.study.record import StudyRecord


def prune_run(root: Path, record: "StudyRecord", yes: bool) -> None:
    """Removes one run. Raises UserError for a study: only its file or its grid says what it no longer asks for."""
    from mrbench.cli.runs_remove import remove_command

    if list(record.arms) != [record.study]:
        raise UserError(
            f"What {record.study} no longer asks for is told by its file or its grid",
            "Give that with --prune; mrbench runs remove takes single runs.",
        )
    remove_command(record.run_ids(), yes, root)


def prune_study(root: Path, plan: "Plan", yes: bool) -> None:
    """Removes what the plan does not ask for from the study's record, and its runs unless another study has them."""
    from mrbench.cli.runs_remove import size
    from mrbench.launch.executor import JobState
    from mrbench.launch.places import Places
    from mrbench.runs.files import write_json
    from mrbench.runs.record import Run
    from mrbench.runs.remove import check_removable, freed_bytes, remove
    from mrbench.study.record import check_same_study, read_study, study_file

    check_same_study(root, plan)
    record = read_study(root, plan.study.name)
    wanted = {(run.arm, run.seed): run.run_id for run in plan.runs}
    gone = [(a, s, r) for a, arm in record.arms.items() for s, r in arm.runs.items() if wanted.get((a, s)) != r]
    if not gone:
        typer.echo(f"{record.study}: its {len(wanted)} runs are all asked for. Nothing was removed.")
        return
    kept = {*wanted.values(), *_of_other_studies(root, record.study)}
    runs = [Run(root / "runs" / r) for r in dict.fromkeys(r for *_, r in gone if r not in kept)]
    runs = [run for run in runs if run.folder.exists()]
    for run in runs:
        check_removable(run)
    busy = [r for r, state in Places(root).states([run.run_id for run in runs]).items() if state is not JobState.ENDED]
    if busy:
        raise UserError(f"{busy[0]} is queued or at work", f"Cancel it first: mrbench sweep {busy[0]} --cancel")
    sizes = {run.run_id: freed_bytes(run.folder) for run in runs}
    for arm, seed, run_id in gone:
        what = (
            size(sizes[run_id])
            if run_id in sizes
            else "stays: it is asked for elsewhere"
            if run_id in kept
            else "gone"
        )
        typer.echo(f"{arm} seed {seed}: {run_id}, {what}")
    typer.echo(
        f"{len(gone)} leave the record of {record.study}, {len(runs)} of them the disk: {size(sum(sizes.values()))}"
    )
    if not yes and not typer.confirm("Remove?"):
        typer.echo("Nothing was removed.")
        raise typer.Exit(1)
    lost = {(a, s) for a, s, _ in gone}
    arms = {
        a: replace(arm, runs={s: r for s, r in arm.runs.items() if (a, s) not in lost})
        for a, arm in record.arms.items()
    }
    record = replace(record, arms={a: arm for a, arm in arms.items() if arm.runs})
    write_json(study_file(root, record.study), asdict(record))  # first: a run that is left over harms nobody
    for run in runs:
        remove(run)
    typer.echo(f"Removed {len(runs)} runs: {size(sum(sizes.values()))} are free.")


def _of_other_studies(root: Path, study: str) -> Iterator[str]:
    from mrbench.study.record import read_study

    for path in (root / "studies").glob("*.json"):
        if path.stem != study:
            yield from read_study(root, path.stem).run_ids()
