"""`mrbench sweep --dry-run`: the runs of a study, which of them exist, and what the rest will cost."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from mrbench.study.plan import Plan

MOST_ROWS = 1000  # a longer table is read by a program: --json has it all


def _time(hours: float) -> str:
    """`12 minutes`, `8.9 hours`."""
    if hours >= 1:
        return f"{hours:,.1f} hours"
    minutes = max(1, round(60 * hours))
    return f"{minutes} minute{'s' * (minutes != 1)}"


def show_plan(folder: Path, plan: "Plan", retry: bool, as_json: bool, most: "Plan | None" = None) -> None:
    """Prints a line for each run, and the sum. Nothing is left of a run that failed, unless it is tried again with
    `retry`. Of a study that grows `plan` is the first look and `most` all that it may become. Runs nothing, writes
    nothing."""
    from mrbench.cli.sweep_actions import count_runs
    from mrbench.cli.text_table import lines
    from mrbench.launch.places import Places
    from mrbench.launch.progress import COMPLETED, FAILED, Watcher
    from mrbench.launch.table import describe
    from mrbench.report.words import plural
    from mrbench.runs.record import Run
    from mrbench.study.cost import SpeedsOnRecord
    from mrbench.study.plan import told_same

    unique = plan.unique()
    watcher = Watcher(plan.study.metrics[0])
    jobs = Places(folder).states(list(unique))
    views = {
        run_id: watcher.view(Run(folder / "runs" / run_id), planned.config.schedule.iterations, job=jobs.get(run_id))
        for run_id, planned in unique.items()
    }
    final = (COMPLETED,) if retry else (COMPLETED, FAILED)
    left = {r: 0 if v.state in final else v.iterations - v.iteration for r, v in views.items()}
    speeds = SpeedsOnRecord(folder, plan)
    estimates = {r: speeds.estimate(unique[r].config, left[r]) for r in unique if left[r]}
    hours = {r: found.seconds / 3600 for r, found in estimates.items() if found}
    unknown = len(estimates) - len(hours)
    sources = Counter(found.source for found in estimates.values() if found)
    if as_json:
        runs = [
            {"arm": p.arm, "seed": p.seed, "run": p.run_id, "state": views[p.run_id].state,
             "iterations_left": left[p.run_id], "hours_left": hours.get(p.run_id) if left[p.run_id] else 0.0,
             "overrides": list(p.overrides)}
            for p in plan.runs
        ]  # fmt: skip
        whole: dict[str, Any] = {
            "iterations_left": sum(left.values()),
            "hours_left": sum(hours.values()),
            "speed_unknown": unknown,
            "speed_from": dict(sources),
        }
        if most is not None:
            whole |= {"runs_at_most": len(most.unique()), "seeds_at_most": len(most.study.seeds)}
        typer.echo(json.dumps({"study": plan.study.name, "scale": plan.study.scale, "runs": runs} | whole, indent=1))
        return
    rows = [
        (p.arm, str(p.seed), p.run_id, describe(views[p.run_id]), f"{left[p.run_id]:,}",
         _time(hours[p.run_id]) if p.run_id in hours else "?" if left[p.run_id] else "")
        for p in plan.runs[:MOST_ROWS]
    ]  # fmt: skip
    typer.echo(plan.study.title)
    titles = ("arm", "seed", "run", "state", "iterations left", "time")
    typer.echo("\n".join(lines(titles, rows, left=(True, False, True, True, False, False))))
    if len(plan.runs) > MOST_ROWS:
        typer.echo(f"... and {len(plan.runs) - MOST_ROWS:,} more: --json has them all")
    exist = sum(v.state == COMPLETED for v in views.values())
    failed = sum(v.state == FAILED for v in views.values())
    typer.echo(f"{count_runs(len(unique))}, {exist} complete; {sum(left.values()):,} iterations left.")
    if failed and not retry:
        typer.echo(f"{count_runs(failed)} failed, and would run again with --retry only.")
    if hours:
        what = " and ".join(sources)
        typer.echo(f"About {_time(sum(hours.values()))}, were they run one after the other, by the speed of {what}.")
    if unknown:
        typer.echo(f"No speed is on record for {count_runs(unknown)}: how long they take is not known.")
    if most is not None:
        first, last = plural(len(plan.study.seeds), "seed"), len(most.study.seeds)
        typer.echo(
            f"These are for the first look, with {first} an arm. Arms that are not decided then get more, up to"
        )
        typer.echo(f"{last} seeds: {count_runs(len(most.unique()))} at most.")
    for line in told_same(plan.families()):
        typer.echo(line)
    typer.echo("Nothing was run.")
