"""The events being scored, as the views see them whose rows they concern. No I/O."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from materialize.definitions import DefinitionError, StreamView, identities_of
from materialize.events import TOPICS, Columns, Event, columns_from_events
from materialize.kernel import EventBlock, KernelError
from materialize.online._plan import ReadPlan
from materialize.online._row_reader import Ints

Events = Mapping[int, Event]
NO_SCORED: Events = {}


class _Seen(NamedTuple):
    """An event as one view sees it: whose row it concerns, and what is counted there."""

    entity: int
    key: list[object]
    block: EventBlock


class _Group(NamedTuple):
    """Events of one topic: the entity that each was sent with, its columns, its identity."""

    entities: list[int]
    columns: Columns
    identities: NDArray[np.uint64]

    @classmethod
    def of(cls, events: Events) -> _Group:
        columns = columns_from_events(list(events.values()))
        return cls(list(events), columns, identities_of(columns))

    def alone(self, at: int) -> _Group:
        """One of them."""
        columns = {name: column[at : at + 1] for name, column in self.columns.items()}
        return _Group([self.entities[at]], columns, self.identities[at : at + 1])


def topic_of(event: Event) -> str:
    """The topic whose schema the event has."""
    return next(topic for topic, struct in TOPICS.items() if type(event) is struct)


def scored_blocks(
    plan: ReadPlan, owners: Ints, entities: Sequence[Mapping[str, object]], events: Events, failed: list[int]
) -> dict[int, EventBlock]:
    """What each event adds to rows, by the row's position.

    owners: int64[views, N], which row an entity has of a view. events: an entity's position → its event. The entity of
    an event that a view cannot use is added to `failed`.
    """
    blocks = {}
    for topic in TOPICS:
        chosen = {n: event for n, event in events.items() if topic_of(event) == topic}
        group = _Group.of(chosen) if chosen else None
        for position, row in enumerate(plan.rows):
            if group is None or not isinstance(row.view, StreamView) or row.view.topic != topic:
                continue
            for seen in _seen(row.view, group, failed):
                if seen.key == [entities[seen.entity][name] for name in row.key_names]:
                    blocks[int(owners[position, seen.entity])] = seen.block
    return blocks


def _seen(view: StreamView, group: _Group, failed: list[int]) -> Iterator[_Seen]:
    """Each event that has the view's keys. Where the view's code fails for all together, each is tried alone."""
    try:
        seen = view.events(group.columns, group.identities)
    except (DefinitionError, KernelError):
        if len(group.entities) == 1:
            failed.append(group.entities[0])
        else:
            for at in range(len(group.entities)):
                yield from _seen(view, group.alone(at), failed)
        return
    for place, at in enumerate(seen.rows.tolist()):
        yield _Seen(group.entities[at], [key[place] for key in seen.keys], seen.block.take(slice(place, place + 1)))
