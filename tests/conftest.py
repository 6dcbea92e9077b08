"""What every test may use."""

import os
from pathlib import Path

import pytest

# Two workers on two cores: more threads each would only fight.
os.environ.setdefault("OMP_NUM_THREADS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real pictures, reference outputs of other implementations: a folder beside the clone."""
    if not SHARED.is_dir():
        pytest.skip("reference data is not there: the folder ../shared beside the clone")
    return SHARED


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory, worker_id: str = "") -> None:
    """Tests make the embedded data in a folder of their own, never in the user's cache."""
    os.environ.setdefault("MRBENCH_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    os.environ.pop("MRBENCH_ROOT", None)
