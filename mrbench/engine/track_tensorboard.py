"""TensorBoard's event files of a run, in the folder `tensorboard` of its record."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from mrbench.config.schema import RunConfig
from mrbench.engine.tracking import Entry, parameters, points
from mrbench.runs.record import Run

FLUSH_SECONDS = 10


class TensorBoardTracker:
    """One event file that holds all that metrics.jsonl does.

    It is written anew when a run goes on: a killed process takes with it what its writer had not flushed. The new file
    begins with TensorBoard's mark that purges all steps from 0, for a TensorBoard that has read the old one.
    """

    def __init__(self, run: Run, config: RunConfig) -> None:
        self._folder = run.folder / "tensorboard"
        self._parameters = parameters(config)
        self._shown = _shown(config)
        self._writer: SummaryWriter | None = None

    def start(self, history: Sequence[Entry]) -> None:
        old = _event_files(self._folder)
        self._writer = SummaryWriter(str(self._folder), purge_step=0 if old else None, flush_secs=FLUSH_SECONDS)
        file: Any = self._writer.file_writer
        for summary in hparams(self._parameters, dict.fromkeys(self._shown)):
            file.add_summary(summary)
        for entry in history:
            self.add(entry)
        self._writer.flush()
        for path in old:
            path.unlink(missing_ok=True)

    def add(self, entry: Entry) -> None:
        assert self._writer is not None
        for name, value in points(entry).items():
            self._writer.add_scalar(name, value, entry["iteration"], walltime=entry["time"])

    def close(self, state: str) -> None:
        if self._writer is not None:
            self._writer.close()


def open_tracker(run: Run, config: RunConfig) -> TensorBoardTracker:
    return TensorBoardTracker(run, config)


def _shown(config: RunConfig) -> list[str]:
    """The metrics that stand beside the hyper-parameters in TensorBoard's table."""
    model = config.model
    if model.rpn.mode == "only":
        return ["proposal/AR100", "proposal/AR1000"]
    heads = {"box": True, "mask": model.mask_head.enabled, "keypoint": model.keypoint_head.enabled}
    return [f"{head}/AP" for head, there in heads.items() if there]


def _event_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("events.out.tfevents.*"))
