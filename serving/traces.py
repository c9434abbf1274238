"""What a log may say of a failed request: which lines of code it came by, and nothing that the request held."""

from __future__ import annotations

import traceback


def trace_of(error: BaseException) -> str:
    """The kinds of an exception and of what led to it, each with the lines of code that it came by.

    Their messages are left out: what nobody foresaw may quote a value of the request, and so a person's data.
    """
    parts: list[str] = []
    met: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in met:
        met.add(id(found))
        kind = type(found)
        parts.append(f"{kind.__module__}.{kind.__qualname__}\n{''.join(traceback.format_tb(found.__traceback__))}")
        found = found.__cause__ or (None if found.__suppress_context__ else found.__context__)
    return "caused by ".join(parts).rstrip()
