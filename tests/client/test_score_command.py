"""`actor-risk score` asks a running application."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actor_risk.cli import main
from models import ModelStore
from tests.serving.fakes import KEYS, SERVICE, click, loaded_world, publish_model
from tests.support.listening import listening


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    root: Path = tmp_path_factory.mktemp("models")
    publish_model(ModelStore(root))
    with listening(loaded_world(root).app) as found:
        yield found


def score(url: str, *arguments: str) -> Result:
    keys = [f"{name}={value}" for name, value in KEYS.items()]
    return CliRunner().invoke(main, ["score", "--url", url, "--model", SERVICE, *keys, *arguments])


def test_a_decision_is_shown_with_its_reasons(url: str) -> None:
    shown = score(url)
    assert shown.exit_code == 0, shown.output
    assert "base value" in shown.output
    assert "203.0.113.9" in shown.output


@pytest.mark.parametrize("how", [["--json"], ["--explain", "none"]])
def test_a_decision_is_printed_as_json(url: str, how: list[str]) -> None:
    printed = score(url, *how, "--event", json.dumps(click()))
    record = json.loads(printed.output)
    assert (record["actor"], record["model"]["name"]) == (KEYS, SERVICE)


def test_what_is_wrong_is_told_in_a_line(url: str) -> None:
    refused = score(url, "os=android")
    assert (refused.exit_code, "entities.os" in refused.output) == (1, True)
    nobody = score("http://127.0.0.1:9")
    assert (nobody.exit_code, "actor-risk serve" in nobody.output) == (1, True)
    odd = score(url, "--event", "{")
    assert (odd.exit_code, "--event" in odd.output) == (2, True)
