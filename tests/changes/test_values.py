"""What is told of the values of features on a sample, and which of them see past their as-of time."""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dateutil.parser
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actor_risk.changes.described import FeatureDefinition, ViewDefinition, WindowDefinition
from actor_risk.changes.evaluated import AS_OF, ASKED, EVENT_ID, LABEL, TOLD_FILE, TOPIC, VALUES_FILE, Evaluated
from actor_risk.changes.evaluating import QUERIES_MAX, evaluate
from actor_risk.changes.failures import failure
from actor_risk.changes.guarding import Guard, RefusedCallError
from actor_risk.changes.profiling import auc, compare_values, problems_on_sample, psi, untold_values
from actor_risk.changes.values import FeatureValues, SampleValues
from actor_risk.feast_repo import apply_repo
from actor_risk.simulate import write
from materialize.definitions import open_feature_store
from tests.changes.small_sample import (
    EVENTS,
    NOWHERE,
    definition,
    described,
    failing,
    over_mean,
    ratios,
    store_of,
    stream_view,
    table_view,
    write_sample,
)
from tests.support.world import simulated

STREAM = described("ip_stats", "clicks_1h", "events_24h", "paid_24h", "countries_24h")
TABLE = described("ip_profile", "age_days", "city", kinds={"city": "STRING"}, kind="batch")


def in_cents(events: dict[str, Any]) -> dict[str, Any]:
    """Dollars become cents."""
    return {"click": (events["event_type"] == "click").astype(float), "amount_usd": events["amount_usd"] * 100}


def a_millisecond_early(events: dict[str, Any]) -> dict[str, Any]:
    """Moves every event."""
    return {"event_time": events["event_time"] - 1, "click": (events["event_type"] == "click").astype(float)}


def of_the_next_event(events: dict[str, Any]) -> dict[str, Any]:
    """Takes the amount of the event after."""
    import numpy as np

    return {"click": events["amount_usd"] * 0 + 1, "amount_usd": np.roll(events["amount_usd"], -1)}


def against_the_mean(events: dict[str, Any]) -> dict[str, Any]:
    """Compares with all events that it is given."""
    import numpy as np

    return {"click": events["amount_usd"] * 0 + 1, "amount_usd": events["amount_usd"] - np.mean(events["amount_usd"])}


def telling_all(inputs: dict[str, Any]) -> dict[str, Any]:
    """Fails with a value in its words, as soon as it is given more than Feast tries it with."""
    if len(inputs["amount_usd"]) == 1:
        return {"over_mean": [0.0]}
    raise ValueError(f"cannot take {inputs['amount_usd'][0]!r} of '203.0.113.7'")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sample(tmp_path_factory.mktemp("sample"))


def refusing(who: str) -> None:
    """Fails with a value among its words."""
    raise ValueError(f"no place for {who}: {who}!")


def evaluated(folder: Path, sample: Path, *objects: Any) -> Path:
    """The folder with what one version's process says."""
    evaluate(store_of(folder, *objects), sample, folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, sample: Path) -> Path:
    """What the usual version says."""
    streams = stream_view()
    return evaluated(tmp_path_factory.mktemp("plain"), sample, streams, table_view(), ratios(streams, over_mean))


def of(values: SampleValues, name: str) -> FeatureValues:
    """One feature's values."""
    return next(feature for feature in values.features if feature.feature == name)


def compared(old: Path, new: Path, *views: Any, **more: Any) -> SampleValues:
    """Two folders, with the same definition."""
    found = definition(*(views or (STREAM, TABLE)))
    return compare_values(old, new, found, found, **more)


def test_values_are_those_that_counting_by_hand_gives(plain: Path, sample: Path) -> None:
    events = pq.read_table(sample / "events").to_pandas()
    millis = events["event_time"].astype("int64") // 10 ** (6 if "ns" in str(events["event_time"].dtype) else 0)
    rows = pq.read_table(plain / VALUES_FILE).to_pandas()
    assert 0 < len(rows) <= QUERIES_MAX
    for row in rows.iloc[:: len(rows) // 20].itertuples():
        own = events.loc[events["event_id"] == getattr(row, EVENT_ID), "ip"].iloc[0]
        as_of = getattr(row, AS_OF)
        tail = (as_of - 3_600_000) // 60_000 * 60_000
        seen = events[(events["ip"] == own) & (millis >= tail) & (millis <= as_of)]
        found = rows.loc[row.Index, "ip_stats:clicks_1h"]
        assert (found if found == found else 0) == (seen["event_type"] == "click").sum()


def test_the_event_itself_is_seen_at_its_time_and_not_a_millisecond_before(plain: Path) -> None:
    rows = pq.read_table(plain / VALUES_FILE).to_pandas().sort_values([EVENT_ID, AS_OF])
    before, at = rows.iloc[::2], rows.iloc[1::2]
    counts = at["ip_stats:events_24h"].to_numpy() - before["ip_stats:events_24h"].fillna(0).to_numpy()
    assert (counts >= 1).all()


def test_the_same_version_twice_has_no_change_and_no_drift(plain: Path) -> None:
    values = compared(plain, plain)
    assert values.events == EVENTS
    assert values.leaks == {}
    assert all(feature.changed == 0 for feature in values.features)
    assert all(feature.drift in (None, 0.0) for feature in values.features)


def test_a_change_of_unit_moves_the_one_feature(tmp_path: Path, plain: Path, sample: Path) -> None:
    streams = stream_view(in_cents)
    values = compared(plain, evaluated(tmp_path, sample, streams, table_view()))
    paid, counted = of(values, "ip_stats:paid_24h"), of(values, "ip_stats:events_24h")
    assert paid.old is not None
    assert paid.new is not None
    assert paid.old.high is not None
    assert paid.new.high == pytest.approx(100 * paid.old.high)
    assert paid.drift is not None
    assert paid.drift > 1
    assert paid.changed > 100
    assert paid.old.edges == paid.new.edges
    assert sum(paid.old.histogram) == paid.old.rows - paid.old.nulls
    assert (counted.changed, counted.drift) == (0, 0.0)
    assert of(values, "over_mean:over_mean").new is None


@pytest.mark.parametrize("transform", [a_millisecond_early, of_the_next_event, against_the_mean])
def test_what_sees_later_events_is_found(tmp_path: Path, sample: Path, transform: Any) -> None:
    folder = evaluated(tmp_path, sample, stream_view(transform))
    values = compared(folder, folder)
    assert values.leaks.get("ip_stats:paid_24h", 0) > 0


def test_the_repositorys_own_features_see_nothing_later(tmp_path: Path, project_root: Path) -> None:
    everything, _, _ = simulated()
    write(everything, tmp_path / "data")
    repo = project_root / "feature_repo"
    apply_repo(repo, tmp_path / "registry.db", {"ACTOR_RISK_DATA": str(tmp_path / "data")})
    store = open_feature_store(repo, tmp_path / "registry.db", NOWHERE)
    evaluate(store, tmp_path / "data", tmp_path / "out")
    values = compare_values(tmp_path / "out", tmp_path / "out", definition(), definition())
    assert values.leaks == {}
    assert problems_on_sample(tmp_path / "out") == ()
    assert untold_values(tmp_path / "out") == ()
    names = {feature.feature.partition(":")[0] for feature in values.features}
    assert names == {view.name for view in store.list_all_feature_views()}
    assert set(values.label.split(", ")) == {"ad_click_risk", "advertiser_risk"}
    asked = [feature for feature in values.features if feature.new is not None and feature.new.rows]
    assert len(asked) == len(values.features)


def test_a_transformation_that_fails_is_told_and_costs_no_other_view(tmp_path: Path, sample: Path) -> None:
    folder = evaluated(tmp_path, sample, stream_view(failing), stream_view(name="other"), table_view())
    (problem,) = problems_on_sample(folder)
    assert (problem.code, problem.subject) == ("AR304", "ip_stats")
    assert "KeyError: 'amount_eur'" in problem.message
    names = {feature.feature.partition(":")[0] for feature in compared(folder, folder).features}
    assert names == {"other", "ip_profile"}


def test_an_on_demand_function_that_fails_is_told_without_what_it_was_given(tmp_path: Path, sample: Path) -> None:
    streams = stream_view()
    folder = evaluated(tmp_path, sample, streams, ratios(streams, telling_all))
    (problem,) = problems_on_sample(folder)
    assert problem.subject == "telling_all"
    assert "ValueError" in problem.message
    amounts = pq.read_table(sample / "events").column("amount_usd").to_pylist()
    assert not any(str(amount) in problem.message for amount in amounts if amount > 9)


def test_an_errors_words_keep_what_the_code_says_and_nothing_else() -> None:
    error = KeyError("203.0.113.9")
    assert "203" not in failure("v", error, "def f(events): return events['ip']", None).message
    assert "'ip'" in failure("v", KeyError("ip"), "def f(events): return events['ip']", None).message
    long = ValueError("could not convert string to float: 'Mallory' in /somewhere/of/ours/file.py")
    told = failure("v", long, "def f(events): pass", None).message
    assert "Mallory" not in told
    assert "ours" not in told


@pytest.mark.parametrize(
    "raises",
    [
        refusing,
        lambda who: int(f"of {who}"),
        lambda who: {}[who],
        lambda who: ipaddress.ip_address(f"{who}/"),
        lambda who: dateutil.parser.parse(who),
    ],
)
@pytest.mark.parametrize("who", ["mallory", "device-57", "mallory@example.org", "2001:db8::77", "203.0.113.9"])
def test_no_word_of_an_error_says_whom_it_is_about(raises: Callable[[str], object], who: str) -> None:
    with pytest.raises((ValueError, KeyError)) as failed:
        raises(who)
    told = failure("v", failed.value, "def f(events): return events['ip']", None).message
    assert not [part for part in re.findall(r"\w{2,}", who) if part in told and part != "device"]


def test_an_errors_own_words_stay_where_a_library_wrote_them() -> None:
    with pytest.raises(ValueError) as failed:  # noqa: PT011
        np.zeros(3) + np.zeros(4)
    assert "operands could not be broadcast together" in failure("v", failed.value, "", None).message


def test_what_the_guard_refuses_a_function_is_told(tmp_path: Path) -> None:
    with pytest.raises(RefusedCallError) as refused:
        Guard(tmp_path, tmp_path, [])._see("socket.connect", (None, ("192.0.2.1", 80)))
    assert "calls the network (connect …" in failure("v", refused.value, "", None).message


def test_nothing_personal_is_kept(plain: Path) -> None:
    table = described("ip_profile", "age_days", "city", tags={"pii": "age_days"}, kind="batch")
    values = compared(plain, plain, STREAM, table)
    for name in ("ip_profile:age_days", "ip_profile:city"):
        profile = of(values, name).new
        assert profile is not None
        assert profile.masked
        assert (profile.low, profile.high, profile.mean) == (None, None, None)
        assert (profile.quantiles, profile.edges, profile.histogram) == ((), (), ())
        assert profile.distinct > 10
    assert "city of" not in msgspec.json.encode(values).decode()
    assert b"city of" not in (plain / VALUES_FILE).read_bytes()


def told_of(folder: Path, name: str, values: list[float | None]) -> Path:
    """A folder with what a version's process would say of one feature."""
    rows = len(values)
    view = name.partition(":")[0]
    columns = {TOPIC: ["t"] * rows, EVENT_ID: list(map(str, range(rows))), AS_OF: [0] * rows, LABEL: [math.nan] * rows}
    pq.write_table(
        pa.table({**columns, ASKED + view: [True] * rows, name: pa.array(values, pa.float64())}), folder / VALUES_FILE
    )
    (folder / TOLD_FILE).write_bytes(msgspec.json.encode(Evaluated(sample="s", events=rows, queries=rows)))
    return folder


def test_infinite_values_are_counted_and_in_no_mean(tmp_path: Path) -> None:
    folder = told_of(tmp_path, "ratios:share", [math.inf, 1.0, None, -math.inf, 3.0])
    found = of(compared(folder, folder, described("ratios", "share", kind="on_demand")), "ratios:share").new
    assert found is not None
    assert (found.rows, found.nulls, found.infinite) == (5, 1, 2)
    assert (found.low, found.mean, found.high) == (1.0, 2.0, 3.0)


@pytest.mark.parametrize(
    ("function", "masked"), [("sum", True), ("mean", True), ("last", True), ("count", False), ("count_distinct", False)]
)
def test_only_counts_of_a_personal_column_are_nobodys(tmp_path: Path, function: str, masked: bool) -> None:
    folder = told_of(tmp_path, "places:lat_1h", [52.5, 13.4])
    window = WindowDefinition(column="lat", function=function, length_ms=3_600_000, hop_ms=60_000)
    feature = FeatureDefinition(name="lat_1h", kind="DOUBLE", window=window)
    view = ViewDefinition(name="places", kind="stream", tags={"pii": "device_id lat"}, features=(feature,))
    found = of(compared(folder, folder, view), "places:lat_1h").new
    assert found is not None
    assert found.masked is masked


def test_a_feature_that_tells_the_label_shows_it(tmp_path: Path, sample: Path) -> None:
    last = (("last_usd", "amount_usd", "last", 1), ("clicks_1h", "click", "count", 1))
    folder = evaluated(tmp_path, sample, stream_view(aggregations=last))
    values = compared(folder, folder, described("ip_stats", "last_usd", "clicks_1h"))
    assert values.label == "invalid_click"
    told, other = of(values, "ip_stats:last_usd").new, of(values, "ip_stats:clicks_1h").new
    assert told is not None
    assert told.label_auc is not None
    assert told.label_auc > 0.95
    assert other is not None
    assert other.label_auc is not None
    assert other.label_auc < 0.8
    labels = pq.read_table(folder / VALUES_FILE).column(LABEL).to_numpy()
    assert 0 < np.isfinite(labels).sum() < len(labels) / 2


def test_a_renamed_feature_is_compared_with_what_it_was(tmp_path: Path, plain: Path, sample: Path) -> None:
    renamed = stream_view(aggregations=(("spent_24h", "amount_usd", "sum", 24),))
    new = definition(described("ip_stats", "spent_24h"))
    folder = evaluated(tmp_path, sample, renamed)
    renames = {"ip_stats:spent_24h": "ip_stats:paid_24h"}
    values = compare_values(plain, folder, definition(STREAM, TABLE), new, renames)
    spent = of(values, "ip_stats:spent_24h")
    assert spent.old is not None
    assert spent.changed == 0
    assert "ip_stats:paid_24h" not in {feature.feature for feature in values.features}
    assert of(values, "ip_stats:clicks_1h").new is None


def test_one_file_of_events_is_known_by_its_columns(tmp_path: Path, sample: Path) -> None:
    (file,) = (sample / "events").glob("*.parquet")
    other = stream_view(name="other", schema="event_id string, advertiser_id string")
    folder = evaluated(tmp_path, file, stream_view(), table_view())
    assert of(compared(folder, folder), "ip_stats:paid_24h").new is not None
    assert "ip_profile" in " ".join(untold_values(folder))
    assert "other" in " ".join(untold_values(evaluated(tmp_path / "other", file, other)))


def test_a_version_that_says_nothing_has_no_profiles(tmp_path: Path, plain: Path) -> None:
    values = compared(tmp_path, plain)
    assert all(feature.old is None and feature.drift is None for feature in values.features)
    assert compared(tmp_path, tmp_path).features == ()


counts = st.lists(st.integers(0, 10_000), min_size=1, max_size=30)


@given(counts)
def test_equal_shares_have_no_drift(parts: list[int]) -> None:
    assert psi(parts, parts) == 0


@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 10_000)), min_size=1, max_size=30))
def test_drift_is_never_negative_and_the_same_both_ways(parts: list[tuple[int, int]]) -> None:
    one, other = [a for a, _ in parts], [b for _, b in parts]
    assert psi(one, other) >= 0
    assert psi(one, other) == pytest.approx(psi(other, one))


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_the_share_of_pairs_in_order(rows: list[tuple[int, bool]]) -> None:
    ones, zeros = [v for v, one in rows if one], [v for v, one in rows if not one]
    if not ones or not zeros:
        return
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a in ones for b in zeros]
    share = sum(pairs) / len(pairs)
    found = auc(np.array([v for v, _ in rows], float), np.array([float(one) for _, one in rows]))
    assert found == pytest.approx(max(share, 1 - share))
