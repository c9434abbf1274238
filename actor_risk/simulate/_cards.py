"""Runs of card payments: burst spending on stolen cards, and the honest runs that resemble it.

The demo's burst and the history of a whole world come from the same `card_runs`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actor_risk.simulate._account_batch import AccountBatch, AccountKind, events_of
from actor_risk.simulate._arrays import HOUR_MS, MINUTE_MS, SECOND_MS, FloatArray, IntArray, happens, lognormal_ms
from actor_risk.simulate._episodes import Episodes

_AT_ONCE = 0.35


@dataclass(frozen=True)
class CardBehaviour:
    """How one kind of payment run goes, one value per run.

    `fail_share` and `chargeback_share` are of the attempts and of the payments that went through, `median_usd` is
    the amount of one payment.
    """

    fail_share: FloatArray
    chargeback_share: FloatArray
    median_usd: FloatArray


def card_runs(
    rng: np.random.Generator, runs: Episodes, how: CardBehaviour, ip: IntArray, device: IntArray
) -> AccountBatch:
    """Payments, failed payments, chargebacks, logins and submitted ads of these runs; `runs.group` is the actor.

    `ip` and `device` have one value per attempt, in the order of the runs: `runs.size.sum()` in all.
    """
    run = np.repeat(np.arange(len(runs.size)), runs.size)
    n = len(run)
    actor = runs.group[run]
    time_ms = runs.start_ms[run] + (rng.random(n) ** 0.8 * runs.duration_ms[run]).astype(np.int64)
    failed = happens(rng, how.fail_share[run], n)
    amount_usd = how.median_usd[run] * np.exp(0.7 * rng.standard_normal(n))
    kind = np.where(failed, AccountKind.PAYMENT_FAILED, AccountKind.PAYMENT)
    paid = np.flatnonzero(~failed)
    disputed = paid[happens(rng, how.chargeback_share[run[paid]], len(paid))]
    promoted = paid[happens(rng, 0.35, len(paid))]
    logged_in = np.flatnonzero(happens(rng, 0.2, n))
    return AccountBatch.join(
        [
            events_of(kind, time_ms, actor, ip, device, amount_usd),
            events_of(
                AccountKind.CHARGEBACK,
                time_ms[disputed] + dispute_delays_ms(rng, len(disputed)),
                actor[disputed],
                ip[disputed],
                device[disputed],
                amount_usd[disputed],
            ),
            events_of(
                AccountKind.AD_SUBMITTED,
                time_ms[promoted] + lognormal_ms(rng, 2 * MINUTE_MS, 0.8, len(promoted)),
                actor[promoted],
                ip[promoted],
                device[promoted],
            ),
            events_of(
                AccountKind.LOGIN,
                time_ms[logged_in] - lognormal_ms(rng, 40 * SECOND_MS, 0.6, len(logged_in)),
                actor[logged_in],
                ip[logged_in],
                device[logged_in],
            ),
        ]
    )


def dispute_delays_ms(rng: np.random.Generator, n: int) -> IntArray:
    """From a payment to its chargeback: minutes where the issuer's own alarm rings, else about a day and a half."""
    alarm = lognormal_ms(rng, 12 * MINUTE_MS, 0.8, n)
    complaint = lognormal_ms(rng, 36 * HOUR_MS, 0.7, n)
    return np.where(happens(rng, _AT_ONCE, n), alarm, complaint)


def stolen_card_behaviour(rng: np.random.Generator, n: int) -> CardBehaviour:
    """n runs on stolen cards: many cards are refused, many payments are disputed."""
    return CardBehaviour(rng.beta(10, 12, n), rng.beta(4, 9, n), 180 * np.exp(0.5 * rng.standard_normal(n)))


def expired_card_behaviour(rng: np.random.Generator, n: int) -> CardBehaviour:
    """n honest runs of someone whose card does not work and who tries again."""
    return CardBehaviour(rng.beta(8, 3, n), np.full(n, 0.004), 110 * np.exp(0.6 * rng.standard_normal(n)))


def sales_season_behaviour(rng: np.random.Generator, n: int) -> CardBehaviour:
    """n honest runs of top-ups in a sale."""
    return CardBehaviour(rng.beta(1, 9, n), np.full(n, 0.01), 200 * np.exp(0.6 * rng.standard_normal(n)))
