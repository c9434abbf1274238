"""The world with everything in the online store: history by backfill, what is live by the worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis

from materialize.online import RowWriter
from materialize.stream import DeadLetters, RedisLogSettings, open_event_log
from materialize.stream.worker import StreamWorker
from tests.support.world import SETTINGS, TOPICS, World, backfill, drain, publish_table


@pytest.fixture(scope="session")
def served(world: World) -> Iterator[World]:
    backfill(world)
    with (
        closing(open_event_log(RedisLogSettings(url=world.redis_url, prefix=world.project))) as log,
        redis.Redis.from_url(world.redis_url) as client,
    ):
        log.ensure_topics(TOPICS)
        for topic in TOPICS:
            publish_table(log, topic, getattr(world.live, topic))
        with closing(log.consumer(TOPICS, "served")) as consumer:
            worker = StreamWorker(
                world.project, world.views(), consumer, RowWriter(client), DeadLetters(log), lambda: SETTINGS.end_ms
            )
            drain(worker, sum(getattr(world.live, topic).num_rows for topic in TOPICS))
        assert not worker.counts.dead_letters
        yield world
