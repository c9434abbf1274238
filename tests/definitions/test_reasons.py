"""The catalogue of reasons in a feature service's tags."""

from __future__ import annotations

import pytest

from materialize.definitions import DefinitionError, ReasonFamily
from materialize.definitions._reasons import families_of, reason_families

FEATURES = ["ip_clicks_5m", "ip_clicks_1h", "ip_fast_clicks_1h", "device_age"]


def tags(family: str, features: str, **changes: str) -> dict[str, str]:
    parts = {"code": family.upper(), "analyst": "What it is", "actor": "Your traffic", "features": features} | changes
    return {f"reason:{family}:{part}": text for part, text in parts.items() if text}


def test_features_belong_to_the_family_whose_pattern_they_match() -> None:
    named = tags("velocity", "ip_clicks_*") | tags("fast", "ip_fast_clicks_1h") | {"tier": "1"}
    assert families_of("s", named, FEATURES) == ("velocity", "velocity", "fast", "")
    assert reason_families("s", named) == (
        ReasonFamily("fast", "FAST", "What it is", "Your traffic"),
        ReasonFamily("velocity", "VELOCITY", "What it is", "Your traffic"),
    )


def test_a_service_without_a_catalogue_has_no_families() -> None:
    assert families_of("s", {"tier": "1"}, FEATURES) == ("", "", "", "")
    assert reason_families("s", {}) == ()


@pytest.mark.parametrize(
    ("named", "why"),
    [
        (tags("velocity", "ip_click_*"), "no feature of it"),
        (tags("velocity", "ip_*") | tags("fast", "ip_fast_*"), "'ip_fast_clicks_1h' is in the reasons"),
        (tags("velocity", "ip_*", actor="", code=""), "lacks code, actor"),
        (tags("velocity", "ip_*") | {"reason:velocity:colour": "red"}, "no such tag"),
        ({"reason:Velocity:code": "V"}, "no such tag"),
    ],
)
def test_a_catalogue_that_cannot_be_meant_is_refused(named: dict[str, str], why: str) -> None:
    with pytest.raises(DefinitionError, match=why):
        families_of("s", named, FEATURES)
