"""Backfills from the command line: what a command asks for, how it is shown, and what it reports."""

__all__: list[str] = []
