"""A real Slurm cluster on this machine for the tests in this folder, or the reason why there can be none."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from slurm_cluster import Cluster, why_not  # noqa: E402


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    reason = why_not()
    if not os.environ.get("MRBENCH_TEST_SLURM"):
        reason = "they take minutes: make test-slurm runs them"
    if reason is not None:
        for item in items:
            if HERE in Path(item.path).parents:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Five nodes of 4 cores with accounting; arrays of 8 jobs at most."""
    settings = {"CLUSTER_NODES": "5", "CLUSTER_MAX_ARRAY": "8"}
    made = Cluster(Path(f"/tmp/mrbench-slurm-{os.getpid()}"), settings)
    try:
        made.up()
        yield made
    finally:
        made.down()


@pytest.fixture(scope="session")
def without_accounting() -> Iterator[Cluster]:
    """One node, no accounting."""
    settings = {"CLUSTER_NODES": "1", "CLUSTER_ACCOUNTING": "0"}
    made = Cluster(Path(f"/tmp/mrbench-slurm-{os.getpid()}-bare"), settings)
    try:
        made.up()
        yield made
    finally:
        made.down()
