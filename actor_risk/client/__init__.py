"""The Python client of the scoring application, to call or to await, made from the types that the server answers by."""

from actor_risk.client._async import AsyncClient
from actor_risk.client._calls import Entities, Event, question
from actor_risk.client._errors import (
    ClientError,
    ConnectionFailedError,
    DeadlineError,
    ProblemError,
    UnexpectedAnswerError,
)
from actor_risk.client._sync import Client
from serving.decision import (
    Decision,
    Explain,
    ModelCard,
    Problem,
    Question,
    Readiness,
    Reason,
    ReasonFeature,
    StoredFeatures,
)
from serving.event_results import EventResult, EventsAnswer

__all__ = [
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionFailedError",
    "DeadlineError",
    "Decision",
    "Entities",
    "Event",
    "EventResult",
    "EventsAnswer",
    "Explain",
    "ModelCard",
    "Problem",
    "ProblemError",
    "Question",
    "Readiness",
    "Reason",
    "ReasonFeature",
    "StoredFeatures",
    "UnexpectedAnswerError",
    "question",
]
