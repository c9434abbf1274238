"""The public names of every package: written down, sorted, there, and nothing private among them."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

import pytest

import actor_risk
import materialize
import models
import serving

ROOTS = (actor_risk, materialize, models, serving)
CONTAINERS = ("actor_risk", "materialize")
"""They hold packages and offer nothing themselves."""

PINNED = {
    "actor_risk.client": """
        AsyncClient Client ClientError ConnectionFailedError DeadlineError Decision Entities Event EventResult
        EventsAnswer Explain ModelCard Problem ProblemError Question Readiness Reason ReasonFeature StoredFeatures
        UnexpectedAnswerError question
    """,
    "materialize.backfill": """
        BackfillError BackfillResult ChunkLostError ChunkResult ClusterError Executor GatherResult Inline
        JobSettings JobStatus LeaseLostError Plan QualityError RowsLostError Span SpanError StagingError
        StoppedError SupersededError ViewBusyError ViewJob ViewReport backfill_view batch_end_of batch_span
        gather_events moment step_ms write_batch_sides write_newest_rows write_whole
    """,
    "materialize.definitions": """
        EVENT_ID BatchView DefinitionError FeatureField JoinKey OnDemandView ReasonFamily RequestField
        ServiceDefinition ServiceView StreamView View ViewEvents canonical_code compile_service compile_view
        entity_join_keys identities_of open_feature_store repo_config
    """,
    "materialize.events": """
        ACCOUNT_EVENTS AD_EVENTS DEFAULT_SKEW_MS TOPICS AccountEvent AdEvent Columns Event EventDecoder
        EventFormatError EventFormats InvalidEventError JsonEventDecoder Reason avro_schema columns_from_events
        columns_from_table decode_event event_time_ms hash_binary hashes_from_table json_schema open_formats
        partition_key places_of_words schema_documents schema_version
    """,
    "materialize.kernel": """
        BAD_SHAPE DISTINCT_EXACT_MAX DISTINCT_RELATIVE_STD_ERROR FOUND FUNCTIONS HEAD_MAX KEEP_SLACK_MS META_SIZE
        NOT_FOUND NO_TIME_MS ROW_BYTES_MAX Aggregation AggregationSpec EventBlock FoldCounts HopLayout KernelError Row
        Sets Tiles UnknownFunctionError ViewSpec Window WindowError WindowValues compile_program concat_blocks
        default_hop_ms empty_block empty_row fold_events fold_rows gather_ranges group_events hash_strings hash_value
        hash_values hop_starts merge_rows program_reaches read_windows replace_batch_side replace_rows row_bytes_max
        values_as_of
    """,
    "materialize.offline": """
        ARROW_TYPES ColumnNotReadError EventColumns History HistoryError Knowledge Limits OwnEvents PointInTime
        ViewColumns ViewQuery columns_to_read entity_codes history_end_ms open_history read_history values_as_declared
        values_of_view
    """,
    "materialize.online": """
        NUMERIC_KINDS BatchRow ConnectionSettingsError EntityFeatures EventsByRow FeatureMatrix FeatureReader
        FeatureReaderSync FeatureStatus FeatureVector FieldValue FoldOutcome FoldedRows HistoryByRow KeyEncoder Lookup
        Met OnlineStoreError OnlineStoreRefusedError OnlineStoreUnavailableError Progress ReadCounts ReadPlan
        RedisSettings RowFolder RowRefusedError RowWriter ShortLived StreamRow UnknownFeatureError UnknownServiceError
        ViewReader ViewValues WriteConflictError WriteCounts assemble compile_plan connect connect_async
        decode_batch_row decode_stream_row encode_batch_columns encode_batch_row encode_stream_row events_by_row
        history_by_row lookup open_reader open_reader_sync read_plan redis_settings topic_of unavailable_if_redis_fails
        value_from_proto value_to_proto view_prefix view_reader
    """,
    "materialize.stream": """
        AsyncEventLogPublisher CommitRejectedError DeadLetter DeadLetters DefinitionsSupersededError EventLog
        EventLogConsumer EventLogProducer EventLogSettings InvalidOffsetError KafkaLogSettings LogUnavailableError
        ProduceError Record RecordsLostError RedisLogSettings StreamError TopicPartition UnknownTopicError
        dead_letter_topic log_settings next_offsets open_event_log
    """,
    "models": """
        CHALLENGER CHAMPION SHADOW AliasChange AliasMovedError Bundle BundleCorruptError BundleDraft BundleError
        BundleNotFoundError Explainer Explanation ExplanationSpec ExportMismatchError Feature
        GoldenMismatchError InputError Manifest Meaning Metrics ModelCard ModelError ModelStore OperatingPoint
        Reason ReasonIndex ReasonText Reasons Scorer Scores Service StoreUnavailableError Thresholds
        TrainingData TrainingError UnsafeNameError UnsupportedModelError UnsupportedStoreError
    """,
}
"""What others build on: a name added or taken away is changed here too."""


def packages() -> list[str]:
    found = [root.__name__ for root in ROOTS]
    for root in ROOTS:
        found += [m.name for m in pkgutil.walk_packages(root.__path__, f"{root.__name__}.") if m.ispkg]
    return sorted(set(found) - set(CONTAINERS))


@pytest.mark.parametrize("name", packages())
def test_a_package_says_what_it_is_and_what_it_offers(name: str) -> None:
    package: ModuleType = importlib.import_module(name)
    assert package.__doc__, "open it with one sentence that says what it is"
    offered = package.__all__
    assert list(offered) == sorted(set(offered), key=by_case), "sorted as ruff does: constants, classes, functions"
    assert all(hasattr(package, member) and not member.startswith("_") for member in offered)


def by_case(member: str) -> tuple[int, str]:
    rank = 0 if member.isupper() else 1 if member[0].isupper() else 2
    return rank, member


@pytest.mark.parametrize("name", sorted(PINNED))
def test_a_package_offers_exactly_what_is_written_down_here(name: str) -> None:
    assert list(importlib.import_module(name).__all__) == PINNED[name].split()
