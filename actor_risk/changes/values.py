"""What the values of features look like on a sample, in the old version and in the new one: plain data."""

from __future__ import annotations

import msgspec

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The values of one feature on the sample's queries.

    low, high, mean, quantiles (of QUANTILES): of those that are numbers, None without any. infinite: of those that have
    no end. histogram: counts between `edges`; the old and the new profile of a feature have the same edges. label_auc:
    of the feature alone against the label, 0.5 to 1, None without label. masked: the feature is tagged `pii`: nothing
    that is one actor's value is kept.
    """

    rows: int
    nulls: int
    distinct: int
    infinite: int = 0
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    quantiles: tuple[float, ...] = ()
    edges: tuple[float, ...] = ()
    histogram: tuple[int, ...] = ()
    label_correlation: float | None = None
    label_auc: float | None = None
    masked: bool = False


class FeatureValues(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One feature in both versions. drift: PSI old → new, None unless both have values.

    changed: queries with another value.
    """

    feature: str
    old: Profile | None
    new: Profile | None
    drift: float | None = None
    changed: int = 0


class SampleValues(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All features. events: of the sample; queries: rows that were evaluated; label: its name, "" without one.

    leaks: `view:feature` → in how many of the queries its value changed when later events were left out.
    """

    sample: str
    events: int
    queries: int
    label: str = ""
    features: tuple[FeatureValues, ...] = ()
    leaks: dict[str, int] = {}


class ViewCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one view costs, in one version.

    tiles_per_row, bytes_per_actor: mean over the sample's actors, 0 without a sample; bytes include the key and what
    Redis needs for it. backfill_seconds: None when nothing says how long.
    """

    view: str
    bytes_max: int
    bytes_per_actor: float = 0.0
    tiles_per_row: float = 0.0
    actors: int = 0
    backfill_events: int = 0
    backfill_rows: int = 0
    backfill_seconds: float | None = None


class ServiceCost(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one request of a service costs, in one version. latency_us: from unit costs measured on this machine."""

    service: str
    reads: int
    features: int
    bytes_per_request: float = 0.0
    latency_us: float = 0.0


class Costs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Old and new; a view or service that one version lacks is missing there. backfill: the commands to run."""

    old_views: tuple[ViewCost, ...] = ()
    new_views: tuple[ViewCost, ...] = ()
    old_services: tuple[ServiceCost, ...] = ()
    new_services: tuple[ServiceCost, ...] = ()
    backfill: tuple[str, ...] = ()
