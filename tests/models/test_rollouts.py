"""Entries of what is rolled out: one after the other, none lost, none passed over unseen."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from models import BundleCorruptError, UnsafeNameError
from models.errors import RolloutMovedError
from models.rollouts import Rollout, Rollouts

MODEL = "ad_click_risk"


def entry(number: int, **more: object) -> Rollout:
    return Rollout(**{"number": number, "at_ms": 7, "by": "me", "policy": {"champion": f"v{number}"}, **more})  # type: ignore[arg-type]


@pytest.fixture(params=["directory", "memory"])
def rollouts(request: pytest.FixtureRequest, tmp_path: Path) -> Rollouts:
    return Rollouts(tmp_path if request.param == "directory" else f"memory://{tmp_path}")


def test_the_entry_with_the_highest_number_counts(rollouts: Rollouts) -> None:
    assert rollouts.newest(MODEL) is None
    assert rollouts.history(MODEL) == []
    for number in range(1, 13):
        rollouts.add(MODEL, entry(number, why="because"))
    assert rollouts.newest(MODEL) == entry(12, why="because")
    assert rollouts.newest(MODEL, beyond=11) == entry(12, why="because")
    assert rollouts.newest(MODEL, beyond=12) is None
    assert [one.number for one in rollouts.history(MODEL)] == list(range(1, 13))
    assert [one.number for one in rollouts.history(MODEL, 3)] == [10, 11, 12]
    assert rollouts.entry(MODEL, 4) == entry(4, why="because")
    assert rollouts.entry(MODEL, 13) is None
    assert rollouts.newest("advertiser_risk") is None


@pytest.mark.parametrize("number", [0, 1, 3])
def test_an_entry_that_is_not_the_next_one_is_refused(rollouts: Rollouts, number: int) -> None:
    rollouts.add(MODEL, entry(1))
    with pytest.raises(RolloutMovedError, match="changed meanwhile"):
        rollouts.add(MODEL, entry(number))
    assert rollouts.history(MODEL) == [entry(1)]


def test_of_many_who_add_the_next_entry_one_succeeds(tmp_path: Path) -> None:
    def add(by: int) -> bool:
        try:
            Rollouts(tmp_path).add(MODEL, entry(1, by=str(by)))
        except RolloutMovedError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(16))) == 1


@pytest.mark.parametrize("content", [b"", b"{}", b'{"number": 2, "at_ms": 1, "by": "x", "policy": null}'])
def test_a_damaged_entry_is_told(tmp_path: Path, content: bytes) -> None:
    rollouts = Rollouts(tmp_path)
    rollouts.add(MODEL, entry(1))
    (tmp_path / MODEL / "rollouts" / "00000001.json").write_bytes(content)
    with pytest.raises(BundleCorruptError, match=r"00000001\.json"):
        rollouts.newest(MODEL)


def test_a_name_that_could_leave_the_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsafeNameError):
        Rollouts(tmp_path).newest("../other")
