"""Settings from the environment, and whether Ray Serve's fast path is on."""

from __future__ import annotations

from pathlib import Path

import pytest

import serving
from serving.errors import SettingsError
from serving.fast_path import WANTED, fast_path_notes
from serving.settings import Settings


def test_everything_has_a_default_below_home() -> None:
    settings = Settings.from_environment({})
    assert settings.feature_repo == Path("feature_repo").absolute()
    assert (settings.registry, settings.models) == (
        Path(".local/registry.db").absolute(),
        Path(".local/models").absolute(),
    )
    assert (settings.kafka_servers, settings.body_bytes_max) == (None, 1 << 20)
    assert settings.decisions == Path(".local/decisions").absolute()
    assert (settings.decision_log_rate, settings.decision_log_mib_max) == (1.0, 4096)
    assert (settings.decision_log_ship, settings.decision_stream_records_max) == (True, 65_536)
    assert settings.decisions_archive is None
    assert settings.sched_batch is True


def test_each_variable_sets_its_setting(tmp_path: Path) -> None:
    settings = Settings.from_environment(
        {
            "ACTOR_RISK_HOME": str(tmp_path),
            "ACTOR_RISK_FEATURE_REPO": str(tmp_path / "repo"),
            "ACTOR_RISK_BODY_BYTES_MAX": "4096",
            "ACTOR_RISK_DECISIONS": str(tmp_path / "log"),
            "ACTOR_RISK_DECISION_LOG_RATE": ".05",
            "ACTOR_RISK_DECISION_LOG_MIB_MAX": "100",
            "ACTOR_RISK_DECISION_LOG_SHIP": "0",
            "ACTOR_RISK_DECISION_STREAM_RECORDS_MAX": "1000",
            "ACTOR_RISK_DECISIONS_ARCHIVE": "s3://bucket/decisions",
            "ACTOR_RISK_SCHED_BATCH": "0",
            "REDIS_URL": "rediss://cache.internal:6380/2",
            "KAFKA_BOOTSTRAP_SERVERS": "kafka-1:9092,kafka-2:9092",
        }
    )
    assert (settings.registry, settings.models) == (tmp_path / "registry.db", tmp_path / "models")
    assert (settings.feature_repo, settings.body_bytes_max) == (tmp_path / "repo", 4096)
    assert (settings.decisions, settings.decision_log_rate) == (tmp_path / "log", 0.05)
    assert settings.decision_log_mib_max == 100
    assert (settings.decision_log_ship, settings.decision_stream_records_max) == (False, 1_000)
    assert settings.decisions_archive == "s3://bucket/decisions"
    assert settings.sched_batch is False
    assert settings.redis_url == "rediss://cache.internal:6380/2"
    assert settings.kafka_servers == "kafka-1:9092,kafka-2:9092"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ACTOR_RISK_BODY_BYTES_MAX", "0"),
        ("ACTOR_RISK_BODY_BYTES_MAX", "1MB"),
        ("ACTOR_RISK_REDIS_TIMEOUT_MS", "-5"),
        ("ACTOR_RISK_PUBLISH_TIMEOUT_MS", "٣"),
        ("ACTOR_RISK_BODY_BYTES_MAX", "9" * 5000),
        ("ACTOR_RISK_DECISION_LOG_RATE", "1.5"),
        ("ACTOR_RISK_DECISION_LOG_RATE", "5%"),
        ("ACTOR_RISK_DECISION_LOG_RATE", "-0.1"),
        ("ACTOR_RISK_DECISION_LOG_RATE", "nan"),
        ("ACTOR_RISK_DECISION_LOG_SHIP", "yes"),
        ("REDIS_URL", "localhost:6379"),
    ],
)
def test_a_wrong_variable_is_refused_by_its_name(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({name: value})


def test_the_fast_path_is_on_only_with_all_of_its_variables() -> None:
    assert fast_path_notes(WANTED) == []
    [note] = fast_path_notes({**WANTED, "RAY_SERVE_ENABLE_HA_PROXY": "0"})
    assert "set RAY_SERVE_ENABLE_HA_PROXY=1 before Ray starts" in note


def test_the_package_exports_what_it_says() -> None:
    assert all(hasattr(serving, name) for name in serving.__all__)
    assert sorted(serving.__all__) == serving.__all__
    assert set(serving.__all__) == {
        "Decision", "ModelLoadError", "Problem", "RequestError", "ScoreRequest", "ScoringApp", "ScoringService",
        "ServingError", "Settings", "SettingsError",
    }  # fmt: skip
