"""Errors and records without anybody's values."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from materialize.definitions import DefinitionError
from materialize.personal import MASK, Personal, reason_of, told, told_by_redis, trace_of, words_of

SECRET = "203.0.113.9"


def says_it(ip: str) -> None:
    raise ValueError(f"no such ip {ip} in 'here'")


def converts_it(ip: str) -> float:
    return float(ip)


def looks_it_up(ip: str) -> Any:
    return {"ip": 1}[ip]


def looks_up_a_column(_ip: str) -> Any:
    return {}["columns"]  # type: ignore[var-annotated]


def casts_it(ip: str) -> Any:
    return pa.array([ip]).cast(pa.int64())


def decodes_it(ip: str) -> Any:
    return msgspec.json.decode(b'"%s' % ip.encode())


def encodes_it(ip: str) -> bytes:
    return f"{ip}\ud800".encode()


def opens_it(ip: str) -> Any:
    return open(f"/nowhere/{ip}")  # noqa: PTH123


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (says_it, "ValueError: no such ip *** in 'here'"),
        (converts_it, "ValueError: could not convert string to float: '***'"),
        (looks_it_up, "KeyError: '***'"),
        (looks_up_a_column, "KeyError: 'columns'"),
        (casts_it, "ArrowInvalid: Failed to parse string: '***' as a scalar of type int64"),
        (decodes_it, "DecodeError: Input data was truncated"),
        (encodes_it, None),
        (opens_it, "FileNotFoundError: No such file or directory"),
    ],
)
def test_an_error_is_told_without_the_value_that_it_quotes(function: Any, expected: str | None) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        function(SECRET)
    for said in (told(caught.value, words_of(function)), told(caught.value), reason_of(caught.value)):
        assert SECRET not in said
    assert SECRET not in trace_of(caught.value)
    if expected is not None:
        assert told(caught.value, words_of(function)) == expected


def test_an_error_of_ours_keeps_its_words() -> None:
    assert reason_of(DefinitionError("view 'ip_ad_stats': 3 features too many")).endswith("3 features too many")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (f"Command # 1 (XADD log * ip {SECRET}) of pipeline caused error: OOM command not allowed", "OOM command not"),
        (f"Command # 12 (GET a) of pipeline caused error: {SECRET}) of pipeline caused error: LOADING", "LOADING"),
        (f"unknown command 'XADD', with args beginning with: 'log' '{SECRET}'", "unknown command 'XADD'"),
        ("WRONGTYPE Operation against a key", "WRONGTYPE Operation"),
    ],
)
def test_what_redis_says_comes_without_the_command(said: str, expected: str) -> None:
    shown = told_by_redis(Exception(said))
    assert shown.startswith(expected)
    assert SECRET not in shown


NAMES = st.sampled_from(["ip", "device_id", "os", "event"])
WORDS = st.text(st.characters(codec="utf-8"), min_size=3, max_size=12)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS


def documents(personal: bool) -> st.SearchStrategy[Any]:
    inner = st.recursive(
        SCALARS, lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(NAMES, deeper, max_size=3), max_leaves=6
    )
    return st.dictionaries(NAMES, inner, max_size=4) if personal else inner


@given(documents(personal=True), WORDS)
def test_a_document_keeps_everything_but_what_is_personal(document: dict[str, Any], secret: str) -> None:
    personal = Personal(frozenset({"ip", "device_id"}))
    shown = personal.document(json.dumps({**document, "nested": [{"ip": secret}]}).encode())
    found = json.loads(shown)
    assert found.pop("nested") == [{"ip": MASK}]
    assert found == expected_of(document)


def expected_of(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: MASK if name in ("ip", "device_id") else expected_of(value) for name, value in node.items()}
    return [expected_of(one) for one in node] if isinstance(node, list) else node


@given(st.lists(st.ip_addresses(v=4).map(str), min_size=1, max_size=3))
def test_what_is_said_of_a_document_has_none_of_its_personal_values(ips: list[str]) -> None:
    personal = Personal(frozenset({"ip"}))
    document = json.dumps({"ip": ips, "os": "ios"}).encode()
    shown = personal.text(f"ios: {' '.join(ips)} and {ips[0]!r} are odd", document)
    assert not any(ip in shown for ip in ips)
    assert shown.startswith("ios: ")


@pytest.mark.parametrize("data", [b"", b"not json", b"[1]", b'"x"', b"\xff", b"[" * 100_000])
def test_of_bytes_that_are_no_object_nothing_is_shown(data: bytes) -> None:
    personal = Personal(frozenset({"ip"}))
    assert personal.document(data) == MASK.encode()
    assert personal.text(f"odd '{SECRET}'", data) == f"odd '{MASK}'"


def test_while_nobody_knows_what_is_personal_everything_is_and_without_tags_nothing() -> None:
    data = b'{"os": "ios"}'
    assert Personal(None).document(data) == b'{"os": "***"}'
    assert Personal(None).value("os", "ios") == MASK
    assert Personal(frozenset()).document(data) == data
    assert Personal(frozenset()).text("odd 'ios'", data) == "odd 'ios'"
