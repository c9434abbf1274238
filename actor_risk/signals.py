"""Signals that ask a process to end what it does."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from threading import Event as ThreadEvent
from threading import Thread


def set_by_signals(numbers: Iterable[int], again: Callable[[], None] = lambda: None) -> ThreadEvent:
    """An event that the first of these signals sets; `again` is called, in the main thread, at each later one.

    A handler may not set it itself: it runs in the middle of whatever the main thread does, and when that is waiting
    for the event, both may want the event's lock, for ever. A thread of its own waits for the handler's word instead.
    """
    stop = ThreadEvent()
    words: SimpleQueue[None] = SimpleQueue()  # its `put` may interrupt anything
    heard: list[int] = []

    def hear(number: int, _: object) -> None:
        if heard:
            again()
            return
        heard.append(number)
        words.put(None)

    def obey() -> None:
        words.get()
        stop.set()

    Thread(target=obey, name="stop-by-signal", daemon=True).start()
    for number in numbers:
        signal.signal(number, hear)
    return stop
