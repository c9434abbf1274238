"""AR406 and AR409: names in the form of the others, that say the window they have."""

from __future__ import annotations

import re
from collections.abc import Iterator

from actor_risk.changes.described import FeatureDefinition, RepoDefinition, ViewDefinition
from actor_risk.changes.findings import Finding
from actor_risk.changes.versions import definitions, features_of
from actor_risk.changes.wording import length, listed, window_in, with_window

_SNAKE_CASE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+")


def find_names(repo: RepoDefinition) -> Iterator[Finding]:
    """AR406: snake_case, the window at the end of a windowed feature, the entity in the name of a stored one."""
    for kind, one in definitions(repo):
        if not _SNAKE_CASE.fullmatch(one.name):
            yield _name(one.name, f"the name of this {kind} is not in snake_case.", _snake_case(one.name), one.place)
    for view, feature in features_of(repo):
        better = feature.name
        wrong: list[str] = []
        if not _SNAKE_CASE.fullmatch(better):
            wrong.append("is not in snake_case")
            better = _snake_case(better)
        if feature.window is not None and window_in(better) is None:
            wrong.append("does not end in its window")
            better = with_window(better, feature.window.length_ms)
        if _lacks_entity(view, better):
            wrong.append(f"does not name its entity {listed(view.entities)}")
            better = f"{view.entities[0]}_{better}"
        if wrong:
            message = f"its name {' and '.join(wrong)}: names are unique in a service, whatever the view."
            yield _name(f"{view.name}:{feature.name}", message, better, view.place)


def find_contradictions(repo: RepoDefinition) -> Iterator[Finding]:
    """AR409: the name says one window, the definition has another."""
    for view, feature in features_of(repo):
        said = window_in(feature.name)
        if feature.window is not None and said is not None and said != feature.window.length_ms:
            yield _contradiction(view, feature, said, feature.window.length_ms)


def _contradiction(view: ViewDefinition, feature: FeatureDefinition, said_ms: int, is_ms: int) -> Finding:
    return Finding(
        code="AR409",
        subject=f"{view.name}:{feature.name}",
        message=f"its name says {length(said_ms)}, its window is {length(is_ms)}.",
        instead=f"Call it `{with_window(feature.name, is_ms)}`, or give it a window of {length(said_ms)}.",
        place=view.place,
    )


def _name(subject: str, message: str, better: str, place: str) -> Finding:
    return Finding(code="AR406", subject=subject, message=message, instead=f"Call it `{better}`.", place=place)


def _snake_case(name: str) -> str:
    return "_".join(word for word in _BETWEEN_WORDS.split(name) if word).lower()


def _lacks_entity(view: ViewDefinition, name: str) -> bool:
    if view.kind == "on_demand" or not view.entities:
        return False
    words = name.split("_")
    return not any(_follows(words, entity.lower().split("_")) for entity in view.entities)


def _follows(words: list[str], part: list[str]) -> bool:
    return any(words[place : place + len(part)] == part for place in range(len(words) - len(part) + 1))
