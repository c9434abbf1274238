"""On-demand functions that fail for some rows, while features are computed again."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.audit.recompute import with_on_demand


class Job:
    """Doubles the rows' numbers, but fails when it is given one of `bad`."""

    def __init__(self, bad: Sequence[int]) -> None:
        self.bad, self.calls = set(bad), 0

    def with_on_demand(self, stored: pa.Table) -> pa.Table:
        self.calls += 1
        numbers = stored["n"].to_pylist()
        if self.bad.intersection(numbers):
            raise ZeroDivisionError("one of them")
        return stored.append_column("doubled", pa.array([2 * number for number in numbers], pa.int64()))


@given(st.integers(0, 40), st.sets(st.integers(0, 39), max_size=6))
def test_a_row_whose_function_fails_costs_only_itself(length: int, bad: set[int]) -> None:
    failed = np.zeros(length, dtype=bool)
    tables = with_on_demand(Job(sorted(bad)), pa.table({"n": pa.array(range(length), pa.int64())}), failed)
    numbers = [number for table in tables for number in table["n"].to_pylist()]
    assert numbers == list(range(length))
    assert set(np.flatnonzero(failed)) == {number for number in bad if number < length}
    for table in tables:
        if "doubled" in table.column_names:
            assert table["doubled"].to_pylist() == [2 * number for number in table["n"].to_pylist()]
        else:
            assert table.num_rows == 1


def test_without_a_failure_the_functions_run_once() -> None:
    job = Job([])
    with_on_demand(job, pa.table({"n": [1, 2, 3]}), np.zeros(3, dtype=bool))
    assert job.calls == 1


@pytest.mark.parametrize("bad", [0, 499, 999])
def test_one_bad_row_among_a_thousand_is_found_in_some_twenty_calls(bad: int) -> None:
    job = Job([bad])
    with_on_demand(job, pa.table({"n": list(range(1_000))}), np.zeros(1_000, dtype=bool))
    assert job.calls <= 2 * 11 + 1
