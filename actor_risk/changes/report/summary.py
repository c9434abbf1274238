"""What all forms of the report say of a plan: the verdict, a line for each area, and which rows are worth showing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from msgspec.structs import replace

from actor_risk.changes.findings import CODES, Finding, Severity
from actor_risk.changes.plan import Change, Plan
from actor_risk.changes.values import QUANTILES, FeatureValues, Profile, SampleValues, ServiceCost, ViewCost
from actor_risk.reporting.words import counted, duration, number, one_line, share

S = TypeVar("S")
T = TypeVar("T")
Verdict = Literal["refused", "warned", "passes", "unchanged"]
State = Literal["bad", "warned", "good", "unknown"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
AREAS = {
    "AR0": "repository",
    "AR1": "what it breaks",
    "AR2": "leakage",
    "AR3": "values",
    "AR4": "conventions",
    "AR5": "costs",
    "AR6": "waivers",
}
"""The first three signs of a code → the area that it belongs to."""

_MARKS: dict[str, str] = {"added": "+", "removed": "−", "changed": "~", "renamed": "→"}
PLURALS = {"entity": "entities"}
SHOWN_NAMES = 3
LATENCY_NOISE = 0.1
"""Relative: each version's process measures its own, and one of them may be disturbed more."""
DRIFT_TOLD = 0.1
"""PSI from which on values are said to have moved: below, a sample's own noise is as large."""


@dataclass(frozen=True)
class Area:
    """One line of the summary."""

    name: str
    state: State
    told: str


@dataclass(frozen=True)
class ViewRow:
    """What one view costs, old and new; None where a version does not have it."""

    view: str
    old: ViewCost | None
    new: ViewCost | None


@dataclass(frozen=True)
class ServiceRow:
    """What a request of one service costs, old and new."""

    service: str
    old: ServiceCost | None
    new: ServiceCost | None


def without_personal_values(plan: Plan) -> Plan:
    """The plan with nothing but counts of a feature that either version tags `pii`; every report is made of this."""
    if plan.values is None:
        return plan
    features = tuple(_masked(values) for values in plan.values.features)
    return replace(plan, values=replace(plan.values, features=features))


def _masked(values: FeatureValues) -> FeatureValues:
    if not masked(values):
        return values
    return replace(values, old=_counts(values.old), new=_counts(values.new))


def _counts(profile: Profile | None) -> Profile | None:
    if profile is None:
        return None
    return Profile(rows=profile.rows, nulls=profile.nulls, distinct=profile.distinct, masked=True)


def found(plan: Plan) -> tuple[Finding, ...]:
    """The findings and what is wrong with the new version itself, the worst first."""
    told = {(finding.code, finding.message) for finding in plan.findings}
    problems = tuple(
        Finding(code=problem.code, subject=problem.subject, message=problem.message, place=problem.place)
        for problem in plan.new.problems
        if (problem.code, problem.message) not in told
    )
    return tuple(
        sorted((*problems, *plan.findings), key=lambda one: (SEVERITIES.index(one.severity), one.code, one.subject))
    )


def of_severity(plan: Plan, severity: Severity) -> tuple[Finding, ...]:
    """The findings of one severity."""
    return tuple(finding for finding in found(plan) if finding.severity == severity)


def verdict(plan: Plan, *, strict: bool = False) -> Verdict:
    """refused: `apply` refuses it too; with `strict` warnings refuse as well."""
    severities = {finding.severity for finding in found(plan)}
    if "error" in severities or (strict and "warning" in severities):
        return "refused"
    if "warning" in severities:
        return "warned"
    return "passes" if plan.changes else "unchanged"


def exit_code(plan: Plan, *, strict: bool = False) -> int:
    """1 for a plan that is refused, else 0."""
    return int(verdict(plan, strict=strict) == "refused")


def headline(plan: Plan, *, strict: bool = False) -> str:
    """The verdict in words."""
    counts = Counter(finding.severity for finding in found(plan))
    told = ", ".join(counted(counts[severity], severity) for severity in ("error", "warning") if counts[severity])
    match verdict(plan, strict=strict):
        case "refused":
            return f"Refused: {told}" + (" (--strict)" if not counts["error"] else "")
        case "warned":
            return f"Nothing is refused: {told}"
        case "passes":
            return "Nothing is refused"
        case _:
            return "Nothing changes"


def about(plan: Plan) -> str:
    """What was compared, and how long that took."""
    return f"Compared with {one_line(plan.against)} in {plan.seconds:.1f} s"


def areas(plan: Plan) -> list[Area]:
    """The summary, a line each; the repository itself and the waivers only where something is wrong with them."""
    if plan.new.is_unreadable:
        return [
            _area(plan, "AR0", ("bad", "")),
            Area(
                "all else",
                "unknown",
                "not looked at: nothing is known of a repository that cannot be applied",
            ),
        ]
    prefixes = {finding.code[:3] for finding in found(plan)}
    told = [Area("changes", "good", _changes_in_words(plan.changes))]
    for prefix, tell in _WORDS.items():
        if tell is not None or prefix in prefixes:
            told.append(_area(plan, prefix, ("good", "") if tell is None else tell(plan)))
    return told


def _area(plan: Plan, prefix: str, otherwise: tuple[State, str]) -> Area:
    """What was found there, and what there is to say besides."""
    state, told = _state(plan, prefix), [_codes_in_words(plan, prefix), otherwise[1]]
    said = "; ".join(part for part in told if part)
    return Area(AREAS[prefix], otherwise[0] if state == "good" else state, said or "nothing found")


def _state(plan: Plan, prefix: str) -> State:
    severities = {finding.severity for finding in found(plan) if finding.code.startswith(prefix)}
    return "bad" if "error" in severities else "warned" if "warning" in severities else "good"


def _codes_in_words(plan: Plan, prefix: str) -> str:
    findings = [finding for finding in found(plan) if finding.code.startswith(prefix) and not finding.waived]
    waived = sum(finding.code.startswith(prefix) and bool(finding.waived) for finding in found(plan))
    counts = Counter(finding.code for finding in findings)
    told = [f"{title(code)} ({code}{f', {count:,} times' if count > 1 else ''})" for code, count in counts.items()]
    return "; ".join([*told, *([f"{waived:,} waived"] if waived else [])])


def title(code: str) -> str:
    """What a code stands for; the code of a newer version stands for itself."""
    return CODES[code].title if code in CODES else code


def _changes_in_words(changes: Sequence[Change]) -> str:
    kinds: dict[str, Counter[str]] = {}
    for change in changes:
        kinds.setdefault(change.kind, Counter())[change.what] += 1
    told = []
    for kind, counts in kinds.items():
        name = PLURALS.get(kind, f"{kind}s") if counts.total() > 1 else kind
        told.append(f"{name}: {', '.join(f'{counts[what]:,} {what}' for what in _MARKS if counts[what])}")
    return "; ".join(told) or "none"


def _breaks(plan: Plan) -> tuple[State, str]:
    readers = dict.fromkeys(reader for change in plan.changes if change.meaning for reader in change.served_by)
    return "good", f"what changes is read by {names(list(readers))}" if readers else "nothing that changes is read"


def _leakage(plan: Plan) -> tuple[State, str]:
    if plan.values is None:
        return "unknown", "values as of a time: not tested, there is no sample"
    leaking = sum(count > 0 for count in plan.values.leaks.values())
    if leaking:
        return (
            "bad",
            f"{counted(leaking, 'feature')} changed when later events were left out",
        )
    return "good", "no value changed when later events were left out"


def _values(plan: Plan) -> tuple[State, str]:
    if plan.values is None:
        return "unknown", "not looked at: there is no sample"
    moved = [values for values in plan.values.features if values.changed]
    told = f"{counted(len(moved), 'feature')} of {len(plan.values.features):,} with other values"
    drifted = max(moved, key=lambda values: values.drift or 0.0, default=None)
    if drifted is not None and (drifted.drift or 0.0) >= DRIFT_TOLD:
        told += f", most in {one_line(drifted.feature)} (drift {drifted.drift:.2f})"
    return "good", f"{told}, on {counted(plan.values.queries, 'row')}"


def _costs(plan: Plan) -> tuple[State, str]:
    if plan.costs is None:
        return "unknown", "not looked at"
    rows = views(plan)
    told = [_rows_in_words(rows)] if rows else ["rows cost what they did"]
    seconds = sum(row.new.backfill_seconds or 0.0 for row in rows if row.new is not None)
    if plan.costs.backfill:
        told.append("backfill needed" + (f", about {time(seconds)}" if seconds else ""))
    told += [
        f"{one_line(row.service)} reads {side_by_side(row.old, row.new, lambda cost: cost.reads, number)} rows"
        for row in services(plan)
        if row.old is None or row.new is None or row.old.reads != row.new.reads
    ][:SHOWN_NAMES]
    return "good", "; ".join(told)


def _rows_in_words(rows: Sequence[ViewRow]) -> str:
    """Bytes of an actor of all of them; the most there can be where no sample says how much there is."""
    versions = [
        [cost for cost in side if cost is not None] for side in zip(*((r.old, r.new) for r in rows), strict=True)
    ]
    old, new = (sum(map(bytes_of, costs)) for costs in versions)
    measured = all(cost.bytes_per_actor for costs in versions for cost in costs)
    whose = f"a row of {one_line(rows[0].view)}" if len(rows) == 1 else f"rows of {len(rows):,} views"
    return f"{whose}: {'' if measured else 'at most '}{moved(old, new, size)}"


_WORDS: dict[str, Callable[[Plan], tuple[State, str]] | None] = {
    "AR0": None,
    "AR1": _breaks,
    "AR2": _leakage,
    "AR3": _values,
    "AR5": _costs,
    "AR4": lambda _: ("good", ""),
    "AR6": None,
}
"""In the order of the summary; None for what is shown only where something was found."""


def names(listed: Sequence[str], shown: int = SHOWN_NAMES) -> str:
    """The first of them, and how many more there are."""
    told = ", ".join(one_line(name, 120) for name in listed[:shown])
    return told if len(listed) <= shown else f"{told} and {len(listed) - shown:,} more"


def mark(change: Change) -> str:
    """A sign for what happened."""
    return _MARKS[change.what]


def views(plan: Plan) -> list[ViewRow]:
    """The views whose rows differ, or that have to be filled."""
    if plan.costs is None:
        return []
    old = {cost.view: cost for cost in plan.costs.old_views}
    new = {cost.view: cost for cost in plan.costs.new_views}
    filled = {word for command in plan.costs.backfill for word in command.split()}
    rows = [ViewRow(view, old.get(view), new.get(view)) for view in {**old, **new}]
    return [row for row in rows if _sizes(row.old) != _sizes(row.new) or row.view in filled]


def _sizes(view: ViewCost | None) -> tuple[float, ...] | None:
    """What differs only if the view does: measured times differ each time."""
    return None if view is None else (view.bytes_max, view.bytes_per_actor, view.tiles_per_row)


def services(plan: Plan) -> list[ServiceRow]:
    """The services whose requests fetch something else."""
    if plan.costs is None:
        return []
    old = {cost.service: cost for cost in plan.costs.old_services}
    new = {cost.service: cost for cost in plan.costs.new_services}
    rows = [ServiceRow(service, old.get(service), new.get(service)) for service in {**old, **new}]
    return [row for row in rows if _fetched(row.old) != _fetched(row.new)]


def _fetched(service: ServiceCost | None) -> tuple[float, ...] | None:
    return None if service is None else (service.reads, service.features, service.bytes_per_request)


def changed_values(values: SampleValues) -> list[FeatureValues]:
    """The features with other values, and those that one version lacks; the most drifted first."""
    told = [one for one in values.features if one.changed or one.old is None or one.new is None]
    return sorted(told, key=lambda one: (-(one.drift or 0.0), -one.changed, one.feature))


def moved(old: T | None, new: T | None, form: Callable[[T], str], *, noise: float = 0.0) -> str:
    """`old → new`, with the change in percent where that is not nothing; one value if both read the same.

    noise: relative, by how much measured values differ though nothing does.
    """
    before, after = ("–" if one is None else form(one) for one in (old, new))
    change = _change(old, new)
    if before == after or (change is not None and abs(change) < noise):
        return after
    percent = "" if change is None else f"{100 * change:+,.0f}"
    return f"{before} → {after}" + (f" ({percent}\N{NO-BREAK SPACE}%)" if percent not in ("", "+0", "-0") else "")


def _change(old: object, new: object) -> float | None:
    """Relative to the old number, None where there is none."""
    if isinstance(old, (int, float)) and isinstance(new, (int, float)) and old:
        return (new - old) / abs(old)
    return None


def side_by_side(
    old: S | None, new: S | None, of: Callable[[S], T | None], form: Callable[[T], str], *, noise: float = 0.0
) -> str:
    """One thing of both versions, as `moved`."""
    return moved(None if old is None else of(old), None if new is None else of(new), form, noise=noise)


def bytes_of(view: ViewCost) -> float:
    """What an actor's row takes: the sample's mean, or else the most that it can."""
    return view.bytes_per_actor or float(view.bytes_max)


def tiles(view: ViewCost) -> float:
    """Of a row, as people read it."""
    return round(view.tiles_per_row, 1)


def filling(view: ViewCost | None) -> tuple[str, str, str]:
    """Events, rows and time of the backfill; dashes where there is nothing to fill."""
    if view is None or not (view.backfill_events or view.backfill_rows):
        return "–", "–", "–"
    seconds = "–" if view.backfill_seconds is None else time(view.backfill_seconds)
    return number(view.backfill_events), number(view.backfill_rows), seconds


def cost_of_view(row: ViewRow) -> tuple[str, ...]:
    """The cells of `VIEW_COSTS`."""
    return (
        one_line(row.view),
        side_by_side(row.old, row.new, bytes_of, size),
        side_by_side(row.old, row.new, tiles, number),
        *filling(row.new),
    )


VIEW_COSTS = ("view", "bytes of an actor", "tiles of a row", "to fill: events", "rows", "time")


def cost_of_service(row: ServiceRow) -> tuple[str, ...]:
    """The cells of `SERVICE_COSTS`."""
    return (
        one_line(row.service),
        side_by_side(row.old, row.new, lambda cost: cost.reads, number),
        side_by_side(row.old, row.new, lambda cost: cost.features, number),
        side_by_side(row.old, row.new, lambda cost: cost.bytes_per_request or None, size),
        side_by_side(row.old, row.new, lambda cost: cost.latency_us or None, microseconds, noise=LATENCY_NOISE),
    )


SERVICE_COSTS = ("service", "rows of a request", "features", "bytes of a request", "time of a request")


def value_row(one: FeatureValues) -> tuple[str, ...]:
    """The cells of `VALUES`."""
    return (
        one_line(one.feature) + (" (pii: counts only)" if masked(one) else ""),
        number(one.changed),
        "–" if one.drift is None else f"{one.drift:.2f}",
        side_by_side(one.old, one.new, null_share, str),
        side_by_side(one.old, one.new, lambda profile: profile.distinct, number),
        side_by_side(one.old, one.new, median, number),
        side_by_side(one.old, one.new, lambda profile: profile.mean, number),
    )


VALUES = ("feature", "other values", "drift", "nulls", "distinct", "median", "mean")


def masked(one: FeatureValues) -> bool:
    """Whether only counts may be shown."""
    return any(profile is not None and profile.masked for profile in (one.old, one.new))


def size(count: float) -> str:
    """Bytes."""
    return f"{count:,.0f} B" if count < 10_000 else f"{count / 1024:,.1f} KiB"


def time(seconds: float) -> str:
    """A length of time."""
    return duration(round(seconds * 1000))


def null_share(profile: Profile) -> str:
    """The share of nulls."""
    return share(profile.nulls / profile.rows) if profile.rows else "–"


def microseconds(count: float) -> str:
    """A part of a request's time."""
    return f"{count:,.0f} µs"


def median(profile: Profile) -> float | None:
    """The middle value, None without quantiles."""
    return profile.quantiles[QUANTILES.index(0.5)] if profile.quantiles else None
