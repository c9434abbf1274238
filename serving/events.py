"""Events over HTTP: validated as the worker validates them, accepted when the log has acknowledged them.

What is guaranteed to a caller that sends an event again, because it got no answer or a 503:

- The event counts once in features, as long as the worker knows its `event_id` (docs/semantics.md, *Duplicates*).
- An event that this replica accepted within `REMEMBERED_MS`, among its last `REMEMBERED_MAX`, is not even published
  again. The memory is short on purpose: after a log lost its records, sending them again must bring them back.
- Only an event with the same content is called a duplicate. Another event with the same `event_id` is published, and
  the worker counts one of them in each row.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import xxhash

from materialize.events import InvalidEventError, Reason, decode_event, partition_key
from materialize.personal import reason_of
from serving.errors import EventRejectedError, EventsUnconfirmedError, InvalidFieldError, MalformedBodyError
from serving.event_results import EVENTS_MAX, EventItem, EventResult, EventsAnswer
from serving.fields import decode_json, dotted
from serving.inputs import TopicEvent, topic_of
from serving.ports import Publisher

REMEMBERED_MAX = 100_000
REMEMBERED_MS = 600_000

_TURN_EVENTS = 50
"""So many events are decoded, and are on their way to the log, at a time: other requests get their turn between."""

_BODY_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw])
_ITEM_DECODER = msgspec.json.Decoder(EventItem)
_NAMES_DECODER = msgspec.json.Decoder(dict[str, msgspec.Raw])
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A valid event, as it goes into the log. `positions` in the request: more than one if it stands there twice."""

    topic: str
    event_id: str
    key: bytes
    value: bytes
    positions: list[int] = field(default_factory=list)


class EventIntake:
    """Takes the events of requests to the log."""

    def __init__(
        self,
        publisher: Publisher,
        timeout_s: float,
        events_max: int = EVENTS_MAX,
        remembered_max: int = REMEMBERED_MAX,
    ) -> None:
        """A request waits `timeout_s` for the log, has at most `events_max` events, and of those that were accepted
        last `remembered_max` are remembered."""
        self._publisher = publisher
        self._timeout_s = timeout_s
        self._events_max = events_max
        self._remembered_max = remembered_max
        self._accepted_ms: dict[int, int] = {}
        self._publishing_works = True

    async def take(self, body: bytes, now_ms: int) -> EventsAnswer:
        """What became of the events of a body: one `EventItem`, or a list of them.

        Raises MalformedBodyError or InvalidFieldError for a body that is neither, EventRejectedError when the one event
        is rejected, EventsUnconfirmedError when the log did not acknowledge all that is valid.
        """
        found = decode_json(_BODY_DECODER, body)
        is_list = isinstance(found, list)
        items: list[msgspec.Raw] = found if is_list else [msgspec.Raw(body)]
        if len(items) > self._events_max:
            raise InvalidFieldError(f"a request may have at most {self._events_max} events, not {len(items)}")
        results: list[EventResult] = [EventResult(status="unconfirmed")] * len(items)
        waiting: dict[int, _Waiting] = {}
        for position, raw in enumerate(items):
            if position % _TURN_EVENTS == _TURN_EVENTS - 1:
                await asyncio.sleep(0)
            results[position] = self._sorted_out(raw, position, now_ms, waiting)
        await self._publish_all(waiting, now_ms, results)
        return _answer(results, is_list)

    def _sorted_out(self, raw: msgspec.Raw, position: int, now_ms: int, waiting: dict[int, _Waiting]) -> EventResult:
        """The result of one item as far as it is known before anything is published; what is valid joins `waiting`."""
        try:
            found = _event_of(raw, now_ms)
        except (MalformedBodyError, InvalidFieldError) as error:
            reason: Reason = "malformed" if isinstance(error, MalformedBodyError) else "invalid"
            return EventResult(status="rejected", reason=reason, detail=error.detail, field=error.field)
        except InvalidEventError as error:
            where = "event_topic" if error.reason == "unknown_topic" else dotted("event", error.field)
            return EventResult(status="rejected", reason=error.reason, detail=error.detail, field=where)
        event_id, value = found.event.event_id, msgspec.json.encode(found.event)
        digest = xxhash.xxh3_128_intdigest(b"%s %s" % (found.topic.encode(), value))
        if self._is_remembered(digest, now_ms):
            return EventResult(status="duplicate", topic=found.topic, event_id=event_id)
        one = waiting.setdefault(digest, _Waiting(found.topic, event_id, partition_key(found.event), value))
        one.positions.append(position)
        return EventResult(status="unconfirmed", topic=found.topic, event_id=event_id)

    async def _publish_all(self, waiting: Mapping[int, _Waiting], now_ms: int, results: list[EventResult]) -> None:
        """Publish in parts, and note in `results` what the log acknowledged in time. A failure ends it."""
        digests = list(waiting)
        deadline_s = asyncio.get_running_loop().time() + self._timeout_s
        for begin in range(0, len(digests), _TURN_EVENTS):
            part = {digest: waiting[digest] for digest in digests[begin : begin + _TURN_EVENTS]}
            acknowledged, failure = await self._publish(part, deadline_s)
            for digest in acknowledged:
                self._remember(digest, now_ms)
                _note_accepted(part[digest], results)
            self._note_publishing(failure)
            if failure is not None:
                return

    async def _publish(self, part: Mapping[int, _Waiting], deadline_s: float) -> tuple[list[int], str | None]:
        """Those that the log acknowledged before the event loop's clock reached `deadline_s`, and why others are not
        among them."""
        loop = asyncio.get_running_loop()
        tasks = {
            digest: loop.create_task(self._publisher.publish(one.topic, one.key, one.value))
            for digest, one in part.items()
        }
        try:
            await asyncio.wait(tasks.values(), timeout=max(deadline_s - loop.time(), 0))
        finally:
            failures = {digest: _failure_of(task, self._timeout_s) for digest, task in tasks.items()}
            for task in tasks.values():
                task.cancel()
        acknowledged = [digest for digest, failure in failures.items() if failure is None]
        return acknowledged, next((failure for failure in failures.values() if failure is not None), None)

    def _is_remembered(self, digest: int, now_ms: int) -> bool:
        accepted_ms = self._accepted_ms.get(digest)
        return accepted_ms is not None and now_ms - accepted_ms <= REMEMBERED_MS

    def _remember(self, digest: int, now_ms: int) -> None:
        self._accepted_ms.pop(digest, None)
        self._accepted_ms[digest] = now_ms
        if len(self._accepted_ms) > self._remembered_max:
            del self._accepted_ms[next(iter(self._accepted_ms))]

    def _note_publishing(self, failure: str | None) -> None:
        # Only changes are logged: at full rate an outage would fill the disk.
        if failure is not None and self._publishing_works:
            _LOG.warning("events that were sent here are not published: %s", failure)
        if failure is None and not self._publishing_works:
            _LOG.warning("events that are sent here are published again")
        self._publishing_works = failure is None


def _event_of(raw: msgspec.Raw, now_ms: int) -> TopicEvent:
    """The event of one item. Raises MalformedBodyError, InvalidFieldError or InvalidEventError."""
    item: EventItem = decode_json(_ITEM_DECODER, raw)
    topic = item.event_topic
    if topic is None:
        topic = topic_of(decode_json(_NAMES_DECODER, item.event, "event"))
    return TopicEvent(topic, decode_event(topic, bytes(item.event), now_ms))


def _failure_of(task: asyncio.Task[None], timeout_s: float) -> str | None:
    """Why the log has not acknowledged, None if it has. Whatever any log raises means that it has not."""
    if not task.done():
        return f"no acknowledgement within {timeout_s} s"
    if task.cancelled():
        return "the log's client has stopped"
    error = task.exception()
    return None if error is None else reason_of(error)


def _note_accepted(one: _Waiting, results: list[EventResult]) -> None:
    first, *again = one.positions
    results[first] = EventResult(status="accepted", topic=one.topic, event_id=one.event_id)
    for position in again:
        results[position] = EventResult(status="duplicate", topic=one.topic, event_id=one.event_id)


def _answer(results: Sequence[EventResult], is_list: bool) -> EventsAnswer:
    """The answer. Raises EventsUnconfirmedError, or EventRejectedError for a single event."""
    counts = {status: sum(result.status == status for result in results) for status in _STATUSES}
    if counts["unconfirmed"]:
        raise EventsUnconfirmedError(counts["unconfirmed"], results)
    if not is_list and counts["rejected"]:
        raise EventRejectedError(results)
    return EventsAnswer(
        accepted=counts["accepted"],
        duplicate=counts["duplicate"],
        rejected=counts["rejected"],
        results=list(results),
    )


_STATUSES = ("accepted", "duplicate", "rejected", "unconfirmed")
