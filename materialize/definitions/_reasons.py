"""The catalogue of reasons, read from the tags of a feature service: which features belong together, and what they say.

    reason:<family>:code      stable public identifier, IP_VELOCITY
    reason:<family>:analyst   what it says to people who review decisions
    reason:<family>:actor     what may be shown to the actor
    reason:<family>:features  names of features, `*` for any signs: "ip_clicks_* ip_impressions_*"

The tags are the service's and not the views', because Feast stores the source of a view's function with everything
around it: words there would change the meaning of rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from materialize.definitions._errors import DefinitionError
from materialize.definitions._types import ReasonFamily

PREFIX = "reason:"
_PARTS = ("code", "analyst", "actor", "features")
_TAG = re.compile(rf"{PREFIX}([a-z][a-z0-9_]*):({'|'.join(_PARTS)})")


def reason_families(service: str, tags: Mapping[str, str]) -> tuple[ReasonFamily, ...]:
    """The reasons that the tags name, by name. Raises DefinitionError for an incomplete one."""
    entries = _entries(service, tags)
    return tuple(ReasonFamily(name, of["code"], of["analyst"], of["actor"]) for name, of in sorted(entries.items()))


def families_of(service: str, tags: Mapping[str, str], features: Sequence[str]) -> tuple[str, ...]:
    """For each feature the name of its reason, or "".

    Raises DefinitionError for a feature with two reasons, and for a name or pattern that no feature has.
    """
    found: dict[str, str] = {}
    for family, entry in sorted(_entries(service, tags).items()):
        for pattern in entry["features"].split():
            matches = [feature for feature in features if fnmatchcase(feature, pattern)]
            if not matches:
                raise DefinitionError(
                    f"service {service!r}: reason {family!r} names {pattern!r}, which is no feature of it: correct the "
                    "tag, or take it out"
                )
            for feature in matches:
                if found.setdefault(feature, family) != family:
                    raise DefinitionError(
                        f"service {service!r}: {feature!r} is in the reasons {found[feature]!r} and {family!r}, "
                        "its attribution can be added to one only: correct the patterns"
                    )
    return tuple(found.get(feature, "") for feature in features)


def _entries(service: str, tags: Mapping[str, str]) -> dict[str, dict[str, str]]:
    entries: dict[str, dict[str, str]] = {}
    for tag, text in tags.items():
        if not tag.startswith(PREFIX):
            continue
        parts = _TAG.fullmatch(tag)
        if parts is None:
            raise DefinitionError(
                f"service {service!r}: no such tag as {tag!r}: write reason:<family>:<part>, a part is one of "
                f"{', '.join(_PARTS)}"
            )
        entries.setdefault(parts[1], {})[parts[2]] = text
    for family, entry in entries.items():
        absent = [part for part in _PARTS if not entry.get(part, "").strip()]
        if absent:
            raise DefinitionError(f"service {service!r}: reason {family!r} lacks {', '.join(absent)}: add these tags")
    return entries
