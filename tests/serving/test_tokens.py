"""Tokens: which ones are believed, until when, and what becomes of forged ones."""

from __future__ import annotations

import base64
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from serving.access import AccessFileError, WatchedFile, open_gate
from serving.access.client import Known
from serving.access.keys import digest_of, known_keys
from serving.access.tokens import LEEWAY_S, TOKEN_BYTES_MAX, Expected, TokenVerifier, parse_jwks
from serving.errors import SettingsError
from serving.settings import Settings
from tests.serving.doors import LIMIT, Door, Times, open_door
from tests.serving.fakes import NOW_MS, loaded_world

ISSUER, AUDIENCE = "https://login.example", "actor-risk"
NOW_S = NOW_MS // 1000
EXPECTED = Expected(ISSUER, AUDIENCE, LIMIT)
KEYS: dict[str, Any] = {
    "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
FORMS: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "checkout", "exp": NOW_S + 600, "scope": "score other"}


def public(algorithm: str, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """The public key as a JWKS lists it."""
    described: dict[str, Any] = FORMS[algorithm].to_jwk(KEYS[algorithm].public_key(), as_dict=True)
    return {name: value for name, value in described.items() if name != "key_ops"} | {"kid": kid or algorithm} | more


JWKS = {"keys": [public(algorithm) for algorithm in KEYS]}


def token(algorithm: str = "ES256", headers: dict[str, Any] | None = None, key: Any = None, **claims: Any) -> str:
    """A token that is signed; a claim of `...` is left out."""
    said = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not ...}
    return jwt.encode(said, key or KEYS[algorithm], algorithm, {"kid": algorithm, **(headers or {})})


def bare(header: Any, payload: Any = CLAIMS, signature: bytes = b"") -> str:
    """A token put together by hand."""
    parts = (part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload))
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in (*parts, signature))


def with_hmac(secret: bytes) -> str:
    """A token that is signed with a secret, by an algorithm that its own header asks for."""
    said = bare({"alg": "HS256", "kid": "RS256"}).rsplit(".", 1)[0]
    return said + "." + base64.urlsafe_b64encode(hmac.digest(secret, said.encode(), "sha256")).rstrip(b"=").decode()


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps(JWKS))
    return path


@pytest.fixture
def verifier(jwks: Path) -> TokenVerifier:
    return TokenVerifier(WatchedFile(jwks, parse_jwks), EXPECTED, verified_max=3)


@pytest.fixture
def door(published: Path, tmp_path: Path, verifier: TokenVerifier) -> Door:
    return open_door(loaded_world(published), tmp_path / "keys.json", verifier)


def find(verifier: TokenVerifier, given: str, now_ms: int = NOW_MS) -> Known | None:
    data = given.encode("utf-8", "surrogatepass")
    return verifier.find(data, digest_of(data), now_ms)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_of_each_algorithm_opens_what_its_scopes_name(door: Door, algorithm: str) -> None:
    given = token(algorithm)
    assert [door.score(given).status for _ in range(2)] == [200, 200]
    assert door.ask("/metrics", given).status == 403
    assert door.ask("/v1/models", token(algorithm, scope=...)).status == 200
    assert door.score(token(algorithm, scope=...)).status == 403
    assert door.score("ark_score").status == 200


def test_a_token_stands_for_its_subject(verifier: TokenVerifier) -> None:
    known = find(verifier, token())
    assert known is not None
    assert (known.client.name, known.client.scopes) == ("token:checkout", {"score", "other"})
    assert (known.client.limit, known.expires_ms) == (LIMIT, (NOW_S + 600 + LEEWAY_S) * 1000)


OTHER = ec.generate_private_key(ec.SECP256R1())
HEADER, BODY, SIGNATURE = token().split(".")
PUBLIC_PEM = KEYS["RS256"].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
FORGED: dict[str, str] = {
    "nobody's key": token(key=OTHER),
    "no algorithm": bare({"alg": "none", "kid": "ES256"}),
    "no algorithm, signed": bare({"alg": "none", "kid": "ES256"}, signature=b"x"),
    "None": bare({"alg": "None", "kid": "ES256"}),
    "an HMAC with the public key": with_hmac(PUBLIC_PEM),
    "an algorithm that is not the key's": token("RS256", {"kid": "ES256"}),
    "a stronger one, not ours": jwt.encode(CLAIMS, KEYS["RS256"], "RS512", {"kid": "RS256"}),
    "a padding that is not ours": jwt.encode(CLAIMS, KEYS["RS256"], "PS256", {"kid": "RS256"}),
    "an unknown kid": token(headers={"kid": "ES999"}),
    "no kid": jwt.encode(CLAIMS, KEYS["ES256"], "ES256"),
    "an odd kid": bare({"alg": "ES256", "kid": ["ES256"]}),
    "a key of its own": token(headers={"jwk": public("ES256"), "kid": "x"}, key=OTHER),
    "a critical extension": token(headers={"crit": ["b64"], "b64": False}),
    "another payload": f"{HEADER}.{bare({}, {**CLAIMS, 'sub': 'admin'}).split('.')[1]}.{SIGNATURE}",
    "no signature": f"{HEADER}.{BODY}.",
    "half a signature": f"{HEADER}.{BODY}.{SIGNATURE[:40]}",
    "zeros for a signature": bare({"alg": "ES256", "kid": "ES256"}, signature=b"\0" * 64),
    "two parts": f"{HEADER}.{BODY}",
    "four parts": f"{HEADER}.{BODY}.{SIGNATURE}.{SIGNATURE}",
    "a deep header": bare(b"[" * 3000),
    "a deep payload": bare({"alg": "ES256", "kid": "ES256"}, b'{"a":' * 1000),
    "a header that is a list": bare([]),
    "no base64": "a!.b!.c!",
    "no UTF-8": bare(b'{"alg": "\xff"}'),
    "dots": "..",
    "too long": token(filler="x" * TOKEN_BYTES_MAX),
    "another issuer": token(iss="https://evil.example"),
    "no issuer": token(iss=...),
    "another audience": token(aud="billing"),
    "no audience": token(aud=...),
    "no subject": token(sub=...),
    "an empty subject": token(sub=""),
    "a long subject": token(sub="x" * 300),
    "no end": token(exp=...),
    "expired": token(exp=NOW_S - LEEWAY_S),
    "long expired": token(exp=0),
    "an end that is a text": token(exp="never"),
    "an end that is true": token(exp=True),
    "an endless end": bare(b'{"alg": "ES256", "kid": "ES256"}', b'{"exp": 1e999}'),
    "not yet": token(nbf=NOW_S + LEEWAY_S + 1),
    "made in the future": token(iat=NOW_S + LEEWAY_S + 1),
    "scopes as a list": token(scope=["score"]),
    "a digest of a token": digest_of(token().encode()).hex(),
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_or_expired_token_is_answered_like_no_token(door: Door, forged: str) -> None:
    nothing, answer = door.ask("/v1/score", method="POST"), door.score(forged)
    assert (answer.status, answer.headers, answer.body) == (401, nothing.headers, nothing.body)


def test_clocks_may_differ_by_the_leeway(verifier: TokenVerifier) -> None:
    assert find(verifier, token(exp=NOW_S - LEEWAY_S + 1)) is not None
    assert find(verifier, token(nbf=NOW_S + LEEWAY_S, iat=NOW_S + LEEWAY_S)) is not None
    assert find(verifier, token(nbf=float(NOW_S), iat=NOW_S - 5, exp=NOW_S + 0.5)) is not None


def test_a_token_that_was_believed_expires_all_the_same(door: Door) -> None:
    given = token(exp=NOW_S + 1)
    assert door.score(given).status == 200
    door.times.now_ms += (1 + LEEWAY_S) * 1000
    assert door.score(given).status == 401


def test_a_token_is_verified_once(verifier: TokenVerifier, monkeypatch: pytest.MonkeyPatch) -> None:
    verified: list[str] = []
    decode: Callable[..., Any] = jwt.decode
    monkeypatch.setattr(jwt, "decode", lambda given, *a, **k: (verified.append(given), decode(given, *a, **k))[1])
    given = [token(sub=str(i)) for i in range(4)]
    for one in (*given[:3], *given[:3], given[3], given[0]):
        assert find(verifier, one) is not None
    assert [one.decode() for one in verified] == [*given, given[0]], "of three that are kept, the oldest made room"


def test_keys_are_rotated_and_what_they_signed_goes_with_them(door: Door, jwks: Path) -> None:
    old, new = token("ES256"), token("EdDSA", {"kid": "2027"})
    assert [door.score(one).status for one in (old, new)] == [200, 401]
    jwks.write_text(json.dumps({"keys": [public("EdDSA", "2027"), public("ES256")]}))
    assert door.guard.refresh()
    assert [door.score(one).status for one in (old, new)] == [200, 200]
    jwks.write_text(json.dumps({"keys": [public("EdDSA", "2027")]}))
    assert door.guard.refresh()
    assert [door.score(one).status for one in (old, new)] == [401, 200]
    jwks.write_text("{")
    assert not door.guard.refresh()
    assert door.notes() == [
        "the new file of JWKS is refused, the old one counts: it is not a JWKS: an object with a list `keys`"
    ]
    assert door.score(new).status == 200


def test_of_a_jwks_the_keys_that_verify_signatures_are_taken() -> None:
    others = [
        {"kty": "oct", "k": "c3dvcmRmaXNo", "kid": "secret"},
        public("RS256", "encryption", use="enc"),
        public("RS256", "another", alg="RSA-OAEP"),
        public("RS256", "stronger", alg="RS512"),
        {"kty": "EC", "crv": "P-521", "kid": "large"},
        {"kty": "new"},
    ]
    taken = parse_jwks(json.dumps({"keys": [*others, public("RS256", alg="RS256", use="sig")]}).encode())
    assert {kid: key.algorithm_name for kid, key in taken.items()} == {"RS256": "RS256"}


SHORT = rsa.generate_private_key(public_exponent=65537, key_size=1024)
WRONG_JWKS: dict[str, Any] = {
    "nothing": {},
    "no keys": {"keys": []},
    "a list": [],
    "a text": {"keys": "x"},
    "texts": {"keys": ["x"]},
    "a secret alone": {"keys": [{"kty": "oct", "k": "c3dvcmRmaXNo", "kid": "secret"}]},
    "no kid": {"keys": [{name: value for name, value in public("ES256").items() if name != "kid"}]},
    "one kid twice": {"keys": [public("ES256", "a"), public("EdDSA", "a")]},
    "a point that is none": {"keys": [public("ES256", x="c3dvcmRmaXNo")]},
    "a short key": {"keys": [RSAAlgorithm.to_jwk(SHORT.public_key(), as_dict=True) | {"kid": "short"}]},
    "half a key": {"keys": [{"kty": "RSA", "kid": "half", "n": "c3dvcmRmaXNo"}]},
}


@pytest.mark.parametrize("wrong", WRONG_JWKS.values(), ids=WRONG_JWKS)
def test_a_wrong_jwks_is_refused_without_quoting_it(wrong: Any) -> None:
    with pytest.raises(AccessFileError) as told:
        parse_jwks(json.dumps(wrong).encode())
    assert "c3dvcmRmaXNo" not in str(told.value)


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["keys", "kty", "kid"]), inner),
    max_leaves=8,
)


@given(st.binary(max_size=60) | JSON_VALUES.map(lambda value: json.dumps(value).encode()))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_a_file_of_keys_or_an_error_that_says_so(data: bytes) -> None:
    for parse in (parse_jwks, lambda data: known_keys(data, LIMIT)):
        with suppress(AccessFileError):
            parse(data)


@pytest.mark.parametrize("missing", ["ACTOR_RISK_JWT_ISSUER", "ACTOR_RISK_JWT_AUDIENCE", "file"])
def test_a_server_does_not_start_when_it_is_not_said_what_a_token_must_say(jwks: Path, missing: str) -> None:
    said = {
        "ACTOR_RISK_JWKS": str(jwks),
        "ACTOR_RISK_JWT_ISSUER": ISSUER,
        "ACTOR_RISK_JWT_AUDIENCE": AUDIENCE,
    }
    asked = {"headers": [(b"authorization", b"Bearer " + token().encode())]}
    gate = open_gate(Settings.from_environment(said), Times().clock())
    assert gate.admit(asked, "/v1/score").name == "token:checkout"
    said.pop(missing, None)
    if missing == "file":
        jwks.unlink()
    with pytest.raises(SettingsError, match="ACTOR_RISK_JWKS"):
        open_gate(Settings.from_environment(said), Times().clock())
