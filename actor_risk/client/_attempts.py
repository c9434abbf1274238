"""When a call is tried again, and when it is not: no network and no clock of its own."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from actor_risk.client._calls import Answer, Call
from actor_risk.client._errors import ConnectionFailedError, DeadlineError

CONFLICT, TOO_MANY, UNAVAILABLE = 409, 429, 503
TOLD_DEADLINE_MAX_S = 60.0
"""The longest time that the server takes."""
FIRST_PAUSE_S = 0.05

_COME_BACK = (CONFLICT, TOO_MANY, UNAVAILABLE)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a call may take, all its attempts and pauses together, and how often it is tried again."""

    timeout_s: float
    retries: int
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = random.random
    """0 to 1: so that many who were refused together do not come back together."""

    def within(self, timeout_s: float | None) -> Patience:
        """The same within a call's own time, if it has one."""
        return self if timeout_s is None else replace(self, timeout_s=timeout_s)


class Attempts:
    """The attempts of one call."""

    def __init__(self, call: Call[Any], patience: Patience, headers: Mapping[str, str]) -> None:
        """`headers` go with every attempt."""
        self._call = call
        self._patience = patience
        self._headers = headers
        self._until_s = patience.monotonic() + patience.timeout_s
        self._retries = 0

    def left_s(self) -> float:
        """What is left of the call's time. Raises DeadlineError when nothing is."""
        left_s = self._until_s - self._patience.monotonic()
        if left_s <= 0:
            raise self.late()
        return left_s

    def headers(self) -> dict[str, str]:
        """The header fields of the next attempt."""
        headers = {**self._headers, **(self._call.headers or {})}
        if self._call.takes_deadline:
            headers["x-request-timeout-seconds"] = f"{min(self.left_s(), TOLD_DEADLINE_MAX_S):.6f}"
        return headers

    def pause_after(self, answer: Answer) -> float | None:
        """How many seconds to wait before the next attempt; None when this is the answer to keep.

        The server says itself when to come back, and by that that it has done nothing. An answer that would come too
        late is not waited for.
        """
        if answer.status not in _COME_BACK or answer.retry_after_s is None or answer.status in self._call.statuses:
            return None
        return self._pause(answer.retry_after_s * (1 + 0.1 * self._patience.jitter()))

    def pause_after_failure(self, error: Exception) -> float:
        """The same after a broken connection. Raises ConnectionFailedError unless the call may be repeated."""
        pause_s = None
        if self._call.is_repeatable:
            pause_s = self._pause(FIRST_PAUSE_S * 2**self._retries * (1 + self._patience.jitter()))
        if pause_s is None:
            raise ConnectionFailedError(f"no answer: {error or type(error).__name__}") from error
        return pause_s

    def late(self) -> DeadlineError:
        """The error of a call that took too long."""
        return DeadlineError(f"no answer within {self._patience.timeout_s:g} s")

    def broken(self, error: Exception) -> ConnectionFailedError | DeadlineError:
        """The error of an answer that began and did not end."""
        if isinstance(error, TimeoutError):
            return self.late()
        return ConnectionFailedError(f"the answer broke off: {error or type(error).__name__}")

    def _pause(self, seconds: float) -> float | None:
        if self._retries >= self._patience.retries or seconds >= self._until_s - self._patience.monotonic():
            return None
        self._retries += 1
        return seconds


def retry_after_s(text: str | None) -> float | None:
    """The seconds of a `retry-after` field; None without one, and for a date."""
    return float(text) if text is not None and text.isascii() and text.isdigit() else None


def credentials(api_key: str | None) -> dict[str, str]:
    """The header field for an API key or a token."""
    return {} if api_key is None else {"authorization": f"Bearer {api_key}"}
