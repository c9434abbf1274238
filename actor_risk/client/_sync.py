"""The client to call."""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from http.client import HTTPConnection, HTTPException, HTTPResponse
from types import TracebackType
from typing import Any, TypeVar

from actor_risk.client import _calls as calls
from actor_risk.client._attempts import Attempts, Patience, credentials, retry_after_s
from actor_risk.client._calls import OK, Answer, Call, Entities, Event, error_of
from actor_risk.client._connections import Connections
from serving.decision import Decision, Explain, ModelCard, Problem, Question, Readiness, StoredFeatures
from serving.event_results import EventsAnswer

T = TypeVar("T")


class Client:
    """Asks a scoring application. Threads may share one; it keeps connections open.

    Every method raises a ClientError. `timeout_s`, the client's or the call's, bounds all attempts of a call together,
    and the server is told what is left of it.
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
        """`url`: `http://host:port`, with a prefix if there is one. `api_key`: an API key or a token.

        retries: so often a call is tried again when the server says when to come back, or when the connection breaks
        and asking twice does no harm. With none, no idempotency key is sent unless one is given.
        """
        self._connections = Connections(url, tls)
        self._headers = credentials(api_key)
        self._patience = Patience(timeout_s, retries)

    def score(
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
        """The decision about an actor now. Without an idempotency key one is made, the same for all attempts."""
        asked = calls.question(entities, event, event_topic=event_topic, request=request, trace_id=trace_id)
        key = idempotency_key or (calls.new_key() if self._patience.retries else None)
        return self._do(calls.score(model, asked, explain, publish_event=publish_event, key=key), timeout_s)

    def explain(
        self,
        model: str,
        entities: Entities | None = None,
        event: Event | None = None,
        *,
        event_topic: str | None = None,
        request: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
    ) -> Decision:
        """The same with the share of every feature; the event is not published."""
        asked = calls.question(entities, event, event_topic=event_topic, request=request)
        return self._do(calls.explain(model, asked), timeout_s)

    def score_batch(
        self,
        model: str,
        questions: Sequence[Question],
        *,
        explain: Explain = "top",
        publish_event: bool = True,
        timeout_s: float | None = None,
    ) -> list[Decision | Problem]:
        """For each of at most 1,000 questions a decision, or what is wrong with it."""
        return self._do(calls.score_batch(model, questions, explain, publish_event=publish_event), timeout_s)

    def score_stream(
        self,
        model: str,
        questions: Iterable[Question],
        *,
        explain: Explain = "top",
        publish_event: bool = True,
        timeout_s: float | None = None,
    ) -> Iterator[Decision | Problem]:
        """The same for any number, as the answers come, in order. `timeout_s` is for each 1,000 of them."""
        for part in calls.parts_of(questions):
            call = calls.score_lines(model, part, explain, publish_event=publish_event)
            yield from self._lines(call, len(part), timeout_s)

    def publish_events(
        self, events: Sequence[Event], topic: str | None = None, *, timeout_s: float | None = None
    ) -> EventsAnswer:
        """Publish events to the stream; the answer says what became of each."""
        return self._do(calls.publish_events(events, topic), timeout_s)

    def features(
        self,
        entity: str,
        key: str | int,
        *,
        service: str | None = None,
        features: Sequence[str] | None = None,
        timeout_s: float | None = None,
    ) -> StoredFeatures:
        """What is stored of an entity: all of it, what a feature service reads, or some features ("view:feature")."""
        return self._do(calls.features(entity, key, service, features), timeout_s)

    def models(self) -> list[ModelCard]:
        """The served models."""
        return self._do(calls.models())

    def decision(self, decision_id: str) -> Decision:
        """A decision made before."""
        return self._do(calls.decision(decision_id))

    def ready(self) -> Readiness:
        """Whether the server can answer, and if not, why not."""
        return self._do(calls.ready())

    def close(self) -> None:
        """Close the connections."""
        self._connections.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempts(self, call: Call[Any], timeout_s: float | None) -> Attempts:
        return Attempts(call, self._patience.within(timeout_s), self._headers)

    def _do(self, call: Call[T], timeout_s: float | None = None) -> T:
        attempts = self._attempts(call, timeout_s)
        connection, response = self._begin(call, attempts)
        return call.result(self._whole(connection, response, attempts))

    def _begin(self, call: Call[Any], attempts: Attempts) -> tuple[HTTPConnection, HTTPResponse]:
        """The last attempt's connection, and its answer, of which the head has come."""
        while True:
            connection = self._connections.take(attempts.left_s())
            try:
                response = self._connections.ask(connection, call.method, call.path, call.body, attempts.headers())
            except (OSError, HTTPException) as error:
                connection.close()
                if isinstance(error, TimeoutError):
                    raise attempts.late() from error
                time.sleep(attempts.pause_after_failure(error))
                continue
            said = retry_after_s(response.headers.get("retry-after"))
            pause_s = attempts.pause_after(Answer(response.status, b"", said))
            if pause_s is None:
                return connection, response
            self._whole(connection, response, attempts)
            time.sleep(pause_s)

    def _whole(self, connection: HTTPConnection, response: HTTPResponse, attempts: Attempts) -> Answer:
        try:
            body = response.read()
        except (OSError, HTTPException) as error:
            connection.close()
            raise attempts.broken(error) from error
        self._connections.give_back(connection)
        return Answer(response.status, body, retry_after_s(response.headers.get("retry-after")))

    def _lines(self, call: Call[T], count: int, timeout_s: float | None) -> Iterator[T]:
        """So many lines of an answer, each as it comes."""
        attempts = self._attempts(call, timeout_s)
        connection, response = self._begin(call, attempts)
        if response.status != OK:
            raise error_of(self._whole(connection, response, attempts))
        is_whole = False
        try:
            for _ in range(count):
                yield calls.read_line(call, _line(connection, response, attempts))
            is_whole = not response.read()
        finally:
            if is_whole:
                self._connections.give_back(connection)
            else:
                connection.close()


def _line(connection: HTTPConnection, response: HTTPResponse, attempts: Attempts) -> bytes:
    try:
        if connection.sock is not None:
            connection.sock.settimeout(attempts.left_s())
        line = response.readline()
    except (OSError, HTTPException) as error:
        raise attempts.broken(error) from error
    return calls.whole_line(line)
