"""The online answer: Ray Serve application, HTTP API, decision records, telemetry."""

from serving.asgi import ScoringApp
from serving.decision import Decision, ScoreRequest
from serving.errors import ModelLoadError, RequestError, ServingError, SettingsError
from serving.problems import Problem
from serving.scoring import ScoringService
from serving.settings import Settings

__all__ = [
    "Decision",
    "ModelLoadError",
    "Problem",
    "RequestError",
    "ScoreRequest",
    "ScoringApp",
    "ScoringService",
    "ServingError",
    "Settings",
    "SettingsError",
]
