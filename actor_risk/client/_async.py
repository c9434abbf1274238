"""The client to await."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from actor_risk.client import _calls as calls
from actor_risk.client._attempts import Attempts, Patience, credentials, retry_after_s
from actor_risk.client._calls import OK, Answer, Call, Entities, Event, error_of
from serving.decision import Decision, Explain, ModelCard, Problem, Question, Readiness, StoredFeatures
from serving.event_results import EventsAnswer

T = TypeVar("T")

LINE_BYTES_MAX = 1 << 22
CONNECTIONS_MAX = 100


class AsyncClient:
    """`Client` for one event loop: the same methods, to await.

    Open it with `async with`, or close it with `await aclose()`.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 2,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """As `Client`."""
        if URL(url).scheme not in ("http", "https") or not URL(url).host:
            raise ValueError(f"{url!r} is no URL of a server: write it as http://host:port")
        self._url = url.rstrip("/")
        self._tls = tls
        self._headers = credentials(api_key)
        self._patience = Patience(timeout_s, retries)
        self._opened: aiohttp.ClientSession | None = None

    async def score(
        self,
        model: str,
        entities: Entities | None = None,
        event: Event | None = None,
        *,
        event_topic: str | None = None,
        request: Mapping[str, Any] | None = None,
        explain: Explain = "top",
        publish_event: bool = True,
        trace_id: str | None = None,
        timeout_s: float | None = None,
        idempotency_key: str | None = None,
    ) -> Decision:
        """As `Client.score`."""
        asked = calls.question(entities, event, event_topic=event_topic, request=request, trace_id=trace_id)
        key = idempotency_key or (calls.new_key() if self._patience.retries else None)
        return await self._do(calls.score(model, asked, explain, publish_event=publish_event, key=key), timeout_s)

    async def explain(
        self,
        model: str,
        entities: Entities | None = None,
        event: Event | None = None,
        *,
        event_topic: str | None = None,
        request: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Decision:
        """As `Client.explain`."""
        asked = calls.question(entities, event, event_topic=event_topic, request=request)
        return await self._do(calls.explain(model, asked), timeout_s)

    async def score_batch(
        self,
        model: str,
        questions: Sequence[Question],
        *,
        explain: Explain = "top",
        publish_event: bool = True,
        timeout_s: float | None = None,
    ) -> list[Decision | Problem]:
        """As `Client.score_batch`."""
        return await self._do(calls.score_batch(model, questions, explain, publish_event=publish_event), timeout_s)

    async def score_stream(
        self,
        model: str,
        questions: Iterable[Question],
        *,
        explain: Explain = "top",
        publish_event: bool = True,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Decision | Problem]:
        """As `Client.score_stream`."""
        for part in calls.parts_of(questions):
            call = calls.score_lines(model, part, explain, publish_event=publish_event)
            async for answer in self._lines(call, len(part), timeout_s):
                yield answer

    async def publish_events(
        self, events: Sequence[Event], topic: str | None = None, *, timeout_s: float | None = None
    ) -> EventsAnswer:
        """As `Client.publish_events`."""
        return await self._do(calls.publish_events(events, topic), timeout_s)

    async def features(
        self,
        entity: str,
        key: str | int,
        *,
        service: str | None = None,
        features: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> StoredFeatures:
        """As `Client.features`."""
        return await self._do(calls.features(entity, key, service, features), timeout_s)

    async def models(self) -> list[ModelCard]:
        """As `Client.models`."""
        return await self._do(calls.models())

    async def decision(self, decision_id: str) -> Decision:
        """As `Client.decision`."""
        return await self._do(calls.decision(decision_id))

    async def ready(self) -> Readiness:
        """As `Client.ready`."""
        return await self._do(calls.ready())

    async def aclose(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            await self._opened.close()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    def _session(self) -> aiohttp.ClientSession:
        """Opened at its first use, which is in the event loop."""
        if self._opened is None:
            connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX, ssl=self._tls or True)
            self._opened = aiohttp.ClientSession(
                connector=connector, read_bufsize=LINE_BYTES_MAX, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._opened

    def _attempts(self, call: Call[Any], timeout_s: float | None) -> Attempts:
        return Attempts(call, self._patience.within(timeout_s), self._headers)

    async def _do(self, call: Call[T], timeout_s: float | None = None) -> T:
        attempts = self._attempts(call, timeout_s)
        async with self._begun(call, attempts) as response:
            return call.result(await _whole(response, attempts))

    @asynccontextmanager
    async def _begun(self, call: Call[Any], attempts: Attempts) -> AsyncIterator[aiohttp.ClientResponse]:
        """The last attempt's answer, of which the head has come."""
        response = await self._begin(call, attempts)
        async with response:
            yield response

    async def _begin(self, call: Call[Any], attempts: Attempts) -> aiohttp.ClientResponse:
        url = URL(self._url + call.path, encoded=True)
        while True:
            timeout = aiohttp.ClientTimeout(total=attempts.left_s())
            try:
                response = await self._session().request(
                    call.method, url, data=call.body, headers=attempts.headers(), timeout=timeout, allow_redirects=False
                )
            except TimeoutError as error:
                raise attempts.late() from error
            except (aiohttp.ClientError, OSError) as error:
                await asyncio.sleep(attempts.pause_after_failure(error))
                continue
            said = retry_after_s(response.headers.get("retry-after"))
            pause_s = attempts.pause_after(Answer(response.status, b"", said))
            if pause_s is None:
                return response
            async with response:
                await _whole(response, attempts)
            await asyncio.sleep(pause_s)

    async def _lines(self, call: Call[T], count: int, timeout_s: float | None) -> AsyncIterator[T]:
        """So many lines of an answer, each as it comes."""
        attempts = self._attempts(call, timeout_s)
        async with self._begun(call, attempts) as response:
            if response.status != OK:
                raise error_of(await _whole(response, attempts))
            for _ in range(count):
                yield calls.read_line(call, await _line(response, attempts))
            await _whole(response, attempts)  # nothing is left, and the connection is kept


async def _whole(response: aiohttp.ClientResponse, attempts: Attempts) -> Answer:
    try:
        body = await response.read()
    except (aiohttp.ClientError, OSError) as error:
        raise attempts.broken(error) from error
    return Answer(response.status, body, retry_after_s(response.headers.get("retry-after")))


async def _line(response: aiohttp.ClientResponse, attempts: Attempts) -> bytes:
    try:
        line = await response.content.readline()
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise attempts.broken(error) from error
    return calls.whole_line(line)
