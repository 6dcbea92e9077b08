"""What is asked of Slurm's commands and read from their answers, without a cluster (tests/slurm has one)."""

import stat
from pathlib import Path

import pytest

from mrbench.config.compose import load, to_yaml
from mrbench.config.composer import Composer, compose
from mrbench.errors import UserError
from mrbench.launch import slurm_commands, slurm_parameters
from mrbench.launch.executor import Job, JobState, Limits
from mrbench.launch.places import place
from mrbench.launch.record import begin, update_job
from mrbench.runs.record import open_run

# as `squeue -o %L` prints what is left, and what its manual says of it: days-hours:minutes:seconds
LEFT = {"59": 59, "9:58": 598, "1:00:00": 3600, "1-00:00:01": 86401, "UNLIMITED": None, "NOT_SET": None}


def command(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IEXEC)


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for commands that come before all others; what they are given goes to `asked`."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


@pytest.mark.parametrize("text", LEFT)
def test_the_time_that_is_left_is_read_in_all_its_forms(text: str, commands: Path) -> None:
    command(commands, "squeue", f"echo 'RUNNING|{text}'")
    assert slurm_commands.life("7") == ("RUNNING", LEFT[text])


def test_thousands_of_jobs_are_asked_for_in_one_call_that_names_their_arrays(commands: Path) -> None:
    asked = commands / "asked"
    command(commands, "squeue", f"echo \"$@\" >> {asked}\necho '12_3|RUNNING|None'\necho '40|PENDING|Resources'")
    jobs = slurm_commands.Asked()
    ids = [*(f"12_{place}" for place in range(3000)), "40"]
    assert jobs.squeue(ids) == {"12_3": ("RUNNING", "None"), "40": ("PENDING", "Resources")}
    jobs.squeue(ids[:5])
    assert asked.read_text().splitlines() == ["-h -r -t all -o %i|%T|%r -j 12,40"]


def test_a_job_that_slurm_has_forgotten_is_no_error(commands: Path) -> None:
    command(commands, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    assert slurm_commands.Asked().squeue(["7"]) == {}


def test_a_cluster_that_does_not_answer_is_no_empty_queue(commands: Path) -> None:
    command(commands, "squeue", "echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    with pytest.raises(slurm_commands.SlurmError, match="Unable to contact"):
        slurm_commands.Asked().squeue(["7"])


def test_a_machine_without_slurm_says_so(commands: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(commands))
    with pytest.raises(UserError, match="sbatch is not on the PATH"):
        slurm_commands.require("sbatch")


def test_every_key_reaches_sbatch(tmp_path: Path, commands: Path) -> None:
    import submitit

    command(commands, "srun", "")
    config = compose(
        [
            "launcher=slurm", "launcher.partition=main", "launcher.account=vision", "launcher.qos=normal",
            "launcher.constraint=a100", "launcher.time=600", "launcher.nodes=2", "launcher.tasks_per_node=4",
            "launcher.cpus_per_task=6", "launcher.mem=64G", "launcher.warning=300", "schedule.images_per_batch=16",
            "launcher.setup=['module load cuda']", "launcher.additional_parameters=['exclude=n1', '--exclusive']",
        ]
    )  # fmt: skip
    executor = submitit.SlurmExecutor(tmp_path)
    executor.update_parameters(**slurm_parameters.of(config, 3, "17", tmp_path / "copy"))
    script = executor._make_submission_file_text("true", "1").splitlines()
    options = {line.removeprefix("#SBATCH --") for line in script if line.startswith("#SBATCH")}
    assert options >= {
        "partition=main", "account=vision", "qos=normal", "constraint=a100", "time=600", "nodes=2",
        "ntasks-per-node=4", "gpus-per-node=4", "cpus-per-task=6", "mem=64G", "signal=USR2@300", "requeue",
        "exclude=n1", "exclusive", "dependency=afterany:17",
    }  # fmt: skip
    assert not any(option.startswith(("wckey", "gres")) for option in options)
    assert script.index("module load cuda") > script.index("export PYTHONSAFEPATH=1")
    assert any(line.startswith(f"export PYTHONPATH={tmp_path / 'copy'}") for line in script)
    (srun,) = (line for line in script if line.startswith("srun"))
    assert "--cpus-per-task=6" in srun


@pytest.mark.parametrize(
    "overrides,gpus",
    [([], 2), (["runtime.device=cpu"], 0), (["launcher.gres='gpu:a100:2'"], 0), (["launcher.gpus=1"], 1)],
)
def test_a_run_gets_a_gpu_for_each_process_unless_told_otherwise(overrides: list[str], gpus: int) -> None:
    assert slurm_parameters.gpus_per_node(compose(["launcher=slurm", "runtime.devices=2", *overrides])) == gpus


@pytest.mark.parametrize(
    "overrides,says",
    [
        (["launcher.nodes=2", "runtime.devices=2"], "runtime.devices=2 starts more in each"),
        (["launcher.nodes=3"], "does not divide by the 3 processes"),
        (["launcher.time=2"], "leaves a job of launcher.time=2 no time"),
    ],
)
def test_what_cannot_be_is_told_before_anything_is_submitted(overrides: list[str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        compose(["launcher=slurm", "schedule.images_per_batch=4", *overrides])


@pytest.mark.parametrize(
    "written,minutes",
    [
        ("90", 90), ("90:00", 90), ("90:01", 91), ("0:30", 1), ("24:00:00", 1440), ("1:30:00", 90), ("1-0", 1440),
        ("2-12", 3600), ("1-00:30", 1470), ("1-00:00:00", 1440), ("7-23:59:59", 11520),
    ],
)  # fmt: skip
def test_time_is_written_as_sbatch_takes_it(tmp_path: Path, written: str, minutes: int) -> None:
    """The notations of sbatch's manual page; seconds are rounded up to the next minute."""
    overrides = ["launcher=slurm", f"launcher.time={written}", "launcher.warning=1"]
    config = compose(overrides)
    assert slurm_parameters.of(config, 1, None, tmp_path)["time"] == minutes
    assert Composer().compose(overrides).launcher.time == written
    path = tmp_path / "config.yaml"
    path.write_text(to_yaml(config))
    assert load(path).launcher.time == written


@pytest.mark.parametrize("written", ["0", "0:00", "1d", "1-", "-5", "1:2:3:4", "1-0:0:0:0", "1.5", "UNLIMITED"])
def test_another_notation_is_told_those_that_there_are(written: str) -> None:
    with pytest.raises(UserError, match="no time that a job may take") as error:
        compose(["launcher=slurm", f"launcher.time={written}"])
    assert "D-HH:MM:SS" in error.value.hint


def test_a_rejection_is_sbatchs_own_words() -> None:
    said = "sbatch: error: Batch job submission failed: Invalid account or account/partition combination specified\n"
    error = slurm_commands.rejected(said)
    assert "Invalid account or account/partition combination specified" in error.what
    assert "Nothing was submitted." in str(error.hint)


def test_slurm_is_a_place(tmp_path: Path) -> None:
    assert place("slurm", tmp_path).states(["nothing"]) == {}


def test_how_a_job_ended_is_asked_once_for_all_and_its_absence_is_said(tmp_path: Path, commands: Path) -> None:
    asked = commands / "asked"
    command(commands, "squeue", "true")
    command(commands, "sacct", f"echo \"$@\" >> {asked}\necho 'Slurm accounting storage is disabled' >&2; exit 1")
    executor = place("slurm", tmp_path)
    runs = [open_run(tmp_path, compose(["launcher=slurm", f"seed={seed}"])) for seed in range(3)]
    begin(tmp_path, "slurm", "x:y", [Job(run.folder, run.config()) for run in runs], Limits())
    for place_in_array, run in enumerate(runs):
        update_job(run.folder, job_id=f"12_{place_in_array}")
    for _ in range(2):
        assert set(executor.states([run.run_id for run in runs]).values()) == {JobState.ENDED}
    assert asked.read_text().splitlines() == ["-X -n -P -o JobID,State -j 12"]
    (note,) = executor.notes()
    assert "accounting is off" in note
