"""Log lines as JSON, for whatever collects them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TextIO

import msgspec

from materialize.personal import trace_of
from serving.identifiers import rfc3339
from serving.trace_context import TRACE_ID

PACKAGES = ("serving", "materialize", "models")
_MS_PER_S = 1000


class LogLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One line. `trace_id`: of the request that it was written for. `error`: kinds of exceptions and lines of code, and
    nothing that a request held."""

    time: str
    level: str
    logger: str
    message: str
    trace_id: str | None = None
    error: str | None = None


class JsonLines(logging.Formatter):
    """Formats a record as one `LogLine`."""

    def format(self, record: logging.LogRecord) -> str:
        """JSON without a line break."""
        failed = None if record.exc_info is None else record.exc_info[1]
        line = LogLine(
            time=rfc3339(int(record.created * _MS_PER_S)),
            level=record.levelname,
            logger=record.name,
            message=record.getMessage(),
            trace_id=TRACE_ID.get(),
            error=None if failed is None else trace_of(failed),
        )
        return msgspec.json.encode(line).decode()


def log_as_json(stream: TextIO, packages: Sequence[str] = PACKAGES) -> None:
    """What these packages log goes to `stream`, from INFO on, and nowhere else."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    for name in packages:
        log = logging.getLogger(name)
        log.setLevel(logging.INFO)
        log.addHandler(handler)
        log.propagate = False
