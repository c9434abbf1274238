"""The bytes in docs/row-format.md are those that its own code makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from materialize.definitions import FeatureField, JoinKey, StreamView
from materialize.kernel import read_windows
from materialize.online import decode_batch_row, decode_stream_row
from tests.docs.pages import Page, read_page

PAGE = Path(__file__).resolve().parents[2] / "docs" / "row-format.md"


@pytest.fixture(scope="module")
def page() -> Page:
    """The page."""
    return read_page(PAGE)


@pytest.fixture(scope="module")
def made(page: Page) -> dict[str, Any]:
    """What the page's code defines."""
    names: dict[str, Any] = {}
    for fence in page.fences:
        if fence.kind == "python":
            exec(compile(fence.body, PAGE.name, "exec"), names)
    return names


@pytest.mark.parametrize("name", ["key", "stream_row", "batch_row"])
def test_the_table_shows_every_byte_at_its_offset(page: Page, made: dict[str, Any], name: str) -> None:
    table = page.bytes_of(name)
    position = 0
    for offset, written in table:
        assert offset == position
        position += len(written)
    assert b"".join(written for _, written in table).hex(" ") == made[name].hex(" ")


def test_the_stream_row_reads_as_the_page_says(made: dict[str, Any]) -> None:
    row = decode_stream_row(made["spec"], made["stream_row"])
    assert (row.version, row.applied) == (5, {0: 41, 2: 17})
    assert read_windows(made["spec"], row.state, 1_760_000_030_000).values.tolist() == [3.0, 2.0]


def test_the_batch_row_reads_as_the_page_says(made: dict[str, Any]) -> None:
    assert decode_batch_row(made["view"], made["batch_row"]).values == (1, "DE", None)


def test_a_row_of_a_view_without_this_meaning_is_told_by_its_fingerprint(made: dict[str, Any]) -> None:
    fields = (FeatureField("clicks_5m", "INT64"), FeatureField("devices_5m", "INT64"))
    view = StreamView("ip_clicks", (JoinKey("ip", "STRING"),), fields, made["spec"], "ad_events", "event_time", 0, None)
    assert made["stream_row"][8:16] == view.fingerprint.to_bytes(8, "little")
