"""From batches of indices to Arrow tables of names, sorted by event time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from actor_risk.simulate._account_batch import ACCOUNT_EVENT_TYPES, ACTOR_TYPES, AccountBatch, ActorType
from actor_risk.simulate._arrays import FloatArray, IntArray, lognormal_ms
from actor_risk.simulate._exposures import AD_EVENT_TYPES, AdBatch
from actor_risk.simulate._places import COUNTRIES, OS_NAMES
from actor_risk.simulate._schemas import ACCOUNT_EVENTS_SCHEMA, AD_EVENTS_SCHEMA, TIME
from actor_risk.simulate._world import World

_INGESTION_MS = (120, 20_000)


@dataclass(frozen=True)
class Names:
    """What the indices of a batch are called, and the country and os that go with an ip and a device."""

    advertisers: pa.StringArray
    creators: pa.StringArray
    ips: pa.StringArray
    devices: pa.StringArray
    ip_country: IntArray
    device_os: IntArray


def names_of(world: World) -> Names:
    """The names of everybody in a world: `advertiser-12`, `creator-7`, `ip-3`, `device-40`."""
    settings = world.settings
    return Names(
        advertisers=numbered("advertiser", settings.advertisers),
        creators=numbered("creator", settings.creators),
        ips=numbered("ip", settings.ips),
        devices=numbered("device", settings.devices),
        ip_country=world.places.ip_country,
        device_os=world.places.device_os,
    )


def ad_table(batch: AdBatch, names: Names, rng: np.random.Generator, id_prefix: str) -> pa.Table:
    """The batch in the schema of `ad_events`, in its own order."""
    columns = [
        numbered(id_prefix, len(batch.time_ms)),
        instants(batch.time_ms),
        instants(batch.time_ms + _ingestion_ms(rng, len(batch.time_ms))),
        spelled(AD_EVENT_TYPES, batch.kind),
        named(names.advertisers, batch.advertiser),
        named(names.creators, batch.creator),
        named(names.ips, batch.ip),
        named(names.devices, batch.device),
        spelled(OS_NAMES, names.device_os[batch.device]),
        spelled(COUNTRIES, names.ip_country[batch.ip]),
        amounts(batch.amount_usd),
        pa.array(batch.since_ms, mask=batch.since_ms < 0),
    ]
    return pa.Table.from_arrays(columns, schema=AD_EVENTS_SCHEMA)


def account_table(batch: AccountBatch, names: Names, rng: np.random.Generator, id_prefix: str) -> pa.Table:
    """The batch in the schema of `account_events`, in its own order."""
    actors = pa.concat_arrays([names.advertisers, names.creators])
    actor = batch.actor + np.where(batch.actor_type == ActorType.CREATOR, len(names.advertisers), 0)
    columns = [
        numbered(id_prefix, len(batch.time_ms)),
        instants(batch.time_ms),
        instants(batch.time_ms + _ingestion_ms(rng, len(batch.time_ms))),
        spelled(ACCOUNT_EVENT_TYPES, batch.kind),
        spelled(ACTOR_TYPES, batch.actor_type),
        named(actors, actor),
        named(names.ips, batch.ip),
        named(names.devices, batch.device),
        spelled(COUNTRIES, names.ip_country[batch.ip]),
        amounts(batch.amount_usd),
    ]
    return pa.Table.from_arrays(columns, schema=ACCOUNT_EVENTS_SCHEMA)


def numbered(prefix: str, n: int) -> pa.StringArray:
    """`prefix-0` to `prefix-(n-1)`."""
    return pc.binary_join_element_wise(pa.scalar(prefix), pa.array(np.arange(n)).cast(pa.string()), "-")


def named(names: pa.StringArray, index: IntArray) -> pa.StringArray:
    """The name of each index."""
    return names.take(pa.array(index))


def spelled(words: Sequence[str], index: IntArray) -> pa.StringArray:
    """The word of each index."""
    return named(pa.array(words, pa.string()), index)


def instants(time_ms: IntArray) -> pa.Array:
    """Milliseconds UTC as Arrow timestamps."""
    return pa.array(time_ms.astype("datetime64[ms]")).cast(TIME)


def amounts(usd: FloatArray) -> pa.Array:
    """Amounts, null where NaN."""
    return pa.array(usd, mask=np.isnan(usd))


def _ingestion_ms(rng: np.random.Generator, n: int) -> IntArray:
    """From an event to its place in the log: about half a second, some seconds for a few."""
    return np.clip(lognormal_ms(rng, 450, 0.9, n), *_INGESTION_MS)
