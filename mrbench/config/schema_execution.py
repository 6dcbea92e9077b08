"""Where and how a run is carried out: the part of the configuration that is not of its identity."""

from dataclasses import dataclass, field

from mrbench.config.limits import choice, number

TRACKERS = ("tensorboard", "mlflow")


@dataclass
class RuntimeConfig:
    """Where and how: changes nothing in the result but rounding.

    deterministic: on a GPU, only algorithms that add up in a fixed order (torch.use_deterministic_algorithms), so that
    the same run gives the same bits; slower. A CPU does so anyway.
    channels_last: pictures and maps lie in memory pixel by pixel instead of channel by channel, which GPUs compute
    convolutions in half precision faster in.
    compile: torch.compile turns body and neck, whose work does not depend on what is in the pictures, into code of
    their own; needs a C++ compiler, and on a GPU Triton.
    activation_checkpointing: the body's stages keep only what goes into them, and are computed again for their
    gradients: less memory, more time (torch.utils.checkpoint).
    """

    device: str = choice("auto", "auto", "cpu", "cuda")
    devices: int = number(1, 1)  # processes on this machine
    # what processes exchange tensors with. auto: NCCL between GPUs, else gloo; nccl: refused without; gloo: always
    backend: str = choice("auto", "auto", "nccl", "gloo")
    # seconds that a process waits for the others before the run ends; as long as COCO's metrics may take on one
    timeout: float = number(3600, 1)
    threads: int | None = number(None, 1)  # CPU threads a process; null: the cores divided by the processes
    accumulate: int = number(1, 1)  # parts into which a process cuts its share of the batch
    deterministic: bool = False
    channels_last: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    num_workers: int = number(2, 0)
    evaluation_batch: int = number(8, 1)  # images a process evaluates at once
    checkpoint_period: int = number(1000, 1)  # iterations
    keep_checkpoints: int = number(2, 1)
    log_period: int = number(20, 1)
    # TRACKERS that are told what metrics.jsonl gets: tensorboard writes event files into the run's folder, mlflow
    # keeps an MLflow run of it (the extra `tracking`; docs/training.md)
    track: list[str] = field(default_factory=list)
    # a SQLite file (sqlite:///FILE) or a folder; null: $MLFLOW_TRACKING_URI, else mlflow.db beside runs/
    mlflow_uri: str | None = None


@dataclass
class LauncherConfig:
    """Where the runs of a sweep are carried out, and what each is given there.

    `partition` and what follows are for Slurm: sbatch's options of these names unless said otherwise; null: as the
    cluster has it.
    """

    kind: str = choice("local", "local", "slurm")  # local: this machine's devices; slurm: a cluster's jobs
    parallel: int | None = number(None, 1)  # runs at once; null: one a GPU, or one a core without a GPU
    # GiB that a GPU must have free before a run begins on it; null: half of it, where a run has it to itself
    min_free_memory: float | None = number(None, 0)
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    # of a job: minutes, or as D-HH:MM:SS (`job_time`); a run that takes longer goes on in the queue's next turn
    time: str | None = None
    nodes: int = number(1, 1)  # of a run
    tasks_per_node: int = number(1, 1)  # processes of a run on each node, in place of runtime.devices
    gpus: int | None = number(None, 0)  # a node; null: one a process, but none with gres or runtime.device=cpu
    gres: str | None = None
    cpus_per_task: int | None = number(None, 1)
    mem: str | None = None  # a node, as 32G
    warning: int = number(120, 1)  # seconds before its time is over that a job is asked for a checkpoint (--signal)
    requeue: bool = True  # a job that time or preemption has stopped queues again, and its run goes on
    setup: list[str] = field(default_factory=list)  # lines of shell before each run, as "module load cuda"
    additional_parameters: list[str] = field(default_factory=list)  # whatever else sbatch takes, as "exclude=n1"
