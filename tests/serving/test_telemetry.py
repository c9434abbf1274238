"""What the server counts: scores, drift, what was read of each feature and how old it is, by version and mode."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from materialize.online import FeatureMatrix, FeatureStatus, Met, OnlineStoreUnavailableError
from serving.drift import ANSWERS_MIN, WINDOW, ScoreWindow, population_stability_index, reference_of
from serving.errors import TooManyRequestsError
from serving.policy import Canary, Policy
from serving.telemetry import ServiceState, Telemetry
from serving.telemetry.counting import Buckets
from serving.telemetry.exposition import Exposition
from serving.telemetry.feature_reads import FEATURES_MAX, FeatureReads
from tests.serving.fakes import CHAMPION, FEATURES, KEYS, SERVICE, World, click, plan, publish_model
from tests.serving.test_http import metrics


def series(world: World, name: str) -> dict[tuple[str, ...], float]:
    return {labels: value for (found, labels), value in metrics(world).items() if found == name}


def ask(world: World, **entities: str) -> Any:
    return asyncio.run(world.score({"model": SERVICE, "entities": {**KEYS, **entities}})).decision()


def test_scores_are_counted_by_version_and_mode(world: World) -> None:
    decisions = [ask(world), ask(world, ip="198.51.100.1")]
    version = decisions[0].model.version
    below = series(world, "actor_risk_score_bucket")
    for bound in ("0.5", "0.98"):
        expected = sum(decision.score <= float(bound) for decision in decisions)
        assert below[bound, "live", SERVICE, version] == expected
    assert series(world, "actor_risk_score_count") == {("live", SERVICE, version): 2}
    assert series(world, "actor_risk_score_sum")["live", SERVICE, version] == pytest.approx(
        sum(decision.score for decision in decisions)
    )


def test_canaries_and_shadows_are_counted_apart(empty_world: World) -> None:
    first = publish_model(empty_world.store, seed=1)
    second = publish_model(empty_world.store, seed=2)
    policy = Policy(champion=first, canary=Canary(model=second, share=1.0), shadows=(first,))

    async def score() -> None:
        await empty_world.service.load({SERVICE: policy})
        await empty_world.score({"model": SERVICE, "entities": KEYS})
        await asyncio.sleep(0.05)  # shadows come after the answer

    asyncio.run(score())
    counted = series(empty_world, "actor_risk_stage_seconds_count")
    assert {labels[:1] + labels[3:]: n for labels, n in counted.items() if "total" in labels} == {
        ("canary", second): 1,
        ("shadow", first): 1,
    }


def test_a_score_that_is_not_the_models_is_not_in_its_distribution(empty_world: World) -> None:
    version = publish_model(empty_world.store)
    policy = Policy(champion="champion", store_away="default")
    asyncio.run(empty_world.service.load({SERVICE: policy}))
    empty_world.features.failure = OnlineStoreUnavailableError("away")
    for _ in range(4):
        ask(empty_world)
    assert series(empty_world, "actor_risk_score_count")["live", SERVICE, version] == 0
    assert series(empty_world, "actor_risk_degraded_total")["live", SERVICE, "features_defaulted", version] == 4
    assert series(empty_world, "actor_risk_breaker_open") == {(): 1}


def test_every_status_of_every_feature_is_counted(world: World) -> None:
    statuses = [FeatureStatus.PRESENT] * len(FEATURES)
    statuses[0], statuses[4] = FeatureStatus.OUTSIDE_MAX_AGE, FeatureStatus.NULL_VALUE
    world.features.statuses[KEYS["ip"]] = statuses
    version = ask(world).model.version
    ask(world, ip="198.51.100.1")
    found = series(world, "actor_risk_feature_values_total")
    assert found[FEATURES[0], SERVICE, "outside_max_age", version] == 1
    assert found[FEATURES[0], SERVICE, "not_found", version] == 1
    assert found[FEATURES[1], SERVICE, "present", version] == 1
    assert found[FEATURES[4], SERVICE, "null_value", version] == 1
    per_feature = Counter[str]()
    for labels, count in found.items():
        per_feature[labels[0]] += int(count)
    assert per_feature == dict.fromkeys(FEATURES, 2)


def test_the_age_of_a_view_is_that_of_its_newest_value(world: World) -> None:
    version = ask(world).model.version  # ages are 0, 1, 2, … s in the order of the features
    ask(world, ip="198.51.100.1")  # nothing was read: no age
    sums = series(world, "actor_risk_view_age_seconds_sum")
    assert sums == {
        (SERVICE, version, "click_ratios"): 7.0,
        (SERVICE, version, "device"): 4.0,
        (SERVICE, version, "ip_clicks"): 0.0,
    }
    assert set(series(world, "actor_risk_view_age_seconds_count").values()) == {1}
    assert series(world, "actor_risk_view_age_seconds_bucket")["5.0", SERVICE, version, "device"] == 1
    assert series(world, "actor_risk_view_age_seconds_bucket")["5.0", SERVICE, version, "click_ratios"] == 0


def test_many_rounds_are_counted_as_few(world: World) -> None:
    async def answer() -> None:
        for _ in range(40):
            await asyncio.gather(*(world.score({"model": SERVICE, "entities": KEYS}) for _ in range(20)))

    asyncio.run(answer())
    assert set(series(world, "actor_risk_feature_values_total").values()) == {800}
    assert set(series(world, "actor_risk_view_age_seconds_count").values()) == {800}
    assert sum(series(world, "actor_risk_round_size_sum").values()) == 800
    assert sum(series(world, "actor_risk_round_size_count").values()) < 800


def test_a_model_with_very_many_features_is_counted_by_view() -> None:
    refs = [f"view_{n % 3}:f{n}" for n in range(FEATURES_MAX + 3)]
    statuses = np.full((2, len(refs)), FeatureStatus.PRESENT, np.uint8)
    reads = FeatureReads(refs)
    nothing = np.zeros(statuses.shape)
    reads.add(
        FeatureMatrix(plan(), nothing, statuses, nothing.astype(np.int64), {}, Met(np.zeros(2, np.int64))),
        np.arange(len(refs)),
    )
    expected = 2 * len(refs) // 3
    assert reads.statuses() == {(f"view_{n}:*", "present"): expected for n in range(3)}


def test_waiting_refusals_and_problems_are_shown(world: World) -> None:
    asyncio.run(world.score(b"{"))
    asyncio.run(world.call("POST", "/v1/score:batch", b'{"model": "nobody", "requests": [{}]}'))
    assert series(world, "actor_risk_problems_total") == {("malformed-json",): 1, ("unknown-model",): 1}
    assert set(series(world, "actor_risk_waiting").values()) == {0}
    assert series(world, "actor_risk_under_way") == {(): 0}
    assert series(world, "actor_risk_refused_total") == {(): 0}
    with pytest.raises(TooManyRequestsError):
        world.service.require_capacity(10**9)
    assert series(world, "actor_risk_refused_total") == {(): 1}


def test_a_problem_inside_a_batch_is_counted_where_the_batch_is_answered(world: World) -> None:
    body = b'{"model": "ad_click_risk", "requests": [{"entities": {"ip": "203.0.113.9", "device_id": "d"}}, {}]}'
    assert asyncio.run(world.call("POST", "/v1/score:batch", body)).status == 200
    assert series(world, "actor_risk_problems_total") == {("invalid-field",): 1}
    assert sum(series(world, "actor_risk_verdicts_total").values()) == 1


def test_a_version_that_left_is_told_of_once_more_and_forgotten(empty_world: World) -> None:
    first = publish_model(empty_world.store, seed=1)
    asyncio.run(empty_world.service.load(CHAMPION))
    ask(empty_world)
    second = publish_model(empty_world.store, seed=2)
    asyncio.run(empty_world.service.load(CHAMPION))
    ask(empty_world)
    versions = [{labels[-1] for labels in series(empty_world, "actor_risk_stage_seconds_count")} for _ in range(2)]
    assert versions == [{first, second}, {second}]


def test_failures_of_publishing_go_on_counting_when_their_version_has_left(empty_world: World) -> None:
    async def fail() -> None:
        raise OSError

    empty_world.publisher.fail = fail
    for seed in (1, 2):
        publish_model(empty_world.store, seed=seed)
        asyncio.run(empty_world.service.load(CHAMPION))
        asyncio.run(empty_world.score({"model": SERVICE, "event": click()}))
    told = [series(empty_world, "actor_risk_event_publish_failures_total") for _ in range(2)]
    assert told == [{(): 2}, {(): 2}]


def test_a_model_that_is_loaded_again_goes_on_counting(world: World) -> None:
    ask(world)
    asyncio.run(world.service.load(CHAMPION))
    ask(world)
    assert set(series(world, "actor_risk_score_count").values()) == {2}


def test_the_process_says_how_much_memory_it_has(world: World) -> None:
    assert series(world, "process_resident_memory_bytes")[()] > 1e6


def test_both_formats_say_the_same(world: World) -> None:
    ask(world)
    accept = {"accept": "application/openmetrics-text;version=1.0.0"}
    pages = [asyncio.run(world.call("GET", "/metrics", headers=headers)).body.decode() for headers in ({}, accept)]
    plain, opened = (
        {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in parse(page)
            for sample in family.samples
            if not sample.name.startswith(("process_", "actor_risk_requests"))
        }
        for parse, page in zip((plain_text, open_metrics), pages, strict=True)
    )
    assert plain == opened


@given(st.dictionaries(st.text(max_size=20), st.integers(0, 9), max_size=4))
def test_any_label_comes_back_from_the_parser(values: dict[str, int]) -> None:
    to = Exposition("", {"replica": 'a"\\\nb'})
    to.gauge("some_gauge", "Told", ["label"], [((name,), value) for name, value in values.items()])
    [family] = plain_text(to.page().decode())
    assert {sample.labels["label"]: sample.value for sample in family.samples} == values
    assert {sample.labels["replica"] for sample in family.samples} <= {'a"\\\nb'}


def test_buckets_of_a_page_count_all_that_is_below() -> None:
    buckets = Buckets((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        buckets.add(value)
    to = Exposition("", {})
    to.histogram("some_seconds", "Told", [], [((), buckets)], 1e-3)
    [family] = plain_text(to.page().decode())
    assert [(sample.labels.get("le"), sample.value) for sample in family.samples] == [
        ("0.001", 2),
        ("0.002", 3),
        ("+Inf", 4),
        (None, 4),
        (None, pytest.approx(0.012)),
    ]


class TestDrift:
    """The index of live scores against the background's."""

    def test_tenths_of_distinct_scores_hold_the_same_number(self) -> None:
        reference = reference_of(np.random.default_rng(1).permutation(np.linspace(0, 1, 100)))
        assert reference.counts == (10,) * 10

    def test_scores_that_come_again_stay_in_their_part_even_with_another_last_digit(self) -> None:
        scores = np.repeat([0.1, 0.2, 0.7], [50, 30, 20])
        reference = reference_of(scores)
        assert reference.counts == (50, 30, 20)
        window = ScoreWindow(reference)
        for score in np.nextafter(scores, 1.0).tolist() * 10:
            window.add(score)
        assert window.psi() == pytest.approx(0.0, abs=1e-3)

    def test_it_is_none_at_all_for_what_says_nothing(self) -> None:
        window = ScoreWindow(reference_of(np.full(50, 0.3)))
        for _ in range(ANSWERS_MIN):
            window.add(0.9)
        assert window.psi() is None, "a reference of one score has no parts"
        assert ScoreWindow(reference_of(np.linspace(0, 1, 100))).psi() is None, "too few answers"
        assert reference_of(np.empty(0)).rows == 0

    def test_it_is_the_sum_of_the_formula(self) -> None:
        expected, live = [10, 30], [600, 200]
        shares = [(10.5 / 41, 600.5 / 801), (30.5 / 41, 200.5 / 801)]
        by_hand = sum((b - a) * math.log(b / a) for a, b in shares)
        assert population_stability_index(expected, live) == pytest.approx(by_hand)

    def test_the_same_population_stays_low_and_another_does_not(self) -> None:
        rng = np.random.default_rng(3)
        population = rng.beta(1, 8, 20_000)
        background = np.sort(population)[:: len(population) // 100]
        same, other = (ScoreWindow(reference_of(background)) for _ in range(2))
        for score in rng.beta(1, 8, 5_000).tolist():
            same.add(score)
        for score in rng.beta(2, 5, 5_000).tolist():
            other.add(score)
        assert (same.psi() or 0.0) < 0.02
        assert (other.psi() or 0.0) > 0.5

    def test_what_is_long_past_is_forgotten(self) -> None:
        window = ScoreWindow(reference_of(np.linspace(0, 1, 100)))
        for _ in range(WINDOW):
            window.add(0.99)
        drifted = window.psi()
        for score in np.random.default_rng(5).uniform(size=2 * WINDOW).tolist():
            window.add(score)
        assert drifted is not None
        assert (window.psi() or 0.0) < 0.02 < drifted
        assert WINDOW <= window.answers <= 2 * WINDOW

    def test_the_server_tells_it_with_its_reference(self, world: World) -> None:
        version = ask(world).model.version
        assert series(world, "actor_risk_score_reference_rows") == {(SERVICE, version): 8}
        assert series(world, "actor_risk_score_psi_answers") == {("live", SERVICE, version): 1}
        assert series(world, "actor_risk_score_psi") == {}

        async def many() -> None:
            for _ in range(ANSWERS_MIN // 20):
                await asyncio.gather(*(world.score({"model": SERVICE, "entities": KEYS}) for _ in range(20)))

        asyncio.run(many())
        assert series(world, "actor_risk_score_psi")["live", SERVICE, version] > 0.25, "one score is no population"


def test_two_replicas_behind_one_address_are_told_apart() -> None:
    pages = [Telemetry(replica).render(ServiceState(), "")[0] for replica in ("a-1", "a-2")]
    assert b'actor_risk_under_way{replica="a-1"} 0' in pages[0]
    assert b'actor_risk_under_way{replica="a-2"} 0' in pages[1]
