"""The composition root: from settings to a server, with every client opened here and closed here."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from materialize.events import TOPICS
from materialize.online import open_reader
from materialize.stream.errors import StreamError
from materialize.stream.log import EventLog, EventLogProducer, EventLogSettings, KafkaLogSettings
from materialize.stream.open_log import log_settings, open_event_log
from models.rollouts import Rollouts
from models.store import ModelStore
from serving.access import Gate, open_gate
from serving.asgi import ScoringApp
from serving.clock import Clock
from serving.decision_files import DecisionFiles, FileLimits
from serving.decision_lookup import DecisionLookup
from serving.entity_features import EntityFeaturesApi
from serving.errors import SettingsError
from serving.events import EventIntake
from serving.feast_api import FeastApi
from serving.first_answers import FirstAnswers
from serving.identifiers import RandomBytes
from serving.rollouts import RolloutFollower
from serving.scoring import ScoringService
from serving.settings import Settings
from serving.shipping import LAYOUTS_TOPIC, TOPIC, Shipper
from serving.spool_writer import SpoolWriter
from serving.telemetry import Telemetry
from serving.trace_context import TraceIds, Tracing

_LOG = logging.getLogger(__name__)
ANSWERS_PREFIX = "actor-risk:answers:"
_MS_PER_S = 1000
_NS_PER_MS = 1_000_000
_FILE_NAME_ODD = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Server:
    """The parts of a server that its host needs: `service` answers, `rollouts` loads its models and follows what is
    rolled out, `app` is its HTTP, `gate` follows keys."""

    service: ScoringService
    rollouts: RolloutFollower
    app: ScoringApp
    gate: Gate


def system_clock() -> Clock:
    """The clock of this machine."""
    return Clock(now_ms=lambda: time.time_ns() // _NS_PER_MS, monotonic_ns=time.perf_counter_ns)


def build_server(settings: Settings, notes: Sequence[str] = ()) -> Server:
    """A server without models: call `rollouts.load` next. `notes` are shown by /readyz.

    Reads the Feast registry, which takes a moment; connects to Redis and the stream at their first use.
    """
    clock = system_clock()
    gate = open_gate(settings, clock)
    reader = open_reader(
        settings.redis_url, settings.feature_repo, settings.registry, settings.redis_timeout_ms / _MS_PER_S
    )
    log = open_event_log(log_settings(reader.redis_url, settings.kafka_servers))
    _ensure_topics(log)
    publisher = log.async_publisher()
    decisions_log = open_event_log(_decisions_log_settings(settings, reader.redis_url))
    decisions = _decision_log(settings, clock, decisions_log)
    tracing, end_tracing = _tracing(settings)

    async def shut_down() -> None:
        await publisher.close()
        await reader.close()
        await asyncio.to_thread(log.close)
        if decisions is not None:
            await asyncio.to_thread(decisions.close)
        await asyncio.to_thread(decisions_log.close)
        await asyncio.to_thread(end_tracing)

    service = ScoringService(
        reader,
        ModelStore(settings.models, settings.model_cache),
        publisher,
        clock,
        RandomBytes(),
        publish_timeout_s=settings.publish_timeout_ms / _MS_PER_S,
        log=decisions,
        telemetry=Telemetry(f"{socket.gethostname()}-{os.getpid()}"),
        tracing=tracing,
    )
    app = ScoringApp(
        service,
        clock,
        body_bytes_max=settings.body_bytes_max,
        notes=notes,
        shut_down=shut_down,
        feast=FeastApi(reader),
        entities=EntityFeaturesApi(reader, clock.now_ms),
        intake=EventIntake(publisher, settings.ingest_timeout_ms / _MS_PER_S),
        gate=gate,
        first_answers=FirstAnswers(reader.short_lived(ANSWERS_PREFIX), secrets.token_bytes),
        finder=DecisionLookup(settings.decisions, settings.decisions_archive),
    )
    rollouts = RolloutFollower(service, Rollouts(settings.models, settings.model_cache), clock)
    return Server(service, rollouts, app, gate)


def _tracing(settings: Settings) -> tuple[Tracing | None, Callable[[], None]]:
    """What follows requests, None when neither spans nor log lines are to name their trace; and what ends it."""
    if not settings.traces:
        return (TraceIds(secrets.token_bytes) if settings.log_format == "json" else None), lambda: None
    try:
        # Imported where traces are wanted: OpenTelemetry is an extra.
        from serving.tracing import open_spans
    except ImportError as error:
        raise SettingsError(f"traces need the extra `otel`: pip install 'actor-risk[otel]' ({error})") from error
    return open_spans()


def _decision_log(settings: Settings, clock: Clock, event_log: EventLog) -> DecisionFiles | None:
    """The decision log; None when no decision is to be kept."""
    if not settings.decision_log_rate:
        return None

    def open_producer() -> EventLogProducer:
        event_log.ensure_topics([TOPIC, LAYOUTS_TOPIC])
        return event_log.producer()

    def shipper(files: SpoolWriter) -> Shipper:
        return Shipper(files, open_producer)

    writer = f"{_FILE_NAME_ODD.sub('_', socket.gethostname())}-{os.getpid()}-{secrets.token_hex(3)}"
    limits = FileLimits.within(settings.decision_log_mib_max << 20)
    ships = shipper if settings.decision_log_ship else None
    return DecisionFiles(settings.decisions, writer, limits, clock.now_ms, settings.decision_log_rate, ships)


def _decisions_log_settings(settings: Settings, redis_url: str) -> EventLogSettings:
    """The event log as decisions go to it: on Redis, whose memory they take, fewer are kept than of events."""
    found = log_settings(redis_url, settings.kafka_servers)
    if isinstance(found, KafkaLogSettings):
        return found
    return replace(found, retention_records=-(-settings.decision_stream_records_max // found.partitions))


def _ensure_topics(log: EventLog) -> None:
    """Make the topics that events are published to; with the log away, answers are marked degraded until they exist."""
    try:
        log.ensure_topics(list(TOPICS))
    except StreamError as error:
        _LOG.warning("the event topics could not be made: %s", error)
