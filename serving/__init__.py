"""The online answer: Ray Serve application, HTTP API, decision records, telemetry.

What it offers is imported when it is asked for: Ray's proxies load `serving.edge`, and need nothing else of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from serving.asgi import ScoringApp
    from serving.decision import Decision, Problem, ScoreRequest
    from serving.errors import ModelLoadError, RequestError, ServingError, SettingsError
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

_MODULES = {
    "asgi": ("ScoringApp",),
    "decision": ("Decision", "Problem", "ScoreRequest"),
    "errors": ("ModelLoadError", "RequestError", "ServingError", "SettingsError"),
    "scoring": ("ScoringService",),
    "settings": ("Settings",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
