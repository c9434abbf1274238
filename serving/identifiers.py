"""Names for decisions and traces."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

DECISION_RANDOM_BYTES = 10
TRACE_RANDOM_BYTES = 16
_BLOCK_BYTES = 4_096

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a decision is called, and the trace that it belongs to."""

    decision_id: str
    trace_id: str


class RandomBytes:
    """Random bytes of the operating system, fetched a block at a time: a call into it costs as much as an identifier.

    For one thread.
    """

    def __init__(self) -> None:
        self._block, self._at = b"", 0

    def __call__(self, count: int) -> bytes:
        """`count` of them, which are given to nobody else."""
        begin, self._at = self._at, self._at + count
        if self._at > len(self._block):
            self._block = secrets.token_bytes(max(count, _BLOCK_BYTES))
            begin, self._at = 0, count
        return self._block[begin : self._at]


def decision_id(now_ms: int, random: bytes) -> str:
    """A UUID version 7 (RFC 9562, section 5.7) of the time and ten random bytes: sorts by time to the millisecond."""
    bits = (now_ms & (1 << 48) - 1) << 80 | int.from_bytes(random[:DECISION_RANDOM_BYTES])
    bits = bits & ~(0xF << 76) | 0x7 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    digits = f"{bits:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def trace_id_of(traceparent: str) -> str | None:
    """The trace id of a W3C `traceparent` header, or None when the header is not valid and must be ignored.

    Source: https://www.w3.org/TR/trace-context/#traceparent-header
    """
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (traceparent.startswith("00") and match.group(2)):
        return None
    return match.group(1)


def rfc3339(time_ms: int) -> str:
    """Milliseconds since 1970-01-01 UTC as RFC 3339 with three decimals and `Z`."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return f"{_second(seconds)}.{milliseconds:03d}Z"


@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S")
