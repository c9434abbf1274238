"""Which model answers under a name, and what happens when it cannot as it should: what `user_config` says of each.

models:
  ad_click_risk: champion               # an alias or a version, everything else as below
  advertiser_risk:
    champion: champion
    canary: {model: challenger, share: 0.05}   # of the actors, always the same ones
    shadows: [shadow]                   # scored after the answer, and only logged
    thresholds: {review: 0.4, block: 0.8}      # instead of the bundle's
    store_away: default                 # refuse (503), default (features count as not found) or fallback
    late: default                       # the same, when the request's own deadline comes first
    fallback_model: request_only        # for fallback: what needs no stored feature
    fallback_score: 0.02                # for fallback without that, and while the model is off
    is_on: true                         # the kill switch
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

import xxhash
from msgspec import Meta, Struct

from serving.decision import Thresholds

Without = Literal["refuse", "default", "fallback"]
Share = Annotated[float, Meta(ge=0, le=1)]

_HASHES = 1 << 64


class Canary(Struct, frozen=True, forbid_unknown_fields=True):
    """Another model for a share of the actors."""

    model: Annotated[str, Meta(min_length=1)]
    share: Share


class Policy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What answers under one name. `champion`, `canary`, `shadows` and `fallback_model` are aliases or versions."""

    champion: Annotated[str, Meta(min_length=1)]
    canary: Canary | None = None
    shadows: list[str] = []
    thresholds: Thresholds | None = None
    store_away: Without = "refuse"
    late: Without = "default"
    fallback_model: Annotated[str, Meta(min_length=1)] | None = None
    fallback_score: float | None = None
    is_on: bool = True

    def __post_init__(self) -> None:
        if not self.has_fallback and "fallback" in (self.store_away, self.late):
            raise ValueError("a policy that falls back must say fallback_score or fallback_model")
        if self.fallback_score is not None and not math.isfinite(self.fallback_score):
            raise ValueError("fallback_score must be a finite number")
        if self.thresholds is not None and not self.thresholds.review <= self.thresholds.block:
            raise ValueError("thresholds: review must not be above block")

    @property
    def names(self) -> list[str]:
        """Every alias or version that it names, each once."""
        canary = [] if self.canary is None else [self.canary.model]
        fallback = [] if self.fallback_model is None else [self.fallback_model]
        return list(dict.fromkeys([self.champion, *canary, *self.shadows, *fallback]))

    @property
    def has_fallback(self) -> bool:
        """Whether it names a model or a score to fall back to."""
        return self.fallback_model is not None or self.fallback_score is not None


class Choice(NamedTuple):
    """A policy that may be served, the number of the rollout that says so (0: the server's configuration), and why it
    cannot be, if that is known already."""

    policy: Policy
    rollout: int = 0
    refusal: str | None = None


def policy_of(said: str | Policy) -> Policy:
    """A policy, or the one of an alias or version alone."""
    return Policy(champion=said) if isinstance(said, str) else said


def is_canary(share: float, name: str, actor: Mapping[str, str | int]) -> bool:
    """Whether an actor is among the share whom the canary answers: always the same, under one name, on every replica.

    An actor that is in a share is in every larger one.
    """
    keys = "\x00".join(f"{key}={actor[key]}" for key in sorted(actor))
    return xxhash.xxh3_64_intdigest(f"{name}\x00{keys}".encode()) < round(share * _HASHES)
