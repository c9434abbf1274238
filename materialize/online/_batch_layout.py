"""Where a batch row has its fields.

header     16 bytes, see `_header`; its flags are the width of the row's integers (1 << flags & 3 bytes) and, 4, whether
           there is a created time
times      event time int64; created time int64 unless there is none, both in ms
wide       8 bytes for each DOUBLE (float64), UNIX_TIMESTAMP (int64, seconds), and for each field that is no number
           { offset uint32, length uint32 } into the section
integers   for each INT64, INT32 and BOOL as many bytes as the row's largest integer takes: 1, 2, 4 or 8
floats     from the next multiple of 4: 4 bytes for each FLOAT
bitmap     one bit for each field, least significant first, 1 where there is a value
section    from the next multiple of 8: strings in UTF-8, bytes as they are, every other Feast type as its serialised
           Value message

Fields keep their order within wide, integers and floats. A null takes its place too, with zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from materialize.online._compiled import DOUBLE, FLOAT, INTEGER, SPAN, TIMESTAMP
from materialize.online._header import PREFIX_SIZE

CREATED_FLAG = 4
WIDTH_BITS = 3

_CLASSES = {
    "DOUBLE": DOUBLE,
    "UNIX_TIMESTAMP": TIMESTAMP,
    "INT64": INTEGER,
    "INT32": INTEGER,
    "BOOL": INTEGER,
    "FLOAT": FLOAT,
}


@dataclass(frozen=True)
class Sections:
    """Where the sections of a row begin, in bytes, and how wide its integers are."""

    wide: int
    integers: int
    floats: int
    bitmap: int
    section: int
    integer_size: int


@dataclass(frozen=True)
class BatchLayout:
    """How a view's fields are held: for each field its class and its place among those held the same way; and which
    fields are integers, floats, spans, and wide (the spans among them)."""

    classes: tuple[int, ...]
    indexes: tuple[int, ...]
    integers: tuple[int, ...]
    floats: tuple[int, ...]
    spans: tuple[int, ...]
    wide: tuple[int, ...]

    def sections(self, flags: int) -> Sections:
        """Where everything is in a row with these flags."""
        size = 1 << (flags & WIDTH_BITS)
        wide = PREFIX_SIZE + (16 if flags & CREATED_FLAG else 8)
        integers = wide + 8 * len(self.wide)
        floats = -(-(integers + size * len(self.integers)) // 4) * 4
        bitmap = floats + 4 * len(self.floats)
        section = -(-(bitmap + (len(self.classes) + 7) // 8) // 8) * 8
        return Sections(wide, integers, floats, bitmap, section, size)


def batch_layout(kinds: Sequence[str]) -> BatchLayout:
    """The layout of a view whose fields are of these Feast value types."""
    return _layout_of(tuple(kinds))


@lru_cache(maxsize=1024)
def _layout_of(kinds: tuple[str, ...]) -> BatchLayout:
    classes = tuple(_CLASSES.get(kind, SPAN) for kind in kinds)
    integers, floats, spans, wide = (
        tuple(place for place, found in enumerate(classes) if found in held)
        for held in ({INTEGER}, {FLOAT}, {SPAN}, {DOUBLE, TIMESTAMP, SPAN})
    )
    index = {place: i for places in (integers, floats, wide) for i, place in enumerate(places)}
    return BatchLayout(classes, tuple(index[p] for p in range(len(kinds))), integers, floats, spans, wide)


def integer_flags(least: int, most: int) -> int:
    """The width, as flags, of integers between these."""
    for flags, bits in enumerate((7, 15, 31)):
        if -(1 << bits) <= least and most < 1 << bits:
            return flags
    return WIDTH_BITS
