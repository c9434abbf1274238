"""Tokens (JWT, RFC 7519) that an identity provider has signed, verified by its public keys (JWKS, RFC 7517)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import jwt
import msgspec

from serving.access.buckets import Limit
from serving.access.client import Client, Known
from serving.access.files import AccessFileError, WatchedFile

ALGORITHMS = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}
"""Key type and curve → the one algorithm that such a key verifies. A token has no say in it (RFC 8725, section 3.1)."""

TOKEN_BYTES_MAX = 8192
VERIFIED_MAX = 10_000
LEEWAY_S = 30
RSA_BITS_MIN = 2048
_MS_PER_S = 1000
_NAME_MAX = 256

Jwks = Mapping[str, jwt.PyJWK]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say, and how often its client may ask."""

    issuer: str
    audience: str
    limit: Limit


class TokenVerifier:
    """Verifies each token once, and knows it from then on until it expires or the keys change."""

    def __init__(self, jwks: WatchedFile[Jwks], expected: Expected, verified_max: int = VERIFIED_MAX) -> None:
        self._jwks = jwks
        self._expected = expected
        self._verified_max = verified_max
        # Keys, and what they have verified: replaced together, so that nothing outlives its key.
        self._in_force: tuple[Jwks, dict[bytes, Known]] = (jwks.value, {})

    def refresh(self) -> bool:
        """Look for new keys; see `WatchedFile.refresh`."""
        if not self._jwks.refresh():
            return False
        self._in_force = (self._jwks.value, {})
        return True

    @property
    def failure(self) -> str | None:
        """Why a new file of keys was refused, or None."""
        return self._jwks.failure

    def find(self, token: bytes, digest: bytes, now_ms: int) -> Known | None:
        """Whom a token stands for; None for one that is not valid now."""
        jwks, verified = self._in_force
        known = verified.get(digest)
        if known is None and len(token) <= TOKEN_BYTES_MAX and token.count(b".") == 2:
            known = self._verify(token, jwks, now_ms)
            if known is not None:
                verified[digest] = known
                if len(verified) > self._verified_max:
                    del verified[next(iter(verified))]
        return known

    def _verify(self, token: bytes, jwks: Jwks, now_ms: int) -> Known | None:
        try:
            key = jwks.get(jwt.get_unverified_header(token)["kid"])
            if key is None:
                return None
            claims = jwt.decode(
                token,
                key,
                algorithms=[key.algorithm_name],
                audience=self._expected.audience,
                issuer=self._expected.issuer,
                # The times are held against our own clock, in `_known`.
                options={
                    "require": ["exp", "sub", "iss", "aud"],
                    "verify_exp": False,
                    "verify_nbf": False,
                    "verify_iat": False,
                },
            )
        except Exception:  # whatever these bytes did to the decoder, they are no token
            return None
        return _known(claims, self._expected.limit, now_ms)


def parse_jwks(data: bytes) -> Jwks:
    """Key id → key, of all keys that verify signatures by one of ALGORITHMS. Raises AccessFileError."""
    try:
        listed = msgspec.json.decode(data, type=dict[str, Any])["keys"]
        usable = [key for key in listed if _algorithm(key) and key.get("use", "sig") == "sig"]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise AccessFileError("it is not a JWKS: an object with a list `keys`") from error
    jwks = {str(key.get("kid", "")): _key(key) for key in usable}
    if not jwks or len(jwks) < len(usable) or "" in jwks:
        raise AccessFileError(f"it needs keys of {sorted(ALGORITHMS.values())}, each with a `kid` of its own")
    return jwks


def _algorithm(key: Mapping[str, Any]) -> str | None:
    found = ALGORITHMS.get((key.get("kty", ""), key.get("crv")))
    return found if key.get("alg", found) == found else None


def _key(described: dict[str, Any]) -> jwt.PyJWK:
    try:
        key = jwt.PyJWK.from_dict(described, _algorithm(described))
    except Exception as error:  # of many kinds, and their messages quote the key
        raise AccessFileError(f"the key {described.get('kid')!r} is not valid") from error
    if key.key_type == "RSA" and key.key.key_size < RSA_BITS_MIN:
        raise AccessFileError(f"the key {key.key_id!r} is shorter than {RSA_BITS_MIN} bits")
    return key


def _known(claims: Mapping[str, Any], limit: Limit, now_ms: int) -> Known | None:
    """Whom verified claims stand for; None when they are not valid now, or say things of the wrong type."""
    now_s, subject, scope = now_ms / _MS_PER_S, claims["sub"], claims.get("scope", "")
    times = [claims["exp"], claims.get("nbf", 0), claims.get("iat", 0)]
    if not all(isinstance(time, (int, float)) and isfinite(time) for time in times):
        return None
    expires, *begins = times
    is_current = expires + LEEWAY_S > now_s and all(begin - LEEWAY_S <= now_s for begin in begins)
    if not is_current or not isinstance(scope, str) or not 0 < len(subject) <= _NAME_MAX:
        return None
    client = Client(f"token:{subject}", frozenset(scope.split(" ")) - {""}, limit)
    return Known(client, (expires + LEEWAY_S) * _MS_PER_S)
