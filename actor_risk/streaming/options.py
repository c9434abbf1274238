"""What every worker of a command is told."""

from __future__ import annotations

import msgspec

from materialize.stream.log import Start

DEFAULT_GROUP = "materialize"


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """group: workers of one share the partitions. start: see `Start`. formats: see
    `open_formats`. take_over: put our definitions in force even if others are as new."""

    group: str = DEFAULT_GROUP
    start: Start = "earliest"
    formats: tuple[str, ...] = ()
    take_over: bool = False
