"""How long the commands take that look at many runs: 10,000 of them on disk, and studies of 10,000 arms.

    python -m mrbench.bench.many_runs [RUNS]

makes the runs in a temporary folder, then times each command once in a process of its own: seconds by the clock and of
the CPU, beside what is wanted on a machine that does nothing else.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mrbench.config.compose import to_yaml
from mrbench.runs.record import Status, now
from mrbench.study.grid import grid_study
from mrbench.study.plan import Plan, make_plan
from mrbench.study.record import write_study

RUNS = 10_000
NAME = "many"


def grid(count: int) -> list[str]:
    """Overrides for a grid of `count` arms with one seed, rounded down to whole hundreds."""
    rates = ",".join(f"{0.001 + 0.0001 * i:.4f}" for i in range(100))
    return [f"optimizer.lr={rates}", f"model.rpn.samples=range(16,{16 + max(1, count // 100)})"]


def make_runs(root: Path, plan: Plan) -> None:
    """The records of completed runs: what the commands read, without checkpoints and pictures."""
    write_study(root, plan)
    first = plan.runs[0].config
    config = to_yaml(first)
    metrics = {
        f"{kind}/{part}": 31.4 for kind in ("box", "mask") for part in ("AP", "AP50", "AP75", "APs", "APm", "APl")
    }
    categories = [{"name": f"category {i}", "box/AP": 20.0 + i, "mask/AP": 19.0 + i} for i in range(4)]
    line = {"kind": "train", "iteration": 20, "loss": 1.0, "lr": 0.001, "images_per_second": 12.0}
    for planned in plan.runs:
        folder = root / "runs" / planned.run_id
        folder.mkdir(parents=True)
        own = config.replace(f"lr: {first.optimizer.lr}", f"lr: {planned.config.optimizer.lr}")
        own = own.replace(f"samples: {first.model.rpn.samples}", f"samples: {planned.config.model.rpn.samples}", 1)
        status = Status("completed", 1, 900, 900, now(), now(), now(), "elsewhere", 1, None, 12.0, 1 << 30)
        (folder / "config.yaml").write_text(own)
        (folder / "status.json").write_text(json.dumps(asdict(status), indent=1))
        (folder / "evaluation.json").write_text(json.dumps({"metrics": metrics, "categories": categories}, indent=1))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for _ in range(10)))
        (folder / "log.txt").write_text("trained\n")


def timed(command: Sequence[str], root: Path) -> tuple[float, float]:
    """Seconds by the clock and of the CPU. Raises CalledProcessError where the command fails."""
    before, began = os.times(), time.monotonic()
    environment = {**os.environ, "MRBENCH_ROOT": str(root)}
    run = [sys.executable, "-c", "from mrbench.cli.app import main; main()", *command]
    subprocess.run(run, check=True, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return time.monotonic() - began, cpu


def main(count: int = RUNS) -> None:
    with tempfile.TemporaryDirectory(prefix="mrbench-many-") as folder:
        full, empty = Path(folder) / "full", Path(folder) / "empty"
        empty.mkdir()
        plan = make_plan(grid_study(grid(count), NAME))
        make_runs(full, plan)
        print(f"{len(plan.runs):,} runs on disk, a study of as many arms. Seconds:")
        cases = [
            ("mrbench --help", ["--help"], empty, None),
            ("mrbench --help, with the runs", ["--help"], full, None),
            ("mrbench runs list", ["runs", "list"], full, 3.0),
            ("mrbench sweep STUDY --status", ["sweep", NAME, "--status"], full, 2.0),
            ("mrbench sweep GRID --dry-run, nothing on disk", ["sweep", *grid(count), "--dry-run"], empty, 10.0),
            ("mrbench sweep GRID --dry-run, all on disk", ["sweep", *grid(count), "--dry-run"], full, 10.0),
        ]
        for what, command, root, wanted in cases:
            clock, cpu = timed(command, root)
            print(f"  {what:<48} {clock:6.2f}  CPU {cpu:6.2f}" + (f"  wanted: under {wanted:.0f}" if wanted else ""))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
