"""Slurm's own commands, asked sparingly: a cluster's controller has more to do than to answer us."""

import re
import shutil
import subprocess
import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from mrbench.errors import UserError

SECONDS = 60.0  # that a command may take
REST = (2.0, 60.0)  # least and most seconds between two calls of squeue
SHARE = 0.02  # of the time is spent in them, where the limits allow


HAS_ENDED = ("Invalid job id", "already completing or completed", "No active jobs match")  # as scancel says it


class SlurmError(Exception):
    """A command of Slurm's that did not work; the message is its own."""


def require(*names: str) -> None:
    """Raises UserError where one of these commands is not there."""
    for name in names:
        if shutil.which(name) is None:
            raise UserError(
                f"Slurm's {name} is not on the PATH", "Log in to a machine of the cluster, or use --on local."
            )


def _call(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise SlurmError(f"{command[0]}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise SlurmError(said[-1] if said else f"{command[0]} ended with {done.returncode}")
    return done.stdout


@dataclass(frozen=True)
class Cluster:
    """What a cluster's configuration says of it: the most jobs of an array, and whether ended jobs are on record."""

    largest_array: int
    accounting: bool


def cluster() -> Cluster:
    """Raises UserError where Slurm does not answer."""
    try:
        said = _call("scontrol", "show", "config")
    except SlurmError as error:
        hint = "Is this machine part of the cluster? Try sinfo."
        raise UserError(f"Slurm does not answer: {error}", hint) from error
    found = dict(re.findall(r"^(MaxArraySize|AccountingStorageType)\s*=\s*(\S+)", said, re.MULTILINE))
    storage = found.get("AccountingStorageType", "")
    return Cluster(max(1, int(found.get("MaxArraySize", 1))), not storage.endswith(("/none", "(null)")))


class Asked:
    """What squeue said last, which holds for a while: longer where squeue takes longer."""

    def __init__(self) -> None:
        self._lives: dict[str, tuple[str, str]] = {}
        self._ids: frozenset[str] = frozenset()
        self._until = 0.0

    def forget(self) -> None:
        self._until = 0.0

    def squeue(self, ids: Collection[str]) -> dict[str, tuple[str, str]]:
        """job id -> (state, reason), of those of `ids` that Slurm has not forgotten. Raises SlurmError."""
        begun = time.monotonic()
        if begun > self._until or not self._ids.issuperset(ids):
            self._lives, self._ids = _squeue(ids), frozenset(ids)
            end = time.monotonic()
            self._until = end + min(max((end - begun) / SHARE, REST[0]), REST[1])
        return self._lives


def _squeue(ids: Collection[str]) -> dict[str, tuple[str, str]]:
    if not ids:
        return {}
    try:
        said = _call("squeue", "-h", "-r", "-t", "all", "-o", "%i|%T|%r", "-j", _arrays(ids))
    except SlurmError as error:
        if "Invalid job id" in str(error):  # of one job alone; several may hold some that Slurm has forgotten
            return {}
        raise
    lines = (line.split("|") for line in said.splitlines())
    return {line[0]: (line[1], line[2]) for line in lines if len(line) == 3}


def sacct(ids: Collection[str]) -> dict[str, str]:
    """job id -> how it ended, from the accounting. Raises SlurmError where that is off."""
    said = _call("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", _arrays(ids))
    lines = (line.partition("|") for line in said.splitlines())
    return {job: state for job, _, state in lines}


def _arrays(ids: Iterable[str]) -> str:
    return ",".join(sorted({job.partition("_")[0] for job in ids}))


def scancel(ids: Sequence[str], *options: str) -> None:
    """Raises UserError where Slurm does not answer. Jobs that have ended are passed over."""
    for first in range(0, len(ids), 500):
        try:
            _call("scancel", *options, *ids[first : first + 500])
        except SlurmError as error:
            if not any(words in str(error) for words in HAS_ENDED):
                raise UserError(f"Slurm does not cancel the jobs: {error}", "Try scancel yourself.") from error


def life(job: str) -> tuple[str, float | None]:
    """A job's state, and the seconds that are left of its time (None: no limit). Raises SlurmError."""
    state, _, left = _call("squeue", "-h", "-j", job, "-o", "%T|%L").strip().partition("|")
    return state, _seconds(left)


def _seconds(left: str) -> float | None:
    """Slurm's [days-][[hours:]minutes:]seconds; None for words (UNLIMITED)."""
    found = re.fullmatch(r"(?:(\d+)-)?((?:\d+:)*\d+)", left)
    if found is None:
        return None
    seconds = 0
    for part in found[2].split(":"):
        seconds = 60 * seconds + int(part)
    return seconds + 86400.0 * int(found[1] or 0)


def requeue(job: str) -> None:
    """Raises SlurmError."""
    _call("scontrol", "requeue", job)


def rejected(said: str) -> UserError:
    """What a person is told of a submission that sbatch refused, from what it printed."""
    lines = [line.partition("error: ")[2] for line in said.splitlines() if "error: " in line]
    lines += [line.removeprefix("sbatch: ") for line in said.splitlines() if "unrecognized option" in line]
    words = "; ".join(dict.fromkeys(line.strip() for line in lines)) or said.strip().splitlines()[-1]
    return UserError(f"Slurm rejects the jobs: {words}", "Nothing was submitted. " + _advice(words))


def _advice(words: str) -> str:
    advice = {
        "partition": "launcher.partition names one; sinfo lists them.",
        "account": "launcher.account and launcher.qos name them; sacctmgr show associations user=$USER lists yours.",
        "qos": "launcher.qos names one; sacctmgr show associations user=$USER lists yours.",
        "time limit": "launcher.time asks for it; sinfo -o '%P %l' shows the partitions' limits.",
        "node configuration": "No node has that much: see launcher.gpus, cpus_per_task, mem, nodes; sinfo -N -l.",
        "gres": "launcher.gres and launcher.gpus ask for devices; sinfo -o '%P %G' shows what there is.",
        "node count": "launcher.nodes; sinfo shows how many a partition has.",
        "submit limit": "That many jobs are not allowed: begin with fewer runs, as with --seeds.",
        "option": "See launcher.additional_parameters: each item is option=value, as sbatch --help has it.",
    }
    found = [text for word, text in advice.items() if word in words.lower()]
    return found[0] if found else "See the launcher.* keys: mrbench train launcher=slurm --cfg."
