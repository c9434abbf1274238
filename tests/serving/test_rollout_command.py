"""`actor-risk rollout`: set, look, go back, against a store and a running server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from actor_risk.cli import main
from models import ModelStore
from models.rollouts import Rollout, Rollouts
from tests.serving.fakes import KEYS, SERVICE, World, build_world, publish_model
from tests.support.listening import listening

NOWHERE = "http://127.0.0.1:1"


class Shell:
    """Runs the command against a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "models"
        store = ModelStore(self.root)
        self.first = publish_model(store, seed=1, alias="champion")
        self.second = publish_model(store, seed=2, alias="challenger")
        self.rollouts = Rollouts(self.root)

    def __call__(self, *words: str) -> Result:
        environment = {"ACTOR_RISK_HOME": str(self.home), "COLUMNS": "400", "ACTOR_RISK_MODELS": ""}
        return CliRunner().invoke(main, ["rollout", *words], env=environment)

    def set(self, *words: str) -> Rollout:
        """What counts after `rollout set`."""
        done = self("set", SERVICE, "--by", "me", *words)
        assert done.exit_code == 0, done.output
        newest = self.rollouts.newest(SERVICE)
        assert newest is not None
        return newest


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def test_a_canary_is_set_by_the_versions_that_the_aliases_point_at(shell: Shell) -> None:
    entry = shell.set("--canary", "challenger", "--share", "0.05", "--why", "a try")
    assert entry.policy is not None
    assert (entry.number, entry.by, entry.why, entry.restores) == (1, "me", "a try", None)
    assert (entry.policy["champion"], entry.policy["canary"]) == (shell.first, {"model": shell.second, "share": 0.05})


def test_what_is_not_named_stays_as_it_is(shell: Shell) -> None:
    shell.set(
        "--canary", "challenger", "--share", "0.05", "--shadow", "challenger", "--review", "0.3", "--block", "0.9"
    )
    policy = shell.set("--share", "0.2", "--review", "0.4").policy
    assert policy is not None
    assert policy["canary"] == {"model": shell.second, "share": 0.2}
    assert policy["thresholds"] == {"review": 0.4, "block": 0.9}
    assert policy["shadows"] == [shell.second]
    off = shell.set("--off", "--fallback-score", "0", "--store-away", "fallback").policy
    assert off == {**policy, "is_on": False, "fallback_score": 0.0, "store_away": "fallback"}
    again = shell.set("--on", "--no-canary", "--no-shadows", "--own-thresholds", "--store-away", "refuse").policy
    assert again is not None
    assert (again["is_on"], again["canary"], again["shadows"], again["thresholds"]) == (True, None, [], None)


def test_a_fallback_model_is_set_by_its_version_and_taken_away(shell: Shell) -> None:
    done = shell("set", SERVICE, "--fallback-model", "challenger", "--store-away", "fallback")
    assert done.exit_code == 0, done.output
    assert f"store away: fallback, late: default, fallback model {shell.second}" in done.output
    newest = shell.rollouts.newest(SERVICE)
    assert newest is not None
    assert newest.policy is not None
    assert newest.policy["fallback_model"] == shell.second
    refused = shell("set", SERVICE, "--no-fallback-model")
    assert (refused.exit_code, "must say fallback_score or fallback_model" in refused.output) == (1, True)
    policy = shell.set("--no-fallback-model", "--fallback-score", "0.1").policy
    assert policy is not None
    assert (policy["fallback_model"], policy["fallback_score"]) == (None, 0.1)


def test_a_moved_alias_counts_when_it_is_named_again(shell: Shell) -> None:
    shell.set("--late", "refuse")
    ModelStore(shell.root).set_alias(SERVICE, "champion", shell.second, at_ms=1, by="tests")
    unmoved, moved = shell.set("--late", "default").policy, shell.set("--champion", "champion").policy
    assert unmoved is not None
    assert moved is not None
    assert (unmoved["champion"], moved["champion"]) == (shell.first, shell.second)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "say what is to change"),
        (("--share", "0.1"), "--canary and --share go together"),
        (("--canary", "challenger"), "--canary and --share go together"),
        (("--canary", "challenger", "--share", "2"), "not in the range"),
        (("--review", "0.9", "--block", "0.1"), "review must not be above block"),
        (("--on", "--off"), "--on or --off"),
        (("--late", "fallback"), "must say fallback_score or fallback_model"),
        (("--fallback-model", "unheard"), "has no alias 'unheard'"),
        (("--champion", "unheard"), "has no alias 'unheard'"),
        (("--champion", "0" * 16), "has no version 0000000000000000"),
    ],
)
def test_what_cannot_be_served_is_not_set(shell: Shell, words: tuple[str, ...], told: str) -> None:
    done = shell("set", SERVICE, *words)
    assert done.exit_code != 0
    assert told in done.output
    assert shell.rollouts.history(SERVICE) == []


def test_a_version_that_is_damaged_is_not_set_but_the_kill_switch_looks_at_none(shell: Shell) -> None:
    shell.set("--late", "refuse")
    for version in (shell.first, shell.second):
        golden = shell.root / SERVICE / version / "golden.parquet"
        golden.write_bytes(golden.read_bytes()[:-1])
    for option in ("--shadow", "--fallback-model"):
        done = shell("set", SERVICE, option, "challenger")
        assert done.exit_code == 1
        assert "golden.parquet" in done.output
    assert shell.set("--off").number == 2


def test_going_back_goes_further_back_each_time(shell: Shell) -> None:
    for share in ("0.1", "0.2", "0.3"):
        shell.set("--canary", "challenger", "--share", share)
    shares = []
    for _ in range(3):
        assert shell("rollback", SERVICE, "--why", "it was worse").exit_code == 0
        newest = shell.rollouts.newest(SERVICE)
        assert newest is not None
        shares.append(None if newest.policy is None else newest.policy["canary"]["share"])
    assert shares == [0.2, 0.1, None]
    assert [entry.restores for entry in shell.rollouts.history(SERVICE)] == [None, None, None, 2, 1, 0]
    done = shell("rollback", SERVICE)
    assert (done.exit_code, "has none before it" in done.output) == (1, True)
    assert shell("rollback", SERVICE, "--to", "3").exit_code == 0
    assert "for 30 % of the actors" in shell("status", "--url", NOWHERE).output


def test_there_is_no_way_back_from_nothing(shell: Shell) -> None:
    done = shell("rollback", SERVICE)
    assert (done.exit_code, "no rollout to go back from" in done.output) == (1, True)
    shell.set("--off")
    done = shell("rollback", SERVICE, "--to", "7")
    assert (done.exit_code, "has no rollout 7" in done.output) == (1, True)


def test_the_status_says_who_set_what_and_when_and_why(shell: Shell) -> None:
    assert "as the server is configured" in shell("status", "--url", NOWHERE).output
    shell.set("--off", "--why", "it [blocks] everybody")
    done = shell("status", SERVICE, "--url", NOWHERE)
    assert done.exit_code == 0
    for told in ("me", f"OFF, champion {shell.first}", "it [blocks] everybody", f"nothing is known of {NOWHERE}"):
        assert told in done.output


@contextmanager
def following(world: World) -> Iterator[str]:
    """The server of a world, which follows its rollouts as a replica does."""
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(0.02):
            asyncio.run(world.rollouts.follow())

    thread = threading.Thread(target=follow)
    with listening(world.app) as url:
        thread.start()
        try:
            yield url
        finally:
            ended.set()
            thread.join()


def test_a_running_server_takes_it_and_the_command_can_wait_for_that(shell: Shell) -> None:
    world = build_world(shell.root)
    asyncio.run(world.rollouts.load({SERVICE: "champion"}))
    with following(world) as url:
        done = shell("set", SERVICE, "--champion", "challenger", "--url", url)
        assert done.exit_code == 0, done.output
        assert f"served at {url}" in done.output
        served = shell("status", "--url", url).output.splitlines()
        assert [SERVICE, "1", "live", "100", "%", shell.second] in [line.split() for line in served]
        back = shell("rollback", SERVICE, "--url", url)
        assert back.exit_code == 0, back.output
    answer = asyncio.run(world.score({"model": SERVICE, "entities": KEYS})).decision()
    assert answer.model.version == shell.first


def test_a_rollout_that_servers_refuse_is_told_with_the_reason(shell: Shell) -> None:
    """Here their registry has other features than the model was trained on."""
    world = build_world(shell.root)
    asyncio.run(world.rollouts.load({SERVICE: "champion"}))
    other = publish_model(ModelStore(shell.root), seed=5, fingerprint="f2", alias="other")
    with following(world) as url:
        done = shell("set", SERVICE, "--champion", "other", "--url", url)
        assert done.exit_code == 1
        assert f"rollout 1 of {SERVICE} is refused, an earlier one stays: {SERVICE}@{other}" in done.output
        assert "is refused" in shell("status", "--url", url).output
