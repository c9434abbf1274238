"""What readers of the decision log share of its records: each reads what it needs, and passes over whatever else stands
there, so that records of older and newer servers can be read."""

from __future__ import annotations

from msgspec import Struct


class Version(Struct, frozen=True):
    """A model by its version."""

    name: str
    version: str


class Service(Struct, frozen=True):
    """A feature service by the fingerprint of its definition."""

    name: str
    fingerprint: str
