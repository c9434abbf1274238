"""A job on a cluster of two machines, one of which dies."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from actor_risk.local import start_child, wait_until
from tests.support.backfills import SPAN, VIEWS, BackfillHome

TIMEOUT_S = 240.0
STARTS_MAX = 3
PAUSE_MS = 600_000


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A head, and a second node, each with one core and processes of its own."""
    made = started()
    yield made
    made.shutdown()


def started() -> Cluster:
    """Ray gives a node 30 s to start, whatever else the machine does; a busy one is asked again."""
    for left in reversed(range(STARTS_MAX)):
        made = Cluster()
        try:
            made.add_node(num_cpus=1, include_dashboard=False)
            made.add_node(num_cpus=1)
        except Exception:
            made.shutdown()
            if not left:
                raise
        else:
            return made
    raise AssertionError("unreachable")


def waiting_parts(home: BackfillHome) -> int:
    """How many parts wait for the pause to end, to write how far they are."""
    return sum(client["cmd"] == "hset" and "b" in client["flags"] for client in home.client.client_list())


@pytest.mark.timeout(600)
def test_a_job_outlives_one_of_its_two_machines(clean_home: BackfillHome, cluster: Cluster, tmp_path: Path) -> None:
    home, log = clean_home, tmp_path / "command.log"
    assert home.run(*VIEWS, *SPAN, "--workers", "1").exit_code == 0
    undisturbed = home.rows()
    home.clear()
    # In many parts, so that both machines have one at any moment.
    arguments = ["backfill", *VIEWS, *SPAN, "--step", "1h", "--address", cluster.address, "--workers", "2"]
    command = start_child(  # not forked: this process has Ray's threads
        [sys.executable, "-m", "actor_risk.cli", *arguments], log, env={**os.environ, **home.environment}
    )
    wait_until(
        lambda: len(home.entries("ip_ad_stats", "looked")) > 1 or command.poll() is not None, TIMEOUT_S, "it works"
    )
    home.client.client_pause(PAUSE_MS, all=False)  # every part waits to write its progress, on both machines
    wait_until(lambda: waiting_parts(home) == 2, TIMEOUT_S, "both machines have a part in hand")
    second = next(node for node in cluster.list_all_nodes() if node is not cluster.head_node)
    cluster.remove_node(second, allow_graceful=False)
    home.client.client_unpause()
    assert command.wait(TIMEOUT_S) == 0, log.read_text()
    assert home.rows() == undisturbed
    assert home.report().views[0].lost, "no part was running on the machine that died"
