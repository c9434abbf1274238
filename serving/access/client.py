"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass

from serving.access.buckets import Limit


@dataclass(frozen=True, slots=True)
class Client:
    """Somebody who may ask: `name` is the key's, or `token:` and the token's subject. `limit` None: as often as it
    likes."""

    name: str
    scopes: frozenset[str]
    limit: Limit | None


@dataclass(frozen=True, slots=True)
class Known:
    """What a valid key or token stands for, until `expires_ms`."""

    client: Client
    expires_ms: float
