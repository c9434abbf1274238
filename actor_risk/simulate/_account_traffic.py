"""What the accounts of advertisers and creators do, honest and abusive."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from actor_risk.simulate._account_batch import AccountBatch, AccountKind, ActorType, events_of
from actor_risk.simulate._arrays import (
    HOUR_MS,
    MINUTE_MS,
    SECOND_MS,
    IntArray,
    cumulative,
    draw_by,
    happens,
    lognormal_ms,
)
from actor_risk.simulate._behaviour import Pattern
from actor_risk.simulate._cards import (
    CardBehaviour,
    card_runs,
    dispute_delays_ms,
    expired_card_behaviour,
    sales_season_behaviour,
    stolen_card_behaviour,
)
from actor_risk.simulate._episodes import Episodes
from actor_risk.simulate._rhythm import Rhythm, daily_rhythm
from actor_risk.simulate._world import Stream, World, random_stream

_ADVERTISERS_SHARE = 0.55
_EVENTS_PER_SESSION = 2.9
_EVENTS_PER_CREATOR_SESSION = 2.4
_RING_SHARE = 0.75


@dataclass(frozen=True)
class _Sessions:
    """Sessions of advertisers; `phase` is 1 from the moment on from which the account is abusive."""

    time_ms: IntArray
    actor: IntArray
    phase: IntArray
    ip: IntArray
    device: IntArray


def account_traffic(world: World) -> AccountBatch:
    """All account events of a world, unsorted, some of them outside the span."""
    rng = random_stream(world.settings.seed, Stream.ACCOUNTS)
    rhythm = daily_rhythm(rng, world.settings.start_ms, world.settings.end_ms)
    card_runs_rng = random_stream(world.settings.seed, Stream.CARDS)
    by_advertisers = AccountBatch.join([_routine(rng, world, rhythm), _all_card_runs(card_runs_rng, world, rhythm)])
    by_advertisers = _while_open(world, by_advertisers)
    total = int(world.settings.account_events_per_day * world.settings.days)
    rest = max(total - len(by_advertisers.time_ms), total // 5)
    by_creators = _creator_routine(rng, world, rhythm, int(rest / _EVENTS_PER_CREATOR_SESSION))
    signups = [_signups(world, ActorType.ADVERTISER), _signups(world, ActorType.CREATOR)]
    return AccountBatch.join([by_advertisers, by_creators, *signups])


def _routine(rng: np.random.Generator, world: World, rhythm: Rhythm) -> AccountBatch:
    """Sessions of advertisers: they log in, submit ads and pay; reviewers and banks answer later."""
    sessions = _advertiser_sessions(rng, world, rhythm)
    who, phase = sessions.actor, sessions.phase
    ads = np.repeat(np.arange(len(who)), rng.poisson(world.advertisers.behaviour.ads[phase, who]))
    attempts = np.repeat(np.arange(len(who)), rng.poisson(world.advertisers.behaviour.payments[phase, who]))
    return AccountBatch.join(
        [
            _in_session(AccountKind.LOGIN, sessions, np.arange(len(who)), np.zeros(len(who), dtype=np.int64)),
            _mistyped(rng, sessions),
            _reviewed_ads(rng, world, sessions, ads),
            _routine_payments(rng, world, sessions, attempts),
        ]
    )


def _advertiser_sessions(rng: np.random.Generator, world: World, rhythm: Rhythm) -> _Sessions:
    everyone = world.advertisers
    total = world.settings.account_events_per_day * world.settings.days * _ADVERTISERS_SHARE
    n = int(total / _EVENTS_PER_SESSION)
    actor = draw_by(rng, cumulative(everyone.activity), n)
    time_ms = rhythm.sample(rng, n)
    phase = (time_ms >= everyone.begin_ms[actor]).astype(np.int64)
    choice = happens(rng, 0.15, n).astype(np.int64)
    with_ring = (phase == 1) & happens(rng, _RING_SHARE, n)
    own_ip = np.where(
        happens(rng, everyone.behaviour.travels[actor], n),
        rng.integers(0, world.settings.ips, n),
        everyone.own_ip[actor, choice],
    )
    return _Sessions(
        time_ms=time_ms,
        actor=actor,
        phase=phase,
        ip=np.where(with_ring, everyone.ring_ip[actor, choice], own_ip),
        device=np.where(with_ring, everyone.ring_device[actor, choice], everyone.own_device[actor, choice]),
    )


def _in_session(kind: AccountKind, sessions: _Sessions, row: IntArray, after_ms: IntArray) -> AccountBatch:
    """Events of one kind in the given sessions, some time after their start."""
    time_ms = sessions.time_ms[row] + after_ms
    return events_of(kind, time_ms, sessions.actor[row], sessions.ip[row], sessions.device[row])


def _mistyped(rng: np.random.Generator, sessions: _Sessions) -> AccountBatch:
    row = np.repeat(np.arange(len(sessions.actor)), rng.poisson(0.08, len(sessions.actor)))
    return _in_session(AccountKind.LOGIN_FAILED, sessions, row, -lognormal_ms(rng, 15 * SECOND_MS, 0.7, len(row)))


def _reviewed_ads(rng: np.random.Generator, world: World, sessions: _Sessions, row: IntArray) -> AccountBatch:
    """Submitted ads, the rejections of some, and the appeals against some of these."""
    actor, phase = sessions.actor[row], sessions.phase[row]
    submitted_ms = lognormal_ms(rng, 6 * MINUTE_MS, 0.9, len(row))
    rejected = np.flatnonzero(happens(rng, world.advertisers.behaviour.reject_share[phase, actor], len(row)))
    rejected_ms = submitted_ms[rejected] + lognormal_ms(rng, 35 * MINUTE_MS, 0.9, len(rejected))
    appeals = world.advertisers.behaviour.appeal_share[phase[rejected], actor[rejected]]
    appealed = np.flatnonzero(happens(rng, appeals, len(rejected)))
    appealed_ms = rejected_ms[appealed] + lognormal_ms(rng, 2 * HOUR_MS, 1.0, len(appealed))
    return AccountBatch.join(
        [
            _in_session(AccountKind.AD_SUBMITTED, sessions, row, submitted_ms),
            _in_session(AccountKind.AD_REJECTED, sessions, row[rejected], rejected_ms),
            _in_session(AccountKind.APPEAL, sessions, row[rejected][appealed], appealed_ms),
        ]
    )


def _routine_payments(rng: np.random.Generator, world: World, sessions: _Sessions, row: IntArray) -> AccountBatch:
    """Payments of ordinary sessions; a few fail, very few are disputed."""
    n = len(row)
    actor = sessions.actor[row]
    time_ms = sessions.time_ms[row] + lognormal_ms(rng, 4 * MINUTE_MS, 0.8, n)
    amount_usd = 120 * np.exp(0.9 * rng.standard_normal(n))
    failed = happens(rng, world.advertisers.behaviour.fail_share[sessions.phase[row], actor], n)
    kind = np.where(failed, AccountKind.PAYMENT_FAILED, AccountKind.PAYMENT)
    disputed = np.flatnonzero(~failed & happens(rng, 0.006, n))
    delays_ms = dispute_delays_ms(rng, len(disputed))
    ip, device = sessions.ip[row], sessions.device[row]
    return AccountBatch.join(
        [
            events_of(kind, time_ms, actor, ip, device, amount_usd),
            events_of(
                AccountKind.CHARGEBACK,
                time_ms[disputed] + delays_ms,
                actor[disputed],
                ip[disputed],
                device[disputed],
                amount_usd[disputed],
            ),
        ]
    )


def _all_card_runs(rng: np.random.Generator, world: World, rhythm: Rhythm) -> AccountBatch:
    """Stolen cards, and the honest: broken cards and sales seasons, as many of each as the span is long."""
    stolen = np.flatnonzero(world.advertisers.pattern == Pattern.STOLEN_CARD)
    honest = np.flatnonzero(~world.advertisers.abusive)
    weeks = world.settings.days / 10
    broken = _honest_runs(rng, world, rhythm, honest, int(len(honest) * 0.4 * weeks) + 1, (2, 12))
    seasons = _honest_runs(rng, world, rhythm, honest, int(len(honest) * 0.15 * weeks) + 1, (5, 45))
    return AccountBatch.join(
        [
            _stolen_runs(rng, world, stolen),
            _run(rng, world, broken, expired_card_behaviour(rng, len(broken.group)), strange_share=0.04),
            _run(rng, world, seasons, sales_season_behaviour(rng, len(seasons.group)), strange_share=0.08),
        ]
    )


def _stolen_runs(rng: np.random.Generator, world: World, actors: IntArray) -> AccountBatch:
    """One to four bursts by each account, the first right at the begin of its abuse."""
    bursts = rng.integers(1, 5, len(actors))
    group = np.repeat(actors, bursts)
    nth = np.arange(len(group)) - np.repeat(np.cumsum(bursts) - bursts, bursts)
    pause_ms = (nth * lognormal_ms(rng, 14 * HOUR_MS, 0.6, len(group))).astype(np.int64)
    runs = Episodes(
        group,
        world.advertisers.begin_ms[group] + pause_ms,
        lognormal_ms(rng, 80 * MINUTE_MS, 1.0, len(group)),
        rng.integers(4, 40, len(group)),
    )
    return _run(rng, world, runs, stolen_card_behaviour(rng, len(group)), strange_share=0.7)


def _honest_runs(
    rng: np.random.Generator, world: World, rhythm: Rhythm, honest: IntArray, n: int, size: tuple[int, int]
) -> Episodes:
    actors = honest[draw_by(rng, cumulative(world.advertisers.activity[honest]), n)]
    return Episodes(actors, rhythm.sample(rng, n), lognormal_ms(rng, 70 * MINUTE_MS, 1.0, n), rng.integers(*size, n))


def _run(
    rng: np.random.Generator, world: World, runs: Episodes, how: CardBehaviour, strange_share: float
) -> AccountBatch:
    """The runs, with a share of attempts from strange ips: the thief's two, or ones from all over the world."""
    actor = np.repeat(runs.group, runs.size)
    n = len(actor)
    choice = happens(rng, 0.3, n).astype(np.int64)
    strange = happens(rng, strange_share, n)
    anywhere = np.where(
        happens(rng, 0.4, n), rng.integers(0, world.settings.ips, n), world.advertisers.ring_ip[actor, choice]
    )
    ip = np.where(strange, anywhere, world.advertisers.own_ip[actor, choice])
    device = np.where(
        strange, world.advertisers.ring_device[actor, choice], world.advertisers.own_device[actor, choice]
    )
    return card_runs(rng, runs, how, ip, device)


def _signups(world: World, actor_type: ActorType) -> AccountBatch:
    """The signups of everybody who joined; most of them lie before the span."""
    if actor_type is ActorType.CREATOR:
        everyone = np.arange(len(world.creators.signup_ms))
        ip, device, time_ms = world.creators.ip, world.creators.device, world.creators.signup_ms
    else:
        everyone = np.arange(len(world.advertisers.signup_ms))
        ip, device = world.advertisers.own_ip[:, 0], world.advertisers.own_device[:, 0]
        time_ms = world.advertisers.signup_ms
    return events_of(AccountKind.SIGNUP, time_ms, everyone, ip, device, actor_type=actor_type)


def _while_open(world: World, batch: AccountBatch) -> AccountBatch:
    """Events from the signup of each account up to its closing."""
    signup_ms = world.advertisers.signup_ms[batch.actor]
    closed_ms = world.advertisers.closed_ms[batch.actor]
    return batch.take((batch.time_ms >= signup_ms) & (batch.time_ms < closed_ms))


def _creator_routine(rng: np.random.Generator, world: World, rhythm: Rhythm, n: int) -> AccountBatch:
    """Sessions of creators: they log in, follow others, and now and then appeal."""
    time_ms = rhythm.sample(rng, n)
    drawn = draw_by(rng, cumulative(world.creators.popularity**0.5), n)
    old = np.flatnonzero(world.creators.signup_ms < world.settings.start_ms)
    joined = world.creators.signup_ms[drawn] <= time_ms
    actor = np.where(joined, drawn, old[rng.integers(0, len(old), n)])
    away = happens(rng, 0.2, n)
    ip = np.where(away, world.places.second_ip[world.creators.device[actor]], world.creators.ip[actor])
    sessions = _Sessions(time_ms, actor, np.zeros(n, dtype=np.int64), ip, world.creators.device[actor])
    follows = np.repeat(np.arange(n), rng.poisson(1.3, n))
    appeals = np.flatnonzero(happens(rng, 0.01, n))
    parts = [
        _in_session(AccountKind.LOGIN, sessions, np.arange(n), np.zeros(n, dtype=np.int64)),
        _mistyped(rng, sessions),
        _in_session(AccountKind.FOLLOW, sessions, follows, lognormal_ms(rng, 3 * MINUTE_MS, 1.0, len(follows))),
        _in_session(AccountKind.APPEAL, sessions, appeals, lognormal_ms(rng, 5 * MINUTE_MS, 0.8, len(appeals))),
    ]
    batch = AccountBatch.join(parts)
    return replace(batch, actor_type=np.full_like(batch.actor_type, ActorType.CREATOR))
