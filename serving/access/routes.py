"""Which scope a path needs: one table."""

from __future__ import annotations

from typing import Final, Literal

ScopeName = Literal["score", "features:read", "admin"]
SCORE: Final = "score"
FEATURES_READ: Final = "features:read"
ADMIN: Final = "admin"
SCOPES: tuple[ScopeName, ...] = (SCORE, FEATURES_READ, ADMIN)
"""None of them contains another: a key has the scopes that it names."""

OPEN = None
"""Nothing is needed."""
ANY_KEY = ""
"""Any valid key or token is enough."""

_NEEDS: dict[str, str | None] = {
    "/healthz": OPEN,
    "/readyz": OPEN,
    "/health": OPEN,
    "/docs": OPEN,
    "/openapi.json": OPEN,
    "/v1/score": SCORE,
    "/v1/score:batch": SCORE,
    "/v1/explain": SCORE,
    "/v1/events": SCORE,
    "/get-online-features": FEATURES_READ,
    "/metrics": ADMIN,
}


def need_of(path: str) -> str | None:
    """The scope that a path needs, or ANY_KEY, or OPEN.

    A path that is not there needs a key as well, so that nobody learns without one which paths there are. A decision
    shows the features that it was made from, and nothing can be done with it: it is read with FEATURES_READ.
    """
    if path in _NEEDS:
        return _NEEDS[path]
    if path.startswith(("/v1/features/", "/v1/decisions/")):
        return FEATURES_READ
    if path.startswith("/v2/models/") and path.endswith("/infer"):
        return SCORE
    return OPEN if path.startswith("/v2/health/") else ANY_KEY
