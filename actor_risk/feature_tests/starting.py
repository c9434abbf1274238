"""A first file of tests for a view or a service, with the values that its features have now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from actor_risk.errors import ActorRiskError
from actor_risk.feature_tests.batch_form import batch_values, write_history
from actor_risk.feature_tests.binding import BoundCase, bind
from actor_risk.feature_tests.cases import read_cases
from actor_risk.feature_tests.errors import meant
from actor_risk.feature_tests.repo import RepoUnderTest
from actor_risk.feature_tests.topics import literals
from materialize.definitions import BatchView, StreamView
from materialize.events import TOPICS
from materialize.online import ReadPlan

FEATURES_MAX = 8
KINDS_MAX = 4

_NUMBERS = {"DOUBLE": "1.5", "FLOAT": "1.5", "INT64": "1", "INT32": "1", "BOOL": "true"}


def first_file(repo: RepoUnderTest, name: str, folder: Path) -> str:
    """The text of a file that passes. Raises ActorRiskError for a name that is none's."""
    if name not in repo.views and name not in repo.services:
        raise ActorRiskError(
            f"the repository has no view or service {name!r}: {meant(name, [*repo.views, *repo.services])}"
        )
    is_service = name not in repo.views
    plan = repo.plan(name, is_service=is_service)
    features = list(repo.features(name, is_service=is_service))
    chosen = list(dict.fromkeys(features[:: max(1, len(features) // FEATURES_MAX)]))[:FEATURES_MAX]
    word = "service" if is_service else "view"
    given = [f"{word}: {name}", "cases:", "  - name: say in one sentence what this shows", *_given(plan)]
    draft = folder / "draft.yaml"
    values = _values(repo, draft, "\n".join([*given, "    expect:", f"      0: {{{chosen[0]}: null}}"]))
    expect = [f"        {feature}: {_written(values[feature])}" for feature in chosen]
    note = "# The values are those of now: put in what they should be. See `actor-risk test --help`."
    return "\n".join([note, *given, "    expect:", "      0:", *expect]) + "\n"


def _given(plan: ReadPlan) -> list[str]:
    """Some events of each topic, a row of each profile, and the values of a request."""
    lines: list[str] = []
    topics = dict.fromkeys(row.view.topic for row in plan.rows if isinstance(row.view, StreamView))
    known = [topic for topic in topics if topic in TOPICS]
    if known:
        lines.append("    events:")
    for topic in known:
        lines += [f"      {topic}:", *(f"        - {row}" for row in _events(topic))]
    batch = [row.view for row in plan.rows if isinstance(row.view, BatchView)]
    if batch:
        lines.append("    profiles:")
    for view in batch:
        columns = [f"{field.name}: {_NUMBERS.get(field.kind, 'word')}" for field in view.fields]
        lines += [f"      {view.name}:", f"        - {{{', '.join(['time: -1d', *columns])}}}"]
    if plan.request_fields:
        values = [f"{field.name}: {_NUMBERS.get(field.kind, 'word')}" for field in plan.request_fields]
        lines.append(f"    request: {{{', '.join(values)}}}")
    return lines


def _events(topic: str) -> list[str]:
    """Events of different kinds, minutes and hours ago."""
    words = literals(topic)
    kinds = words.get("event_type", ("",))
    others = "".join(f", {name}: {of[0]}" for name, of in words.items() if name != "event_type")
    step = max(1, len(kinds) // KINDS_MAX)
    chosen = [*kinds[::step][:KINDS_MAX], kinds[0]]
    times = ("-1m", "-4m", "-50m", "-20h", "-3d")
    return [
        f"{{time: {time}" + (f", event_type: {kind}" if kind else "") + f"{others}}}"
        for time, kind in zip(times, chosen, strict=False)
    ]


def _values(repo: RepoUnderTest, draft: Path, text: str) -> dict[str, Any]:
    draft.write_text(text, encoding="utf-8")
    bound: BoundCase = bind(read_cases(draft)[0], repo)
    write_history(repo, bound)
    found = batch_values(repo, bound)[0]
    if found.failure is not None:
        raise ActorRiskError(f"its features cannot be computed: {found.failure}")
    return found.values


def _written(value: Any) -> str:
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
