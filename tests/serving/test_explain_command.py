"""`actor-risk explain` says the same as the answer, from wherever the decision comes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from actor_risk.cli import main
from actor_risk.errors import ActorRiskError
from actor_risk.explaining import logged_record, of_records, of_rows, read_records, read_rows
from models import ModelStore, ReasonText
from serving.logged import FeatureLayout
from tests.serving.fakes import CHAMPION, FEATURES, FINGERPRINT, IP_FEATURES, KEYS, SERVICE, build_world, publish_model

TEXT = ReasonText(family="ip_velocity", code="IP_VELOCITY", analyst="How much the IP clicks", actor="Your traffic")
FAMILIES = ["ip_velocity" if ref in IP_FEATURES else "" for ref in FEATURES]
VALUES = [40.0, 45.0, 3.0, 30.0, 12.0, 7.5, 33.0, 0.25]

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("explained")
    publish_model(ModelStore(root), families=FAMILIES, reasons=[TEXT])
    return root


@pytest.fixture(scope="module")
def ask(store: Path) -> Ask:
    """Asks about an IP with these values; gives the record as JSON has it."""
    world = build_world(store)
    asyncio.run(world.service.load(CHAMPION))

    def answered(values: list[float] = VALUES, explain: str = "full") -> dict[str, Any]:
        world.features.values[KEYS["ip"]] = values
        body = {"model": SERVICE, "entities": KEYS, "explain": explain}
        record: dict[str, Any] = asyncio.run(world.score(body)).json()
        return record

    return answered


def test_a_full_record_shows_every_feature_and_adds_up(ask: Ask) -> None:
    record = ask()
    found = of_records([record], None)
    assert list(found.names) == [ref.split(":")[1] for ref in FEATURES]
    assert found.margins()[0] == pytest.approx(record["margin"])
    assert found.data is not None
    assert found.data[0].tolist() == VALUES


def test_by_reason_the_families_are_those_of_the_answer(ask: Ask) -> None:
    record = ask()
    found = of_records([record], "reason")
    (reason,) = [reason for reason in record["reasons"] if reason["code"] == "IP_VELOCITY"]
    place = found.names.index("How much the IP clicks")
    assert found.explanation.attributions[0, place] == pytest.approx(reason["attribution"])
    assert found.margins()[0] == pytest.approx(record["margin"])


def test_a_record_of_reasons_alone_is_shown_with_its_rest(ask: Ask) -> None:
    record = ask(explain="top")
    found = of_records([record], None)
    assert found.names[-1] == "everything else"
    assert found.margins()[0] == pytest.approx(record["margin"])


def test_records_that_cannot_be_shown_say_why(ask: Ask) -> None:
    full, top = ask(), ask(explain="top")
    other = {**full, "model": {**full["model"], "version": "0" * 16}}
    for records, by, why in (
        ([], None, "no decision record"),
        ([ask(explain="none")], None, "carries no explanation"),
        ([full, other], None, "several models"),
        ([top], "feature", "explain: full"),
        ([full, top], None, "explain: full"),
        ([{**full, "margin": full["margin"] + 0.1}], None, "does not add up"),
        ([{"reasons": []}], None, "no decision record of a server"),
    ):
        with pytest.raises(ActorRiskError, match=why):
            of_records(records, by)  # type: ignore[arg-type]


def test_records_are_read_one_a_file_one_a_line_as_a_list_and_from_log_lines(tmp_path: Path, ask: Ask) -> None:
    record = ask()
    texts = {
        "one": json.dumps(record, indent=2),
        "lines": f"{json.dumps(record)}\n{json.dumps(record)}\n",
        "list": json.dumps([record, record]),
        "log": f'{{"kind": "features"}}\n{json.dumps({"kind": "decision", "decision": record})}\n',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    assert [len(read_records([tmp_path / name])) for name in texts] == [1, 2, 2, 1]
    assert read_records([tmp_path / "log"]) == [record]
    (tmp_path / "broken").write_text("{")
    with pytest.raises(ActorRiskError, match="holds no decision record"):
        read_records([tmp_path / "broken"])


def write_log(folder: Path, record: dict[str, Any], values: list[float]) -> None:
    """A log of one decision, as the server writes it."""
    day = folder / f"date={record['as_of'][:10]}"
    day.mkdir(parents=True, exist_ok=True)
    layout = FeatureLayout(SERVICE, FINGERPRINT, FEATURES, ("DOUBLE",) * len(FEATURES))
    entry = {"kind": "decision", "decision": record, "values": values, "others": {}}
    (day / "000000-w-0001.jsonl").write_bytes(msgspec.json.encode(layout) + b"\n" + msgspec.json.encode(entry) + b"\n")


def test_a_logged_decision_is_explained_in_full_however_it_was_asked(tmp_path: Path, ask: Ask, store: Path) -> None:
    full = of_records([ask()], None)
    record = ask(explain="none")
    write_log(tmp_path, record, VALUES)
    found = logged_record(tmp_path, record["decision_id"], lambda: ModelStore(store))
    np.testing.assert_allclose(found.explanation.attributions, full.explanation.attributions, rtol=1e-9)
    assert found.names == full.names
    write_log(tmp_path, record, [0.0] * len(VALUES))
    with pytest.raises(ActorRiskError, match="gives the margin"):
        logged_record(tmp_path, record["decision_id"], lambda: ModelStore(store))
    with pytest.raises(ActorRiskError, match="not in the log"):
        logged_record(tmp_path, ask()["decision_id"][:-1] + "f", lambda: ModelStore(store))


def test_rows_of_a_file_are_explained_by_a_model(tmp_path: Path, ask: Ask, store: Path) -> None:
    bundle = ModelStore(store).load(SERVICE)
    named = {
        ref if i % 2 else ref.split(":")[1]: [value]
        for i, (ref, value) in enumerate(zip(FEATURES, VALUES, strict=True))
    }
    pq.write_table(pa.table(named), tmp_path / "rows.parquet")
    found = of_rows(bundle, read_rows(bundle, tmp_path / "rows.parquet"))
    assert found.margins()[0] == pytest.approx(ask()["margin"])
    named.popitem()
    pq.write_table(pa.table(named), tmp_path / "rows.parquet")
    with pytest.raises(ActorRiskError, match="lacks the columns"):
        read_rows(bundle, tmp_path / "rows.parquet")


def test_the_command_draws_bars_and_pictures(tmp_path: Path, ask: Ask) -> None:
    record = ask()
    shown = CliRunner().invoke(main, ["explain", "-", "--by", "reason"], input=json.dumps(record))
    assert shown.exit_code == 0, shown.output
    assert "How much the IP clicks" in shown.output
    assert f"{record['margin']:+.3f}" in shown.output
    many = "\n".join(json.dumps(ask([value * step for value in VALUES])) for step in (0.5, 0.75, 1.0))
    picture = tmp_path / "swarm.png"
    drawn = CliRunner().invoke(main, ["explain", "-", "--out", str(picture)], input=many)
    assert drawn.exit_code == 0, drawn.output
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_command_says_what_it_takes() -> None:
    nothing = CliRunner().invoke(main, ["explain"])
    assert nothing.exit_code == 2
    assert "give decision records, or --id, or --model with --rows" in nothing.output
