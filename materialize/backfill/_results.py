"""What the parts of a backfill say that they did."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChunkResult:
    """What writing one chunk, or one shard, did.

    events: rows of history that it read. rows: rows that it wrote. skipped: rows of history without an entity key.
    verified: rows of which the server said that they are there, as written or newer. size_bytes: of the rows sent.
    """

    events: int
    rows: int
    skipped: int
    verified: int
    size_bytes: int


@dataclass(frozen=True)
class GatherResult:
    """What gathering one chunk staged.

    events: rows of history that it read. skipped: those without an entity key. newest_ms: the latest event time read,
    None for no row. shard_bytes: size of each shard's file.
    """

    events: int
    skipped: int
    newest_ms: int | None
    shard_bytes: tuple[int, ...]
