"""`mrbench runs`: what is on disk, asked for, compared and removed."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from mrbench.cli.app import app
from mrbench.config.compose import to_yaml
from mrbench.config.composer import compose
from mrbench.errors import UserError
from mrbench.evaluation import bootstrap
from mrbench.evaluation.matches import KindMatches, Matches, average_precision, pack
from mrbench.launch.progress import Watcher
from mrbench.runs import provenance
from mrbench.runs.files import write_json
from mrbench.runs.listing import MISSING, flat_config, lookup
from mrbench.runs.lock import run_lock
from mrbench.runs.record import Run, Status

NORMS = {"gn": 40.0, "bn": 30.0}
IMAGES = 30


def matches(quality: float, seed: int) -> Matches:
    """Two objects an image, each found or not; all detections count at every threshold or at none."""
    generator = np.random.default_rng(seed)
    image = np.repeat(np.arange(IMAGES, dtype=np.int32), 2)
    score = generator.permutation(len(image)) / len(image)
    hit = np.broadcast_to((generator.random(len(image)) < quality)[:, None, None], (len(image), 4, 10))
    order = np.lexsort((-score, image))
    kind = KindMatches(
        image[order],
        np.zeros(len(image), np.int16),
        score[order],
        pack(np.ascontiguousarray(hit[order])),
        pack(np.zeros_like(hit)),
        np.full((IMAGES, 1, 4), 2, np.int32),
    )
    return Matches(np.arange(IMAGES), ["thing"], (1.0, 2.0), 100, np.linspace(0.5, 0.95, 10), {"box": kind})


@pytest.fixture(scope="module")
def configurations() -> dict[str, str]:
    return {norm: to_yaml(compose([f"model.norm={norm}", "optimizer.lr=1e-5"])) for norm in NORMS}


@pytest.fixture
def root(tmp_path: Path, configurations: dict[str, str]) -> Path:
    """Two norms of three seeds: five complete runs, one that failed; a study names them all."""
    arms: dict[str, Any] = {}
    for n, norm in enumerate(NORMS):
        runs = {}
        for seed in range(3):
            run = Run(tmp_path / "runs" / f"small-shapes-{n}{seed}{'c' * 8}")
            runs[str(seed)] = run.run_id
            run.folder.mkdir(parents=True)
            run.config_file.write_text(configurations[norm].replace("seed: 0\n", f"seed: {seed}\n", 1))
            failed = norm == "bn" and seed == 2
            found = matches(NORMS[norm] / 50, 10 * n + seed)
            metrics = {f"box/{name}": value for name, value in average_precision(found, "box").items()}
            status = Status(
                "failed" if failed else "completed",
                attempt=1,
                iteration=5 if failed else 10,
                iterations=10,
                ended=f"2026-03-0{seed + 1}T10:00:00+00:00",
                error={"kind": "x", "message": "the disk is full"} if failed else None,
            )
            write_json(run.status_file, asdict(status))
            write_json(run.provenance_file, {"python": "3.11.7", "code": {"commit": f"{n}" * 40}})
            if not failed:
                write_json(run.evaluation_file, {"metrics": metrics})
                found.save(run.matches_file)
        arms[norm] = {"overrides": [], "family": norm, "runs": runs}
    write_json(tmp_path / "studies" / "norms.json", {"study": "norms", "baseline": "gn", "arms": arms})
    return tmp_path


@pytest.fixture
def mrbench(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Runs a command in this process; returns what it prints, or raises its UserError."""
    monkeypatch.setenv("COLUMNS", "300")

    def run(*arguments: str, code: int = 0, answer: str | None = None) -> str:
        done = CliRunner().invoke(app, ["runs", *arguments, "--root", str(root)], input=answer)
        if isinstance(done.exception, UserError):
            raise done.exception
        assert done.exit_code == code, (done.output, done.exception)
        return done.stdout

    return run


def listed(mrbench: Callable[..., str], *arguments: str) -> list[str]:
    """The first two digits of the runs' hashes: norm and seed."""
    return [row["run"].rpartition("-")[2][:2] for row in json.loads(mrbench("list", "--json", *arguments))]


@pytest.mark.parametrize(
    "filters,expected",
    [
        ([], "00 01 02 10 11 12"),
        (["model.norm=gn"], "00 01 02"),
        (["model.norm!=gn", "state=completed"], "10 11"),
        (["seed=1..2", "study=norms", "arm=b*"], "11 12"),
        (["seed=0,2"], "00 02 10 12"),
        (["optimizer.lr=1e-5", "seed=0"], "00 10"),
        (["optimizer.lr<=0.00001", "optimizer.lr>9e-6", "iteration<10"], "12"),
        (["model.weights=null", "state=failed"], "12"),
        (["model.mask_head.enabled=true", "seed=0"], "00 10"),
        (["model.pixel_mean=[127.5, 127.5, 127.5]", "arm=gn"], "00 01 02"),
        (["ended>=2026-03-02T12", "arm=gn"], "02"),
        (["run=*-11*"], "11"),
        (["run=11,small-shapes-02"], "02 11"),
        (["run!=1"], "00 01 02"),
        (["box/AP>=0", "seed=2"], "02"),  # the failed one has no AP
        (["--sort", "-seed,arm"], "12 02 11 01 10 00"),
        (["--study", "norms", "--limit", "2"], "00 01"),
    ],
)
def test_runs_are_chosen_by_any_key_metric_and_column(
    mrbench: Callable[..., str], filters: list[str], expected: str
) -> None:
    assert listed(mrbench, *filters) == expected.split()


def test_a_data_set_without_a_name_is_found_and_shown_by_its_folder_s(root: Path, mrbench: Callable[..., str]) -> None:
    """As in the names of its runs, and as the report's --where finds it."""
    for number, where in (("00", "/here/mine"), ("01", "~nobody/others")):
        file = next((root / "runs").glob(f"small-shapes-{number}*")) / "config.yaml"
        config = yaml.safe_load(file.read_text())
        config["data"] |= {"kind": "coco_folder", "name": None, "root": where}
        file.write_text(yaml.safe_dump(config, sort_keys=False))
    assert listed(mrbench, "data.name=mine") == ["00"]
    assert listed(mrbench, "data.name=mine,others") == ["00", "01"]
    assert "00" not in listed(mrbench, "data.name=shapes")
    (row,) = json.loads(mrbench("list", "data.name=mi*", "--json", "--columns", "data.name"))
    assert row == {"data.name": "mine"}


def test_runs_are_sorted_by_a_metric_and_those_without_it_come_last(mrbench: Callable[..., str], root: Path) -> None:
    values = {
        run: row["box/AP"]
        for row in json.loads(mrbench("list", "--json", "--columns", "run,box/AP"))
        for run in [row["run"]]
    }
    falling = [r["run"] for r in json.loads(mrbench("list", "--json", "--sort", "-box/AP"))]
    known = [values[run] for run in falling if values[run] is not None]
    assert known == sorted(known, reverse=True)
    assert len(known) == 5
    assert values[falling[-1]] is None


@pytest.mark.parametrize(
    "arguments,says,hint",
    [
        (["model.nrom=gn"], "model.nrom", "model.norm"),
        (["box/APP>3"], "box/APP", "box/AP"),
        (["--sort", "sede"], "sede", "seed"),
        (["nonsense"], "Cannot read the filter 'nonsense'", "KEY=VALUE"),
        (["optimizer.lr>fast"], "fast is not a number", ""),
        (["--study", "norm"], "no study 'norm'", "norms"),
        (["state=complete"], "state=complete", "completed"),
        (["state!=interupted"], "state=interupted", "interrupted"),
        (["model.norm=gn,bnn"], "model.norm=bnn", "bn"),
        (["arm=bnn"], "arm=bnn", "bn"),
        (["study=nomrs"], "study=nomrs", "norms"),
        (["model.backbone.depth=51"], "model.backbone.depth=51", "50"),
    ],
)
def test_a_mistaken_filter_names_the_nearest(
    mrbench: Callable[..., str], arguments: list[str], says: str, hint: str
) -> None:
    with pytest.raises(UserError) as caught:
        mrbench("list", *arguments)
    assert says in caught.value.what
    assert hint in caught.value.hint


def test_columns_show_what_is_asked_for_in_text_and_json(mrbench: Callable[..., str]) -> None:
    names = "seed,model.norm,optimizer.lr,study,error"
    assert json.loads(mrbench("list", "state=failed", "--json", "--columns", names)) == [
        {"seed": 2, "model.norm": "bn", "optimizer.lr": 1e-5, "study": "norms", "error": "the disk is full"}
    ]
    lines = mrbench("list", "state=failed", "--columns", names).splitlines()
    assert lines[0].split() == names.split(",")
    assert lines[1].split(None, 4) == ["2", "bn", "1e-05", "norms", "the disk is full"]


def test_the_table_fits_80_columns_and_cuts_nothing(
    root: Path, mrbench: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    study = json.loads((root / "studies" / "norms.json").read_text())
    long = "a_much_longer_name_of_an_arm_than_others"
    study["arms"] = {long: study["arms"]["gn"], "bn": study["arms"]["bn"]}
    (root / "studies" / "norms.json").write_text(json.dumps(study))
    monkeypatch.setenv("COLUMNS", "80")
    lines = mrbench("list").splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["run", "study", "arm", "seed", "state", "progress", "box/AP", "when"]
    at = lines[0].index("arm"), lines[0].index("seed")
    assert long in "".join(line[at[0] : at[1] - 2].strip() for line in lines[1:])
    assert "00cccccccc" in lines[1]  # which finds the run


def test_the_reader_of_single_keys_agrees_with_a_yaml_parser(configurations: dict[str, str], tmp_path: Path) -> None:
    text = configurations["gn"]
    (tmp_path / "config.yaml").write_text(text)
    flat = flat_config(Run(tmp_path))
    assert len(flat) > 150
    for key, value in flat.items():
        found = lookup("\n" + text, key)
        assert found == value or (isinstance(value, str) and found == float(value)), key
    assert lookup("\n" + text, "model") == yaml.safe_load(text)["model"]
    for absent in ("norm", "model.kind", "model.norm.kind", "data.shapes.seeds"):
        assert lookup("\n" + text, absent) is MISSING


def test_a_run_without_process_is_interrupted_in_list_and_show(root: Path, mrbench: Callable[..., str]) -> None:
    run = Run(root / "runs" / "small-shapes-00cccccccc")
    run.update(state="running")
    assert listed(mrbench, "state=interrupted") == ["00"]
    assert "interrupted" in mrbench("show", "00c").splitlines()[0]
    with run_lock(run):
        assert listed(mrbench, "state=running") == ["00"]


def test_a_killed_run_shows_its_newest_checkpoint_or_the_last_logged_iteration(
    root: Path, mrbench: Callable[..., str]
) -> None:
    """Checkpoints are of updates since the last line of the log, or older than it."""
    run = Run(root / "runs" / "small-shapes-00cccccccc")
    write_json(run.status_file, asdict(Status("running", 1, 0, 90)))
    for iteration in (5, 10):
        run.checkpoint_dir.mkdir(exist_ok=True)
        (run.checkpoint_dir / f"{iteration:08d}.pt").touch()
    (run.checkpoint_dir / ".00000015.pt.tmp").touch()
    asked = ("list", "run=*00c*", "--columns", "progress,iteration")
    assert mrbench(*asked).splitlines()[1].split() == ["10/90", "10"]
    assert "10 of 90" in mrbench("show", "00c")
    view = Watcher().view(run, 90)
    assert (view.state, view.iteration) == ("interrupted", 10)
    write_json(run.status_file, asdict(Status("running", 2, 12, 90)))
    assert mrbench(*asked).splitlines()[1].split() == ["12/90", "12"]


def test_show_tells_the_networks_size_and_the_energy(root: Path, mrbench: Callable[..., str]) -> None:
    run = Run(root / "runs" / "small-shapes-00cccccccc")
    run.update(energy=1.8e6)
    provenance.add(run, parameters=1234567, trained_parameters=1000000)
    shown = mrbench("show", "00c")
    assert "parameters   1,234,567, 1,000,000 trained\n" in shown
    assert "energy       0.500 kWh, of the GPUs\n" in shown


def test_compare_shows_intervals_over_images_and_what_was_configured(root: Path, mrbench: Callable[..., str]) -> None:
    found = json.loads(mrbench("compare", "00c", "10c", "--json"))
    value, other = found["metrics"]["box/AP"]
    assert value["value"] == pytest.approx(
        json.loads((root / "runs" / found["runs"][0] / "evaluation.json").read_text())["metrics"]["box/AP"]
    )
    # the same draws as a bootstrap by hand: whole images, AP anew
    drawn = bootstrap.weights(IMAGES)
    scores = []
    for n, norm in enumerate(NORMS):
        made = matches(NORMS[norm] / 50, 10 * n)
        scores.append(np.array([average_precision(made, "box", draw)["AP"] for draw in drawn]))
    assert (value["low"], value["high"]) == pytest.approx(tuple(np.percentile(scores[0], [2.5, 97.5])), abs=1e-3)
    (difference,) = found["differences"]["box/AP"]
    assert difference["value"] == pytest.approx(other["value"] - value["value"])
    paired = np.percentile(scores[1] - scores[0], [2.5, 97.5])
    assert (difference["low"], difference["high"]) == pytest.approx(tuple(paired), abs=1e-3)
    changed = {entry["key"]: entry["values"] for entry in found["configuration"]}
    assert changed["model.norm"] == ["gn", "bn"]
    assert "optimizer.lr" not in changed
    assert "seed" not in changed
    text = mrbench("compare", "00c", "10c", "11c")
    assert f"[{value['low']:.1f}, {value['high']:.1f}]" in text
    assert "model.norm" in text


def test_compare_says_when_images_are_not_the_same_or_matches_are_lost(
    root: Path, mrbench: Callable[..., str]
) -> None:
    (root / "runs" / "small-shapes-11cccccccc" / "matches.npz").unlink()
    found = json.loads(mrbench("compare", "00c", "11c", "--json"))
    assert any("11cccccccc" in problem for problem in found["problems"])
    assert found["metrics"]["box/AP"][0]["low"] is not None
    assert found["differences"]["box/AP"][0]["low"] is None
    with pytest.raises(UserError, match="no evaluation"):
        mrbench("compare", "00c", "12c")
    with pytest.raises(UserError, match="nothing to compare"):
        mrbench("compare", "00c", "00c")


def test_compare_blames_the_run_whose_matches_do_not_fit_and_takes_ap_0_as_it_is(
    root: Path, mrbench: Callable[..., str]
) -> None:
    first, second = (root / "runs" / f"small-shapes-{n}0cccccccc" for n in (0, 1))
    kept = (second / "evaluation.json").read_text()
    nothing = matches(0.0, 0)
    nothing.save(first / "matches.npz")
    metrics = {f"box/{name}": value for name, value in average_precision(nothing, "box").items()}
    assert metrics["box/AP"] == 0.0
    write_json(first / "evaluation.json", {"metrics": metrics})
    found = json.loads(mrbench("compare", "00c", "10c", "--json"))
    assert found["problems"] == []
    assert [found["metrics"]["box/AP"][0][end] for end in ("low", "high")] == [0, 0]
    # no difference has no sign
    for run in (first, second):
        write_json(run / "evaluation.json", {"metrics": {"box/AP": 30.0 - 0.01 * (run == second)}})
    difference = mrbench("compare", "00c", "10c", "--resamples", "0").splitlines()[1]
    assert difference.split() == ["box/AP", "30.0", "30.0", "0.0"]
    write_json(first / "evaluation.json", {"metrics": metrics})
    write_json(second / "evaluation.json", json.loads(kept))
    # another run's matches, of other images, in the first run's folder: the second run's are as good as they were
    foreign = replace(matches(0.9, 5), image_ids=np.arange(IMAGES) + 100)
    foreign.save(first / "matches.npz")
    found = json.loads(mrbench("compare", "00c", "10c", "--json"))
    (problem,) = found["problems"]
    assert problem.startswith(f"no intervals for {first.name}: its matches.npz is not that")
    assert found["metrics"]["box/AP"][1]["low"] is not None


def test_diff_tells_configuration_environment_and_code(mrbench: Callable[..., str]) -> None:
    found = json.loads(mrbench("diff", "00c", "11c", "--json"))
    keys = {entry["key"]: (entry["a"], entry["b"]) for entry in found["configuration"]}
    assert keys["seed"] == (0, 1)
    assert keys["model.norm"] == ("gn", "bn")
    assert found["environment"] == []
    assert [(entry["key"], entry["b"]) for entry in found["code"]] == [("code.commit", "1" * 40)]
    text = mrbench("diff", "00c", "11c")
    assert "environment is the same" in text
    assert f"git diff {'0' * 12} {'1' * 12} -- mrbench conf" in text


def test_remove_shows_asks_and_removes_what_fits(root: Path, mrbench: Callable[..., str]) -> None:
    said = mrbench("remove", "state=failed", answer="n\n", code=1)
    assert "small-shapes-12cccccccc  failed" in said
    assert "norms (bn, seed 2)" in said
    assert "Nothing was removed" in said
    assert len(listed(mrbench)) == 6
    assert "Removed 1 run" in mrbench("remove", "state=failed", answer="y\n")
    mrbench("remove", "00c", "10c", "--yes")
    assert listed(mrbench) == ["01", "02", "11"]
    assert sorted(p.name for p in (root / "runs").iterdir()) == [
        f"small-shapes-{name}cccccccc" for name in ("01", "02", "11")
    ]
    with pytest.raises(UserError, match="No run fits"):
        mrbench("remove", "state=failed", "--yes")


def test_remove_tells_the_space_that_the_system_counts(root: Path, mrbench: Callable[..., str]) -> None:
    run = root / "runs" / "small-shapes-00cccccccc"
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "a.pt").write_bytes(os.urandom(300_000))
    os.link(run / "checkpoints" / "a.pt", root / "kept.pt")  # its content stays on disk
    (run / "checkpoints" / "b.pt").write_bytes(os.urandom(200_000))
    counted = subprocess.run(["du", "-s", "--block-size=1", run], capture_output=True, text=True, check=True).stdout
    expected = int(counted.split()[0]) - (root / "kept.pt").stat().st_blocks * 512
    assert f"{expected / 1024:.1f} KiB" in mrbench("remove", "00c", answer="n\n", code=1)


def test_remove_never_leaves_the_folder(root: Path, mrbench: Callable[..., str]) -> None:
    outside = root / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    run = root / "runs" / "small-shapes-00cccccccc"
    (run / "link").symlink_to(outside)
    mrbench("remove", "00c", "--yes")
    assert (outside / "precious").read_text() == "x"
    (root / "runs" / "small-shapes-01cccccccc").rename(outside / "run")
    (root / "runs" / "small-shapes-01cccccccc").symlink_to(outside / "run")
    with pytest.raises(UserError, match="is a link"):
        mrbench("remove", "01c", "--yes")
    with pytest.raises(UserError, match="is no run of"):
        mrbench("remove", str(outside / "run"), "--yes")
    assert (outside / "run" / "config.yaml").exists()


def test_a_run_that_a_process_holds_is_refused_and_then_nothing_goes(root: Path, mrbench: Callable[..., str]) -> None:
    with run_lock(Run(root / "runs" / "small-shapes-02cccccccc")), pytest.raises(UserError, match="working on"):
        mrbench("remove", "model.norm=gn", "--yes")
    assert len(listed(mrbench)) == 6


def test_looking_at_runs_needs_neither_torch_nor_pandas(root: Path) -> None:
    code = (
        "import sys\nfrom mrbench.cli.app import main\ntry: main()\nexcept SystemExit: pass\n"
        "print(*({'torch', 'torchvision', 'pandas', 'matplotlib'} & set(sys.modules)), file=sys.stderr)"
    )
    for arguments in (["list", "box/AP>1"], ["show", "00c"], ["compare", "00c", "10c"], ["diff", "00c", "10c"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "runs", *arguments, "--root", str(root)], capture_output=True, text=True
        )
        assert done.stdout
        assert not done.stderr.strip()
