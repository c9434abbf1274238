"""What can go wrong with the local runtime; each message says what to install, free or set."""

from __future__ import annotations


class LocalRuntimeError(RuntimeError):
    """A server that the demo or the tests need cannot be had on this machine, or does not do what it should."""


class MissingToolError(LocalRuntimeError):
    """A program or a package that the local runtime needs is not installed."""


class FetchError(LocalRuntimeError):
    """The broker's files could not be fetched."""


class StartError(LocalRuntimeError):
    """A server was started but ended, or did not answer in time."""


class DeadlineError(LocalRuntimeError):
    """A condition did not become true in time."""
