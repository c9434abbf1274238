"""Account events as columns, before they become a table."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from actor_risk.simulate._arrays import FloatArray, IntArray
from actor_risk.simulate._rows import Rows


class AccountKind(IntEnum):
    """Event types of `account_events`; the value indexes `ACCOUNT_EVENT_TYPES`."""

    SIGNUP = 0
    LOGIN = 1
    LOGIN_FAILED = 2
    PAYMENT = 3
    PAYMENT_FAILED = 4
    CHARGEBACK = 5
    AD_SUBMITTED = 6
    AD_REJECTED = 7
    FOLLOW = 8
    APPEAL = 9


ACCOUNT_EVENT_TYPES = tuple(kind.name.lower() for kind in AccountKind)

BY_THE_ACTOR = (
    AccountKind.SIGNUP,
    AccountKind.LOGIN,
    AccountKind.PAYMENT,
    AccountKind.PAYMENT_FAILED,
    AccountKind.AD_SUBMITTED,
    AccountKind.APPEAL,
)
"""What an advertiser does of its own accord: the moments at which its account may be judged."""


class ActorType(IntEnum):
    """Actor types of `account_events`; the value indexes `ACTOR_TYPES`."""

    ADVERTISER = 0
    CREATOR = 1


ACTOR_TYPES = ("advertiser", "creator")


@dataclass(frozen=True)
class AccountBatch(Rows):
    """Account events, unsorted. `amount_usd` is NaN where no money moved."""

    time_ms: IntArray
    kind: IntArray
    actor_type: IntArray
    actor: IntArray
    ip: IntArray
    device: IntArray
    amount_usd: FloatArray


def events_of(
    kind: AccountKind | IntArray,
    time_ms: IntArray,
    actor: IntArray,
    ip: IntArray,
    device: IntArray,
    amount_usd: FloatArray | None = None,
    actor_type: ActorType = ActorType.ADVERTISER,
) -> AccountBatch:
    """A batch of events of one kind (or of one kind each) by actors of one type."""
    n = len(time_ms)
    return AccountBatch(
        time_ms=time_ms,
        kind=np.broadcast_to(np.asarray(kind, dtype=np.int64), n),
        actor_type=np.full(n, actor_type, dtype=np.int64),
        actor=actor,
        ip=ip,
        device=device,
        amount_usd=np.full(n, np.nan) if amount_usd is None else np.round(amount_usd, 2),
    )
