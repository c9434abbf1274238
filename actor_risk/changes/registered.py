"""What a registry defines, as one digest for each definition: to see that it changed, and what of it."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

NAMED_MAX = 6
"""So many changes are named in a line; of more, it is said how many there are."""

_PLURALS = {"entity": "entities", "source": "sources", "view": "views", "service": "services"}


class Registered(msgspec.Struct, frozen=True):
    """parts: `kind name` → the digest of that definition."""

    parts: dict[str, str] = {}

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any definition; "" without any."""
        return digest(sorted(self.parts.items())) if self.parts else ""


def differences(before: Registered, after: Registered) -> list[str]:
    """What differs, each as `changed view ip_ad_stats`, in the order of the names."""
    names = sorted({*before.parts, *after.parts})
    return [
        f"{_what(before.parts.get(name), after.parts.get(name))} {name}"
        for name in names
        if before.parts.get(name) != after.parts.get(name)
    ]


def _what(before: str | None, after: str | None) -> str:
    return "added" if before is None else "removed" if after is None else "changed"


def counted(registered: Registered) -> list[str]:
    """How many definitions there are of each kind, each as `3 views`."""
    found = Counter(name.partition(" ")[0] for name in registered.parts)
    return [f"{count} {kind if count == 1 else _PLURALS[kind]}" for kind, count in sorted(found.items())]


def in_a_line(changes: Sequence[str]) -> str:
    """The changes, the first of them by name."""
    named, rest = changes[:NAMED_MAX], len(changes) - NAMED_MAX
    return ", ".join([*named, *([f"and {rest} more"] if rest > 0 else [])])


def digest(value: Any) -> str:
    """16 hexadecimal digits of what JSON can write; the order of keys does not count."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
