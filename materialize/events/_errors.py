"""What can be wrong with how events are to be read."""

from __future__ import annotations


class EventFormatError(ValueError):
    """A format, or a schema file, that events cannot be read with; the message says what to change."""
