"""What several commands need: the home, the console, a progress bar, and how they are stopped."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from threading import Event as ThreadEvent

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from actor_risk.home import Home
from actor_risk.signals import set_by_signals


def home() -> Home:
    """The home that the environment names."""
    return Home.from_environment(os.environ)


def console() -> Console:
    """Where commands speak to a person."""
    return Console(highlight=False)


@contextmanager
def progress_bar(shown_on: Console) -> Iterator[Progress]:
    """A progress display that leaves its lines behind."""
    columns = (
        SpinnerColumn(finished_text="[green]✓"),
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=shown_on) as progress:
        yield progress


class Instant(click.ParamType[int]):
    """A moment: RFC 3339 (a zone is required), or `now`."""

    name = "instant"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds UTC."""
        if isinstance(value, int):
            return value
        if value == "now":
            return now_ms()
        try:
            when = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is no time: write it as 2026-11-20T00:00:00Z, or now", param, ctx)
        if when.tzinfo is None:
            self.fail(f"{value!r} has no zone: write it as {value}Z for UTC", param, ctx)
        return round(when.timestamp() * 1000)


def now_ms() -> int:
    """The wall clock, milliseconds UTC."""
    return round(datetime.now(UTC).timestamp() * 1000)


def stop_on_signals() -> ThreadEvent:
    """An event that the first SIGTERM or SIGINT sets; the second one raises KeyboardInterrupt."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    return set_by_signals((signal.SIGTERM, signal.SIGINT), again=interrupt)


@contextmanager
def leaving_nothing() -> Iterator[None]:
    """Whoever ends this command by Ctrl-C, `kill` or a closed terminal ends it as an error would: what it has started
    is stopped, and its temporary files are removed. It ends with 128 and the signal's number, as in a shell."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    heard = {number: handler for number, handler in before.items() if handler != signal.SIG_IGN}  # not under `nohup`
    for number in heard:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in heard.items():
            signal.signal(number, handler)


def own_sample(here: Home) -> Path | None:
    """The data of this home, for looking at values when no sample is named; None where there is none."""
    return here.data if here.data.is_dir() else None
