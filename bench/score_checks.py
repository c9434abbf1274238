"""Whether the servers of the scoring benchmark answer what they should, before anything is timed.

Our answers are held against the plain kernel's values of the rows as they were made, scored and explained in this
process. The peers get the values that our server has read for the same actors, and must give the same scores.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from bench.load import HOST
from bench.score_world import MODEL, Floats, World, feature_names
from bench.timing import WrongValuesError, same_values

PLACES = range(40)
"""The actors that are compared."""

TOP_REASONS = 5
TOLERANCE = 1e-6

Body = Mapping[str, Any]


def ask(port: int, path: str, body: Body) -> tuple[int, Any]:
    """The status, and the JSON of the answer to one request."""
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if answer.status == 200 else content
    finally:
        connection.close()


def check_ours(port: int, world: World) -> Floats:
    """The values float64[n, 60] that our server has read, in the plan's order. Raises WrongValuesError."""
    values = []
    for place in PLACES:
        question = {"model": MODEL, "entities": world.actors(place)}
        full = _answer(port, "/v1/score", {**question, "explain": "full"})
        read = {reading["feature"]: reading["value"] for reading in full["features"]}
        values.append(np.array([read[ref] for ref in world.plan.features], dtype=np.float64))
        same_values("read", values[-1], world.plain_values(place, full["as_of_ms"]), rtol=1e-9)
        for decision in (full, _answer(port, "/v1/score", question)):
            check_decision(world, place, decision)
        plain = _answer(port, "/v1/score", {**question, "explain": "none"})
        if plain["reasons"] or plain["base_value"] is not None:
            raise WrongValuesError(f"an explanation that nobody asked for: {plain}")
    return np.stack(values)


def check_batch(port: int, world: World, path: str) -> bool:
    """Whether there is a batch endpoint. Raises WrongValuesError when it decides otherwise than the single one."""
    requests = [{"entities": world.actors(place)} for place in PLACES]
    status, answer = ask(port, path, {"model": MODEL, "explain": "top", "requests": requests})
    if status == http.client.NOT_FOUND:
        return False
    if status != http.client.OK:
        raise WrongValuesError(f"the batch is answered with {status}: {answer!r}")
    for place, decision in zip(PLACES, answer["decisions"], strict=True):
        check_decision(world, place, decision)
    return True


def check_decision(world: World, place: int, decision: Body) -> None:
    """Score and strongest reasons are those of the plain values as of the decision's time; all shares make the margin.

    Raises WrongValuesError.
    """
    bundle = world.model.bundle
    row = bundle.vector(world.plain_values(place, decision["as_of_ms"])[np.newaxis])
    explanation = bundle.explain(row)
    reasons = bundle.top_reasons(explanation.attributions[0], TOP_REASONS).strongest
    shares = np.array([reason["attribution"] for reason in decision["reasons"]])
    same_values("score", np.array([decision["score"]]), bundle.score(row).score.reshape(1), rtol=TOLERANCE)
    same_values("reasons", shares, np.array([reason.attribution for reason in reasons]), rtol=TOLERANCE)
    if [reason["code"] for reason in decision["reasons"]] != [reason.meaning.code for reason in reasons]:
        raise WrongValuesError(f"the reasons are {decision['reasons']}, not {reasons}")
    margin = decision["base_value"] + shares.sum() + decision["attributions_rest"]
    same_values("margin", np.array([margin]), np.array([decision["margin"]]), rtol=TOLERANCE)


def check_peer(port: int, world: World, values: Floats) -> None:
    """The peer scores as we do, and its reasons are the largest path-dependent shares. Raises WrongValuesError."""
    names = np.array(feature_names(world.plan))
    rows = world.model.bundle.vector(values)
    scores, shares = world.model.bundle.score(rows).score, world.model.by_covers.explain(rows).attributions
    for place, score, attributions in zip(PLACES, scores, shares, strict=True):
        answer = _answer(port, "/score", world.actors(place))
        strongest = np.argsort(-np.abs(attributions))[:TOP_REASONS]
        same_values("score of the peer", np.array([answer["score"]]), score.reshape(1), rtol=TOLERANCE)
        told = np.array([reason["attribution"] for reason in answer["reasons"]])
        same_values("reasons of the peer", told, attributions[strongest], rtol=TOLERANCE)
        if [reason["feature"] for reason in answer["reasons"]] != names[strongest].tolist():
            raise WrongValuesError(f"the reasons of the peer are {answer['reasons']}, not {names[strongest]}")


def _answer(port: int, path: str, body: Body) -> Any:
    status, answer = ask(port, path, body)
    if status != http.client.OK:
        raise WrongValuesError(f"{path} answers {status}: {answer!r}")
    return answer
