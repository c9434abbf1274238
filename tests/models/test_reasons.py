"""Attributions of one family add up to one reason, whatever the numbers, and the whole still adds up to the margin."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import Feature, InputError, ModelStore, ReasonIndex, ReasonText
from models.manifest import UNNAMED_ACTOR_TEXT
from tests.models.builders import draft

VELOCITY = ReasonText(family="ip_velocity", code="IP_VELOCITY", analyst="The IP is fast", actor="Your connection")
SHARING = ReasonText(family="sharing", code="SHARING", analyst="Many devices", actor="Your devices")


def features(*families: str) -> list[Feature]:
    return [Feature(ref=f"view:f{i}", code=f"F{i}", family=family) for i, family in enumerate(families)]


def index(*families: str) -> ReasonIndex:
    return ReasonIndex(features(*families), (VELOCITY, SHARING))


def test_features_of_one_family_are_one_reason_and_the_others_stand_alone() -> None:
    shares = np.array([1.0, -3.5, 2.0, 0.25])
    found = index("ip_velocity", "", "ip_velocity", "sharing").strongest(shares, 2, 3)
    assert [(r.meaning.code, r.attribution, r.places) for r in found.strongest] == [
        ("F1", -3.5, (1,)),
        ("IP_VELOCITY", 3.0, (2, 0)),
    ]
    assert found.rest == 0.25
    alone, family = (reason.meaning for reason in found.strongest)
    assert (alone.family, alone.analyst, alone.actor) == ("view:f1", "view:f1", UNNAMED_ACTOR_TEXT)
    assert (family.family, family.analyst, family.actor) == ("ip_velocity", "The IP is fast", "Your connection")


def test_the_strongest_features_of_a_reason_are_those_that_pull_its_way() -> None:
    found = index("sharing", "sharing", "sharing", "sharing").strongest(np.array([1.0, 0.75, -1.5, 0.0]), 1, 2)
    assert (found.strongest[0].attribution, found.strongest[0].places, found.strongest[0].rest) == (0.25, (0, 1), -1.5)


def test_a_family_whose_shares_cancel_out_is_no_reason() -> None:
    found = index("sharing", "sharing", "").strongest(np.array([1.0, -1.0, 0.0]), 5, 3)
    assert (found.strongest, found.rest) == ((), 0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from(["", "ip_velocity", "sharing"]), st.floats(-9, 9) | st.just(0.0)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 6),
    st.integers(1, 4),
)
def test_reasons_and_rest_add_up_to_the_attributions(
    rows: list[tuple[str, float]], count: int, features_max: int
) -> None:
    families, shares = [family for family, _ in rows], np.array([share for _, share in rows])
    found = index(*families).strongest(shares, count, features_max)
    sums = {}
    for place, (family, share) in enumerate(rows):
        name = family or f"view:f{place}"
        sums[name] = sums.get(name, 0.0) + share
    ranked = sorted((abs(total) for total in sums.values() if total), reverse=True)
    assert [abs(reason.attribution) for reason in found.strongest] == pytest.approx(ranked[:count])
    for reason in found.strongest:
        assert reason.attribution == pytest.approx(sums[reason.meaning.family], abs=1e-12)
        assert sum(shares[p] for p in reason.places) + reason.rest == pytest.approx(reason.attribution, abs=1e-12)
        assert 1 <= len(reason.places) <= features_max
    listed = sum(reason.attribution for reason in found.strongest)
    assert listed + found.rest == pytest.approx(shares.sum(), abs=1e-12)


def test_a_bundle_carries_its_catalogue_and_explains_itself(tmp_path: Path) -> None:
    plain = draft()
    grouped = tuple(msgspec.structs.replace(feature, family="ip_velocity") for feature in plain.card.features)
    card = msgspec.structs.replace(plain.card, features=grouped, reasons=(VELOCITY,))
    store = ModelStore(tmp_path)
    version = store.publish(dataclasses.replace(plain, card=card))
    bundle = store.load("ad_click_risk", version)
    rows = bundle.vector(np.array([[1.0, 5.0]]))
    explanation = bundle.explain(rows)
    (reason,) = bundle.top_reasons(explanation.attributions[0], 5).strongest
    assert (reason.meaning.code, reason.meaning.actor) == ("IP_VELOCITY", "Your connection")
    assert explanation.base_value + reason.attribution == pytest.approx(bundle.score(rows).margin[0])


@pytest.mark.parametrize(
    ("actor", "why"),
    [
        ("More than 300 clicks", "digits"),
        ("See ip_clicks_5m", "digits"),
        ("like actor_id", "underscores"),
        ("{value} clicks", "brackets"),
        ("  ", "words"),
        ("two\nlines", "one line"),
        ("a" * 201, "200 characters"),
    ],
)
def test_what_an_actor_is_told_gives_no_threshold_and_no_name_away(actor: str, why: str) -> None:
    with pytest.raises(InputError, match=why):
        msgspec.structs.replace(VELOCITY, actor=actor)


def test_a_catalogue_that_does_not_fit_the_features_is_refused() -> None:
    card = draft().card
    first, second = card.features
    with pytest.raises(InputError, match="have no reason"):
        msgspec.structs.replace(card, features=(msgspec.structs.replace(first, family="sharing"), second))
    with pytest.raises(InputError, match="a code of their own"):
        msgspec.structs.replace(card, reasons=(msgspec.structs.replace(VELOCITY, code=second.code),))
    with pytest.raises(InputError, match="ip_velocity"):
        msgspec.structs.replace(card, reasons=(VELOCITY, VELOCITY))
