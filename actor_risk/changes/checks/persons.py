"""AR404: what is known of a person carries a `pii` tag, by which reports leave its values out.

`pii` in the tags of a view names its personal join keys and columns: `{"pii": "ip device_id"}`. In the tags of a
feature it says that the feature's own values are personal.
"""

from __future__ import annotations

from collections.abc import Iterator

from actor_risk.changes.described import RepoDefinition, ViewDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.wording import listed
from materialize.personal import PII, tagged

WORDS = (
    "ip",
    "ip_address",
    "device_id",
    "device_fingerprint",
    "email",
    "email_address",
    "phone",
    "phone_number",
    "msisdn",
    "user_agent",
    "name",
    "address",
    "street",
    "postcode",
    "zip_code",
    "birth_date",
    "birthday",
    "date_of_birth",
    "card",
    "card_number",
    "card_id",
    "iban",
    "ssn",
    "tax_id",
    "passport",
    "cookie",
    "idfa",
    "gaid",
    "imei",
    "mac_address",
)
"""A key or a field of text is personal where it is called so, or ends in it."""

PLACES = ("lat", "lon", "lng", "latitude", "longitude")
"""Numbers that are personal."""

NOT_OF_A_PERSON = ("company_name", "campaign_name", "os_name", "app_name", "event_name", "model_name", "browser_name")
TEXT = frozenset({"STRING", "BYTES"})


def find_persons(repo: RepoDefinition) -> Iterator[Finding]:
    """One finding for each view with personal keys or fields that no tag names."""
    for view in repo.views:
        known = tagged(view.tags)
        keys = [key for key in view.keys if is_personal(key, "STRING") and key not in known]
        fields = [
            one.name
            for one in view.features
            if is_personal(one.name, one.kind) and one.name not in known and not one.tags.get(PII)
        ]
        if keys or fields:
            yield _untagged(view, keys, fields)


def is_personal(name: str, kind: str) -> bool:
    """Whether a key or field of that name and Feast value type is about a person."""
    words = WORDS if kind in TEXT else PLACES
    return name not in NOT_OF_A_PERSON and any(name == word or name.endswith(f"_{word}") for word in words)


def _untagged(view: ViewDefinition, keys: list[str], fields: list[str]) -> Finding:
    names = " ".join(dict.fromkeys([*tagged(view.tags), *keys, *fields]))
    about = [f"is keyed by {listed(keys)}"] if keys else []
    about += [f"has {listed(fields)}"] if fields else []
    return Finding(
        code="AR404",
        subject=f"{view.name}:{fields[0]}" if len(fields) == 1 and not keys else view.name,
        message=f"`{view.name}` {' and '.join(about)}, and no `pii` tag says so: reports and logs would show values.",
        instead=f'tags={{"pii": "{names}"}} of `{view.name}`',
        place=view.place,
    )
