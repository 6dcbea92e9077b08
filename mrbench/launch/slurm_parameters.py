"""What a run asks of Slurm, as submitit's parameters for sbatch."""

import shlex
from pathlib import Path
from typing import Any

from mrbench.config.job_time import job_minutes
from mrbench.config.schema import RunConfig
from mrbench.runs.code import environment


def gpus_per_node(config: RunConfig) -> int:
    launcher, runtime = config.launcher, config.runtime
    if launcher.gpus is not None:
        return launcher.gpus
    return 0 if launcher.gres or runtime.device == "cpu" else launcher.tasks_per_node * runtime.devices


def key(config: RunConfig) -> tuple[object, ...]:
    """Runs with the same key can be in one job array."""
    return (gpus_per_node(config), *(str(value) for value in vars(config.launcher).values()))


def of(config: RunConfig, parallel: int, after: str | None, code: Path) -> dict[str, Any]:
    """For submitit's `update_parameters`.

    `parallel`: jobs of the array at once; `after`: a job to wait for; `code`: the folder of the package to run from.
    """
    launcher = config.launcher
    lines = [f"export {name}={shlex.quote(value)}" for name, value in environment(code).items()]
    more = dict(_option(text) for text in launcher.additional_parameters)
    return {
        "job_name": "mrbench",
        "partition": launcher.partition,
        "account": launcher.account,
        "qos": launcher.qos,
        "constraint": launcher.constraint,
        "time": None if launcher.time is None else job_minutes(launcher.time),
        "nodes": launcher.nodes,
        "ntasks_per_node": launcher.tasks_per_node,
        "gpus_per_node": gpus_per_node(config) or None,
        "gres": launcher.gres,
        "cpus_per_task": launcher.cpus_per_task,
        "mem": launcher.mem,
        "signal_delay_s": launcher.warning,
        "dependency": f"afterany:{after}" if after else None,
        "array_parallelism": parallel,
        "setup": [*lines, *launcher.setup],
        # srun takes the cores of a task from its own option only (since Slurm 22.05)
        "srun_args": [f"--cpus-per-task={launcher.cpus_per_task}"] if launcher.cpus_per_task else None,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's own default is refused where wckeys are checked
        "additional_parameters": {"requeue" if launcher.requeue else "no-requeue": True, **more},
    }


def _option(text: str) -> tuple[str, Any]:
    """ "--exclude=n1" or "exclude=n1" as (exclude, n1); an option without a value as (exclusive, True)."""
    name, given, value = text.removeprefix("--").partition("=")
    return name, value if given else True
