"""The house as DESIGN draws it: who may import whom, and who must answer without torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "mrbench"

BELOW: dict[str, set[str]] = {
    "errors": set(),
    "cores": set(),
    "config": {"errors", "cores"},
}
BELOW["runs"] = {"config", *BELOW["config"]}
BELOW["weights"] = {"runs", *BELOW["runs"]}
BELOW["data"] = {"weights", *BELOW["weights"]}  # its reader of other projects' pickles
BELOW["modeling"] = {"data", *BELOW["data"]}
BELOW["evaluation"] = {"modeling", *BELOW["modeling"]}
BELOW["engine"] = {"evaluation", *BELOW["evaluation"]}
for _top in ("launch", "bench", "report", "study"):
    BELOW[_top] = {"engine", *BELOW["engine"]}
BELOW["launch"].add("study")
BELOW["bench"].add("study")  # times studies of thousands of arms
BELOW["report"].add("bench")  # reads its records
BELOW["cli"] = {"launch", "bench", "report", "study", *BELOW["launch"]}

LIGHT = ("config", "runs", "study", "launch", "report", "cli")


def imported(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("mrbench."):
            found.add(node.module.split(".")[1])
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("mrbench.")}
    return found


@pytest.mark.parametrize("part", sorted(BELOW))
def test_imports_point_down(part: str) -> None:
    top = PACKAGE / part
    files = [PACKAGE / f"{part}.py"] if not top.is_dir() else sorted(top.rglob("*.py"))
    wrong = {str(f.relative_to(PACKAGE)): bad for f in files if (bad := imported(f) - BELOW[part] - {part})}
    assert not wrong


def modules_after(code: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize("part", LIGHT)
def test_light_parts_do_not_import_torch(part: str) -> None:
    names = [
        ".".join(("mrbench", *f.relative_to(PACKAGE).with_suffix("").parts))
        for f in sorted((PACKAGE / part).rglob("*.py"))
    ]
    code = "import importlib\n" + "\n".join(f"importlib.import_module({n.removesuffix('.__init__')!r})" for n in names)
    assert not modules_after(code) & {"torch", "torchvision"}


def test_help_imports_neither_torch_nor_pandas_nor_matplotlib_nor_hydra() -> None:
    code = "sys.argv = ['mrbench', '--help']\nfrom mrbench.cli.app import main\ntry: main()\nexcept SystemExit: pass"
    assert not modules_after(code) & {"torch", "torchvision", "pandas", "matplotlib", "hydra", "numpy", "submitit"}
