"""Events as JSON records, and a simulation as Parquet files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from actor_risk.simulate import FILES, Simulation, SimulationSettings, UnknownTopicError, json_lines, write
from materialize.events import ACCOUNT_EVENTS, AD_EVENTS, TOPICS, decode_event

TABLES = {AD_EVENTS: "ad_events", ACCOUNT_EVENTS: "account_events"}


@pytest.mark.parametrize("topic", TOPICS)
def test_every_event_is_a_valid_record_of_its_topic(
    small: Simulation, small_settings: SimulationSettings, topic: str
) -> None:
    table = getattr(small, TABLES[topic])
    events = [decode_event(topic, line, now_ms=small_settings.end_ms) for line in json_lines(table, topic)]
    assert [event.event_id for event in events] == table["event_id"].to_pylist()
    assert [event.event_time for event in events] == table["event_time"].cast(pa.int64()).to_pylist()
    assert [event.amount_usd for event in events] == table["amount_usd"].to_pylist()


def test_a_record_carries_the_fields_of_the_schema_and_no_other(small: Simulation) -> None:
    record = json.loads(next(json_lines(small.ad_events, AD_EVENTS)))
    assert set(record) <= set(TOPICS[AD_EVENTS].__struct_fields__)
    assert "created" not in record


def test_an_unknown_topic_is_refused_before_the_first_record(small: Simulation) -> None:
    with pytest.raises(UnknownTopicError, match="ad_events"):
        json_lines(small.ad_events, "clicks")


def test_files_hold_what_the_simulation_holds(small: Simulation, tmp_path: Path) -> None:
    write(small, tmp_path)
    for name, place in FILES.items():
        table = pq.read_table(tmp_path / place)
        assert table.equals(getattr(small, name))
        assert table.schema.equals(getattr(small, name).schema)
    assert ds.dataset(tmp_path / "ad_events").count_rows() == small.ad_events.num_rows
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.parquet")} == set(FILES.values())


def test_label_files_say_what_their_label_means(small: Simulation, tmp_path: Path) -> None:
    write(small, tmp_path)
    metadata = pq.read_schema(tmp_path / FILES["ad_click_labels"]).metadata
    assert b"1 = invalid click" in metadata[b"label"]


def test_a_second_run_replaces_the_first_and_sweeps_up_after_a_killed_one(small: Simulation, tmp_path: Path) -> None:
    left_over = tmp_path / ".staging" / "ad_events" / "part-0000.parquet"
    left_over.parent.mkdir(parents=True)
    left_over.write_bytes(b"half a file")
    write(small, tmp_path)
    write(small, tmp_path)
    assert not (tmp_path / ".staging").exists()
    assert pq.read_table(tmp_path / FILES["ad_events"]).num_rows == small.ad_events.num_rows


def test_a_run_killed_while_it_replaces_files_leaves_whole_ones(tmp_path: Path) -> None:
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from actor_risk.simulate import SimulationSettings, simulate, write
        simulation = simulate(SimulationSettings(1, 1_763_596_800_000, 1_763_596_800_000 + 86_400_000))
        print("ready", flush=True)
        while True:
            write(simulation, Path(sys.argv[1]))
    """)
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 30
        written, writing_again = tmp_path / FILES["device_profiles"], tmp_path / ".staging" / "labels"
        while not (written.exists() and writing_again.exists()):
            assert time.monotonic() < deadline, "the second write did not begin"
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
    for place in FILES.values():
        assert pq.read_table(tmp_path / place).num_rows > 0
