"""From settings to a gate: API keys, tokens, both, or nothing on the loopback address alone."""

from __future__ import annotations

from functools import partial

from serving.access.buckets import Limit
from serving.access.files import AccessFileError, WatchedFile
from serving.access.guard import Gate, Guard, LoopbackGate, Tokens, is_loopback
from serving.access.keys import known_keys
from serving.clock import Clock
from serving.errors import SettingsError
from serving.settings import PREFIX, Settings

_KEYS, _JWKS = f"{PREFIX}ACCESS_KEYS", f"{PREFIX}JWKS"


def open_gate(settings: Settings, clock: Clock) -> Gate:
    """The gate that settings describe. Raises SettingsError, naming the variable that is wrong."""
    if not settings.has_access:
        return LoopbackGate()
    limit = Limit(settings.client_rate, settings.client_burst)
    tokens = _tokens(settings, limit)
    if settings.access_keys is None:
        return Guard(clock, None, tokens)
    try:
        keys = WatchedFile(settings.access_keys, partial(known_keys, default=limit))
    except AccessFileError as error:
        raise SettingsError(f"{_KEYS}={settings.access_keys}: {error}") from error
    return Guard(clock, keys, tokens)


def require_access_beyond_loopback(settings: Settings, host: str | None) -> None:
    """Raises SettingsError when others than this machine could ask at `host`, and nothing says who may.

    A host of None takes no HTTP.
    """
    if host is None or is_loopback(host) or settings.has_access:
        return
    raise SettingsError(
        f"http_options.host is {host}, where other machines can ask, and nothing says who may: set {_KEYS} (make one "
        f"with `actor-risk keys new`) or {_JWKS}, or listen on 127.0.0.1"
    )


def _tokens(settings: Settings, limit: Limit) -> Tokens | None:
    if settings.jwks is None:
        return None
    if not (settings.jwt_issuer and settings.jwt_audience):
        raise SettingsError(f"{_JWKS} needs {PREFIX}JWT_ISSUER and {PREFIX}JWT_AUDIENCE: what a token must say")
    try:
        # Imported where tokens are taken: PyJWT is an extra.
        from serving.access.tokens import Expected, TokenVerifier, parse_jwks
    except ImportError as error:
        raise SettingsError(f"{_JWKS} needs the extra `jwt`: pip install 'actor-risk[jwt]' ({error})") from error
    expected = Expected(settings.jwt_issuer, settings.jwt_audience, limit)
    try:
        return TokenVerifier(WatchedFile(settings.jwks, parse_jwks), expected)
    except AccessFileError as error:
        raise SettingsError(f"{_JWKS}={settings.jwks}: {error}") from error
