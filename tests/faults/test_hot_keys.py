"""One key has a third of the events, and every event touches one advertiser: rows are exact, and workers go on."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from tests.support.faults import assert_rows_exact, kill_a_worker, some_events, with_faults
from tests.support.workers import Work, finish
from tests.support.world import World

pytestmark = pytest.mark.kafka

HOT_SHARE = 0.3


def of_one_ip_and_advertiser(table: pa.Table, seed: int) -> pa.Table:
    """The table with HOT_SHARE of its events from one IP, and all of them of one advertiser."""
    is_hot = np.random.default_rng(seed).random(table.num_rows) < HOT_SHARE
    ips = np.where(is_hot, "hot", table.column("ip").to_numpy(zero_copy_only=False))
    columns = {"ip": pa.array(ips, pa.string()), "advertiser_id": pa.array(["hot"] * table.num_rows)}
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    return table


def test_workers_that_fold_into_the_same_rows_leave_them_exact(work: Work, world: World) -> None:
    events = some_events(world, each=900)
    tables = {**events, "ad_events": of_one_ip_and_advertiser(events["ad_events"], seed=1)}
    with_faults(work, tables, 2, seed=21, fault=kill_a_worker)
    finish(work)
    assert_rows_exact(work, tables)
