"""What the sample says of values: gone, all the same, moved, in another unit, or without end."""

from __future__ import annotations

import math
from collections.abc import Iterator

from actor_risk.changes.checks.repository import as_finding
from actor_risk.changes.findings import Finding
from actor_risk.changes.values import FeatureValues, Profile, SampleValues
from actor_risk.changes.versions import Versions, feature_differences
from actor_risk.reporting.words import share

NEARLY_ALL = 0.95
JUMP = 0.5
LOW = 0.5
DRIFT = 0.25
"""Population stability index from which on a distribution counts as another."""
ROWS_LEAST = 20
"""Of fewer values nothing is said."""
SAME_RATIO = 0.03
"""Relative: how near the ratio of two quantiles must be to a known one."""
RATIOS_LEAST = 3

UNITS: dict[float, str] = {
    100.0: "usd to cents, a share to percent",
    1_000.0: "s to ms, kilo to one",
    1e6: "s to µs, a currency to its millionth",
    60.0: "min to s, h to min",
    3_600.0: "h to s",
    24.0: "d to h",
    1.609344: "miles to km",
    86_400.0: "d to s",
    1_440.0: "d to min",
}
"""Factors between units that people mix up."""


def find_in_values(versions: Versions, values: SampleValues | None) -> Iterator[Finding]:
    """AR301 to AR306."""
    for problem in versions.new.problems:
        if problem.code == "AR304":
            yield as_finding(
                problem,
                "Make the function stand every event of the topic: nulls, columns without any value, kinds of event "
                "that do not concern the view.",
            )
    if values is None:
        return
    failed = {problem.subject.partition(":")[0] for problem in versions.new.problems if problem.code == "AR304"}
    for feature in values.features:
        if feature.new is not None and feature.feature.partition(":")[0] not in failed:
            finding = _first(versions, feature)
            if finding is not None:
                yield finding


def _first(versions: Versions, feature: FeatureValues) -> Finding | None:
    """The most telling finding of a feature: one that is null everywhere has moved as well, and that says less."""
    alone = (check(feature) for check in (_gone, _infinite, _all_the_same, _other_unit))
    found = next((one for one in alone if one is not None), None) or _moved(versions, feature)
    if found is None:
        return None
    code, message, instead = found
    view = versions.new.view(feature.feature.partition(":")[0])
    place = view.place if view is not None else ""
    return Finding(code=code, subject=feature.feature, message=message, instead=instead, place=place)


Told = tuple[str, str, str] | None
"""Code, message, and what to do instead."""


def _share(profile: Profile) -> float:
    return profile.nulls / profile.rows if profile.rows else 0.0


def _gone(feature: FeatureValues) -> Told:
    old, new = feature.old, feature.new
    if new is None or new.rows < ROWS_LEAST:
        return None
    now = _share(new)
    if old is None or not old.rows:
        found = new.nulls == new.rows
        before = ""
    else:
        was = _share(old)
        found = (was < LOW and (now >= NEARLY_ALL or now - was > JUMP)) or (was < NEARLY_ALL and now == 1.0)
        before = f", before {was:.0%}"
    if not found:
        return None
    return (
        "AR301",
        f"{now:.0%} of its values are null{before}.",
        "Look for a name that is written otherwise in the events (a column, a kind of event), a division by what is "
        "zero, or a join key that never matches. Null is right only for actors of whom nothing is known.",
    )


def _infinite(feature: FeatureValues) -> Told:
    old, new = feature.old, feature.new
    if new is None or not new.infinite or (old is not None and old.infinite):
        return None
    return (
        "AR306",
        f"{share(new.infinite / new.rows)} of its values are infinite: numpy divides by zero without a word.",
        "Give null there: np.divide(a, b, out=np.full(len(a), np.nan), where=b != 0). Means and scales cannot stand an "
        "infinite value, nor can every model.",
    )


def _all_the_same(feature: FeatureValues) -> Told:
    old, new = feature.old, feature.new
    if new is None or new.distinct > 1 or new.rows - new.nulls < ROWS_LEAST:
        return None
    if old is not None and old.distinct <= 1:
        return None
    return (
        "AR302",
        "it has one value only in the whole sample: a model learns nothing from it.",
        "Look at the condition in the function that marks its events, or take the feature out. If the sample is too "
        "small for it, waive this and say so.",
    )


def _other_unit(feature: FeatureValues) -> Told:
    old, new = feature.old, feature.new
    ratio = _ratio(old, new) if old is not None and new is not None else None
    if ratio is None:
        return None
    for factor, about in UNITS.items():
        for times, words in ((factor, f"{factor:g} times"), (1 / factor, f"1/{factor:g} of")):
            if abs(ratio / times - 1) <= SAME_RATIO:
                pairs = about if times == factor else f"the other way round: {about}"
                return (
                    "AR305",
                    f"all its quantiles are {words} what they were ({pairs}).",
                    "Keep the unit under this name; write the other one as a new feature that names its unit, such as "
                    f"`{_with_unit(feature.feature)}`.",
                )
    return None


def _ratio(old: Profile, new: Profile) -> float | None:
    """New value ÷ old value where it is the same at all quantiles that are not zero; None where it is not."""
    pairs = [
        (was, now)
        for was, now in zip(old.quantiles, new.quantiles, strict=False)
        if math.isfinite(was) and math.isfinite(now) and abs(was) > 1e-9 and abs(now) > 1e-9
    ]
    ratios = sorted(now / was for was, now in pairs)
    if len(ratios) < RATIOS_LEAST or len({was for was, _ in pairs}) < 2 or ratios[0] <= 0:
        return None
    middle = ratios[len(ratios) // 2]
    same = all(abs(ratio / middle - 1) <= 2 * SAME_RATIO for ratio in ratios)
    return middle if same else None


def _with_unit(ref: str) -> str:
    name = ref.partition(":")[2]
    for unit, other in (("_usd", "_cents"), ("_ms", "_s"), ("seconds", "ms"), ("_days", "_hours")):
        if unit in name:
            return name.replace(unit, other)
    return f"{name}_in_<unit>"


def _moved(versions: Versions, feature: FeatureValues) -> Told:
    if feature.drift is None or feature.drift < DRIFT or _is_meant(versions, feature.feature):
        return None
    return (
        "AR303",
        f"its values moved (PSI {feature.drift:.2f}, from {DRIFT} on it is another distribution), though its own "
        "definition is as it was: something that it is made of changed.",
        "Find what: a source, a function or a feature that it reads, or a helper outside of functions. If it is meant, "
        "give what is new another name, or waive this with the reason.",
    )


def _is_meant(versions: Versions, ref: str) -> bool:
    """Whether the change is in the feature's own definition: then its values move by intent."""
    view, _, name = ref.partition(":")
    old, new = versions.old_view(view), versions.new.view(view)
    return old is None or new is None or bool(feature_differences(old, new, name))
