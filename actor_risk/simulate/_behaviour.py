"""How the accounts of each pattern behave before and during abuse: overlapping ranges, never separate ones."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from actor_risk.simulate._arrays import FloatArray, IntArray, happens


class Pattern(IntEnum):
    """What an advertiser turns out to be; the value indexes the tables below."""

    HONEST = 0
    STOLEN_CARD = 1
    ACCOUNT_FARM = 2
    RESELLER_RING = 3


# One row per pattern, for the time after the abuse has begun: the two parameters of a beta distribution …
_FAIL_SHARE = ((1, 14), (4, 8), (4, 12), (1, 12))
_REJECT_SHARE = ((1, 9), (2, 12), (3, 12), (6, 11))
_APPEAL_SHARE = ((2, 10), (2, 12), (1, 12), (7, 8))
# … and how many payments and ads a session has, against an honest one.
_PAYMENTS = (1.0, 1.3, 1.0, 1.1)
_ADS = (1.0, 1.1, 1.0, 2.4)


@dataclass(frozen=True)
class AccountBehaviour:
    """Per advertiser; shape (2, n) with row 0 for the time before abuse begins and row 1 after, but for `travels`.

    Shares are of payments (failed), of submitted ads (rejected) and of rejected ads (appealed); `payments` and `ads`
    are means per session; `travels`, shape (n,), is the share of sessions from anywhere in the world.
    """

    fail_share: FloatArray
    reject_share: FloatArray
    appeal_share: FloatArray
    payments: FloatArray
    ads: FloatArray
    travels: FloatArray


def account_behaviour(rng: np.random.Generator, pattern: IntArray) -> AccountBehaviour:
    """The behaviour of advertisers with these patterns."""
    n = len(pattern)
    # Some honest advertisers sell what reviewers often reject.
    honest_rejects = np.where(happens(rng, 0.08, n), rng.beta(5, 15, n), rng.beta(1, 15, n))
    return AccountBehaviour(
        fail_share=np.stack([rng.beta(1, 14, n), _betas(rng, _FAIL_SHARE, pattern)]),
        reject_share=np.stack([honest_rejects, _betas(rng, _REJECT_SHARE, pattern)]),
        appeal_share=np.stack([rng.beta(2, 10, n), _betas(rng, _APPEAL_SHARE, pattern)]),
        payments=np.stack([rng.gamma(3, 0.2, n), rng.gamma(3, 0.2, n) * np.array(_PAYMENTS)[pattern]]),
        ads=np.stack([rng.gamma(3, 0.3, n), rng.gamma(3, 0.3, n) * np.array(_ADS)[pattern]]),
        travels=np.where(happens(rng, 0.25, n), 0.3, 0.03),
    )


def _betas(rng: np.random.Generator, table: tuple[tuple[int, int], ...], pattern: IntArray) -> FloatArray:
    parameters = np.array(table, dtype=np.float64)[pattern]
    return np.asarray(rng.beta(parameters[:, 0], parameters[:, 1]))
