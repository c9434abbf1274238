"""What a job says of itself: while it runs, and when it is over."""

from __future__ import annotations

from typing import Literal

import msgspec

from materialize.backfill._manifest import Counts
from materialize.backfill._quality import ColumnReport

Phase = Literal["waiting", "looking", "writing", "done"]
Outcome = Literal["done", "nothing to do", "failed", "quality", "busy", "stopped"]


class JobStatus(msgspec.Struct, frozen=True):
    """Where the job of one view is. share: of all its work, 0 to 1. rows: written so far, running parts included."""

    view: str = ""
    phase: Phase = "waiting"
    parts_done: int = 0
    parts: int = 0
    share: float = 0.0
    rows: int = 0


class ViewReport(msgspec.Struct, frozen=True):
    """What became of the job of one view.

    start, end: of the command; read_start, read_end: of history. chunks_known, shards_known: done before, and kept.
    counts: of this run. quality: limits that were broken. lost: workers that died, and what was done about it.
    """

    view: str
    kind: Literal["batch", "stream"]
    project: str
    meaning: str
    outcome: Outcome
    cause: str
    start: str
    end: str
    read_start: str
    read_end: str
    batch_end: str | None
    chunks: int
    chunks_known: int
    shards: int
    shards_known: int
    counts: Counts
    seconds: float
    rows_per_second: float
    ran: str
    columns: list[ColumnReport]
    quality: list[str]
    holes: list[str]
    lost: list[str]
