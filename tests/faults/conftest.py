"""What the fault tests run against: a broker of their own that may be killed, stalled and cut off, and fresh topics."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

import pytest

from actor_risk.local import LocalRuntimeError
from materialize.online import RedisSettings
from materialize.stream import KafkaLogSettings, open_event_log
from tests.support.servers import Fronted, fronted_kafka
from tests.support.workers import Work
from tests.support.world import SETTINGS, TOPICS, World

SESSION_TIMEOUT_MS = 1_000


@pytest.fixture(scope="package")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fronted]:
    """A broker behind a proxy, for these tests alone whatever KAFKA_BOOTSTRAP_SERVERS says: they kill it."""
    try:
        with fronted_kafka(tmp_path_factory.mktemp("faults"), request.config.rootpath) as broker:
            yield broker
    except LocalRuntimeError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no Kafka broker under CI: {error}")
        pytest.skip(f"no Kafka broker: {error}")


@pytest.fixture
def partitions() -> int:
    """Of each topic; a test that needs another number gives it by parametrization."""
    return 4


@pytest.fixture
def kafka_log(kafka: Fronted, partitions: int) -> Iterator[KafkaLogSettings]:
    """The log with new topics, deleted afterwards."""
    settings = KafkaLogSettings(
        bootstrap_servers=kafka.address, partitions=partitions, session_timeout_ms=SESSION_TIMEOUT_MS
    )
    with closing(open_event_log(settings)) as log:
        log.ensure_topics(TOPICS)
        yield settings
        log.delete_topics([*TOPICS, *(f"{topic}.dead-letters" for topic in TOPICS)])


@pytest.fixture
def work(kafka_log: KafkaLogSettings, redis_url: str, redis_namespace: str, world: World) -> Work:
    """The repository's stream views, from Kafka into rows of this test alone."""
    return Work(kafka_log, RedisSettings(url=redis_url), redis_namespace, world.views(), SETTINGS.end_ms)
