"""Seconds that `mrbench report` takes: the bootstrap of ten small runs, and a thousand whose bootstrap is done.

`python -m mrbench.bench.reporting`, or `make bench`. The runs are made up, a hundred arms of ten seeds: records of
450 iterations with matches on 200 images of four classes, as the demo's. They share ten files of matches, so that what
a first report computes for ten of them can be copied to all. The command runs in a process of its own, and fails where
torch or torchvision was imported.
"""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.evaluation.matches import KindMatches, Matches, breakdown, breakdown_names, pack, resampler, summary
from mrbench.runs.files import write_json

KINDS_OF_RUN = 10
IMAGES, CLASSES, OBJECTS, NOISE = 200, 4, 4, 3  # objects and detections of nothing, an image
COMMAND = (
    "import sys\nfrom mrbench.cli.app import main\n"
    "try: main()\n"
    "except SystemExit as end: code = end.code\n"
    "assert not {'torch', 'torchvision'} & set(sys.modules), 'a report must not import torch'\n"
    "sys.exit(code)"
)


def make_study(root: Path, arms: int, seeds: int) -> None:
    """The studies `few` and `many` under `root`: ten runs, and `arms` times `seeds` of them, completed, with one of
    ten results each."""
    written = to_yaml(compose(["data=shapes", "model=mask_rcnn_small", "schedule=small"]))
    if written.count("\nseed: ") + written.startswith("seed: ") != 1 or written.count("  weight_decay: ") != 1:
        raise RuntimeError("the configuration has changed: seed and weight_decay stand no longer once in it")
    results = [_result(kind) for kind in range(KINDS_OF_RUN)]
    record: dict[str, dict[str, Any]] = {}
    few: dict[str, dict[str, Any]] = {}
    for arm in range(arms):
        decay = f"{(arm + 1) * 1e-6:.1e}"
        runs = {}
        for seed in range(seeds):
            kind = (3 * arm + 7 * seed) % KINDS_OF_RUN
            runs[str(seed)] = run_id = f"mask_rcnn_small-shapes-{arm:05x}{seed:05x}"
            text = _with(_with(written, "seed", str(seed)), "  weight_decay", decay)
            _make_run(root / "runs" / run_id, text, kind, *results[kind])
            few.setdefault(f"kind-{kind}", {"overrides": [], "runs": {"0": run_id}})
        record[f"decay-{decay}"] = {"overrides": [f"optimizer.weight_decay={decay}"], "runs": runs}
    for name, chosen in (("few", few), ("many", record)):
        content = {"study": name, "baseline": next(iter(chosen)), "metrics": ["box/AP", "mask/AP"], "arms": chosen}
        write_json(root / "studies" / f"{name}.json", content)


def _result(kind: int) -> tuple[Matches, dict[str, Any]]:
    """Matches, and the evaluation.json that belongs to them."""
    matches = make_matches(0.6 + 0.02 * kind, np.random.default_rng(kind))
    metrics: dict[str, float | None] = {}
    by_threshold: dict[str, dict[str, float]] = {}
    for name in matches.kinds:
        table = resampler(matches, name)(np.ones(IMAGES, np.int64))
        metrics |= {f"{name}/{metric}": value for metric, value in summary(matches, table).items()}
        found = dict(zip(breakdown_names(matches), breakdown(matches, table).tolist(), strict=True))
        by_threshold[name] = {key.partition("@")[2]: value for key, value in found.items() if "@" in key}
    return matches, {"iteration": 450, "images": IMAGES, "metrics": metrics, "per_threshold": by_threshold}


def _with(text: str, key: str, value: str) -> str:
    """The YAML text with the one line of `key` changed."""
    return "\n".join(f"{key}: {value}" if line.startswith(f"{key}: ") else line for line in text.split("\n"))


def _make_run(folder: Path, config: str, kind: int, matches: Matches, evaluation: dict[str, Any]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(config)
    status = {
        "state": "completed",
        "attempt": 1,
        "iteration": 450,
        "iterations": 450,
        "started": "2026-01-01T10:00:00+00:00",
        "ended": "2026-01-01T10:01:00+00:00",
        "images_per_second": 20.0 + 0.1 * kind,
        "peak_memory": 900 * 2**20,
    }
    (folder / "status.json").write_text(json.dumps(status))
    packages = {"torch": "2.11.0", "torchvision": "0.26.0"}
    (folder / "provenance.json").write_text(json.dumps({"python": "3.11.0", "packages": packages}))
    random = np.random.default_rng(kind)
    lines: list[dict[str, object]] = [
        {"kind": "train", "iteration": i, "loss": 2.5 * np.exp(-i / 200) + random.uniform(0.3, 0.5), "lr": 0.01}
        for i in range(20, 451, 20)
    ]
    lines += [{"kind": "evaluation", "iteration": i, "box/AP": i / 20, "mask/AP": i / 21} for i in (225, 450)]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    matches.save(folder / "matches.npz")


def share_draws(root: Path) -> None:
    """Copies what the bootstrap left beside a run to all runs with the same matches."""
    kept = {}
    for path in (root / "runs").glob("*/bootstrap.npz"):
        kept[path.with_name("matches.npz").read_bytes()] = path
    for path in (root / "runs").glob("*/matches.npz"):
        source = kept.get(path.read_bytes())
        if source is not None and source.parent != path.parent:
            shutil.copy(source, path.with_name("bootstrap.npz"))


def make_matches(quality: float, random: np.random.Generator) -> Matches:
    """Matches of boxes and masks on `IMAGES` images; `quality` is the mean IoU of a found object."""
    thresholds = np.linspace(0.5, 0.95, 10)
    kinds = {}
    for kind in ("box", "mask"):
        image = np.repeat(np.arange(IMAGES, dtype=np.int32), OBJECTS + NOISE)
        iou = random.normal(quality, 0.15, (IMAGES, OBJECTS + NOISE))
        iou[:, OBJECTS:] = 0.0
        category = np.tile(np.arange(OBJECTS + NOISE) % CLASSES, IMAGES).astype(np.int16)
        matched = np.repeat((iou.reshape(-1, 1) >= thresholds)[:, None, :], 4, axis=1)
        score = np.clip(iou.ravel(), 0, 1) * 0.5 + random.uniform(0, 0.5, iou.size)
        order = np.lexsort((-score, image, category))
        kinds[kind] = KindMatches(
            image=image[order],
            category=category[order],
            score=score[order],
            matched=pack(matched[order]),
            ignored=pack(np.zeros_like(matched)),
            ground_truth=np.full((IMAGES, CLASSES, 4), OBJECTS // CLASSES, np.int32),
        )
    names = [f"class {k}" for k in range(CLASSES)]
    return Matches(np.arange(IMAGES), names, (1024.0, 9216.0), 100, thresholds, kinds)


def seconds(*arguments: str) -> tuple[float, float]:
    """Wall clock and processor time of `mrbench` with these arguments. Raises subprocess.CalledProcessError where it
    fails."""
    begin, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", COMMAND, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return time.perf_counter() - begin, processor


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m mrbench.bench.reporting", description=__doc__.partition("\n")[0])
    parser.add_argument("--arms", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--keep", type=Path, help="a folder for the runs, which stay there; otherwise they are removed"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or Path(temporary)
        if not (root / "studies").is_dir():
            make_study(root, arguments.arms, arguments.seeds)
        place = ["--root", str(root), "--out", str(root / "out")]
        wall, processor = seconds("report", "few", *place, "--format", "csv")
        print(f"report of {KINDS_OF_RUN} runs, with their bootstrap: {wall:.1f} s ({processor:.1f} s of processor)")
        share_draws(root)
        for what, formats in (("as tables", "terminal,markdown,csv,json,latex"), ("all formats", "all")):
            wall, processor = seconds("report", "many", *place, "--format", formats)
            runs = f"{arguments.arms * arguments.seeds:,} runs"
            print(f"report of {runs}, {what}: {wall:.1f} s ({processor:.1f} s of processor)")


if __name__ == "__main__":
    main()
