"""Tokens: only what the issuer signed for us, in force, by a key of the present file."""

from __future__ import annotations

import base64
import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from hypothesis import given
from hypothesis import strategies as st

from autoglm.errors import ConfigError, ForbiddenError, UnauthenticatedError
from autoglm.serve.core import Client, Credentials
from autoglm.serve.guard import Guard, GuardOptions, TokenOptions

RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC = ec.generate_private_key(ec.SECP256R1())
ED = ed25519.Ed25519PrivateKey.generate()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def public(kid: str, key: Any, algorithm: str) -> dict[str, Any]:
    made = jwt.get_algorithm_by_name(algorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, "alg": algorithm, "use": "sig"}


def write(path: Path, *keys: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"keys": keys}))
    return path


def claims(**changes: Any) -> dict[str, Any]:
    base = {"iss": "https://id.example", "aud": "autoglm", "sub": "alice"}
    made = {**base, "exp": time.time() + 600, **changes}
    return {k: v for k, v in made.items() if v is not None}


def token(key: Any = RSA, algorithm: str = "RS256", kid: str = "r", **changes: Any) -> str:
    return jwt.encode(claims(**changes), key, algorithm, headers={"kid": kid})


@pytest.fixture
def jwks(tmp_path: Path) -> Path:
    return write(
        tmp_path / "jwks.json",
        public("r", RSA, "RS256"),
        public("e", EC, "ES256"),
        public("d", ED, "EdDSA"),
    )


def guard_of(jwks: Path, clock: Any = time.monotonic) -> Guard:
    return Guard(
        GuardOptions(tokens=TokenOptions(jwks, "https://id.example", "autoglm")), clock=clock
    )


def ask(guard: Guard, text: str) -> Client:
    return guard.authenticate(Credentials("http", "10.0.0.1:5", f"Bearer {text}"))


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"), [(RSA, "RS256", "r"), (EC, "ES256", "e"), (ED, "EdDSA", "d")]
)
def test_a_good_token_is_its_subject(jwks: Path, key: Any, algorithm: str, kid: str) -> None:
    assert ask(guard_of(jwks), token(key, algorithm, kid)).name == "alice"


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "other"},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"exp": time.time() - 60},
        {"exp": None},
        {"exp": float("inf")},
        {"nbf": time.time() + 600},
        {"sub": None},
        {"sub": "a\nb"},
        {"sub": ""},
        {"models": "all"},
    ],
)
def test_a_claim_that_is_wrong_or_missing_is_refused(jwks: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError, match="not accepted"):
        ask(guard_of(jwks), token(**changes))


def segment(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("name", ["none", "None", "NONE", ""])
def test_a_token_without_a_signature_is_refused(jwks: Path, name: str) -> None:
    text = f"{segment({'alg': name, 'typ': 'JWT', 'kid': 'r'})}.{segment(claims())}."

    with pytest.raises(UnauthenticatedError):
        ask(guard_of(jwks), text)


def test_the_public_key_as_an_hmac_secret_signs_nothing(jwks: Path) -> None:
    import hashlib
    import hmac

    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    pem = RSA.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    body = f"{segment({'alg': 'HS256', 'typ': 'JWT', 'kid': 'r'})}.{segment(claims())}"
    mac = base64.urlsafe_b64encode(hmac.digest(pem, body.encode(), hashlib.sha256))

    with pytest.raises(UnauthenticatedError):
        ask(guard_of(jwks), f"{body}.{mac.rstrip(b'=').decode()}")


def test_keys_that_a_token_brings_along_are_not_looked_at(jwks: Path) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    headers = {
        "kid": "r",
        "jwk": public("r", stranger, "RS256"),
        "jku": "http://127.0.0.1:1/jwks.json",
    }
    text = jwt.encode(claims(), stranger, "RS256", headers=headers)

    with pytest.raises(UnauthenticatedError):
        ask(guard_of(jwks), text)


def test_an_unknown_key_id_is_refused(jwks: Path) -> None:
    with pytest.raises(UnauthenticatedError, match="present keys"):
        ask(guard_of(jwks), token(kid="old"))


def test_keys_rotate_by_changing_the_file(jwks: Path) -> None:
    clock, fresh = Clock(), ed25519.Ed25519PrivateKey.generate()
    guard = guard_of(jwks, clock)
    ask(guard, token())

    write(jwks, public("new", fresh, "EdDSA"))
    clock.now += 2

    assert ask(guard, token(fresh, "EdDSA", "new")).name == "alice"
    with pytest.raises(UnauthenticatedError):
        ask(guard, token())


def test_a_token_that_was_believed_expires_all_the_same(
    jwks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard, text = guard_of(jwks), token(exp=time.time() + 30)
    ask(guard, text)

    later = time.time() + 60
    monkeypatch.setattr("autoglm.serve.guard.guard.time", lambda: later)
    monkeypatch.setattr("jwt.api_jwt.datetime", _At(later))

    with pytest.raises(UnauthenticatedError, match="expired"):
        ask(guard, text)


class _At:
    """`datetime` as PyJWT asks it for the present, at another time."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def now(self, tz: Any = None) -> Any:
        from datetime import datetime

        return datetime.fromtimestamp(self._seconds, tz)


def test_claims_say_which_models_and_whether_admin(jwks: Path) -> None:
    guard = guard_of(jwks)
    some = ask(guard, token(models=["bert-*"]))
    none = ask(guard, token(models=[]))
    admin = ask(guard, token(scope="openid autoglm:admin"))

    guard.permit(some, "bert-1")
    guard.permit(admin, "anything", admin=True)
    for client, model in ((some, "gpt"), (none, "bert-1")):
        with pytest.raises(ForbiddenError):
            guard.permit(client, model)
    with pytest.raises(ForbiddenError):
        guard.permit(some, admin=True)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "kid": "s", "k": "c2VjcmV0c2VjcmV0c2VjcmV0", "alg": "HS256"}]}',
        '{"keys": [{"kid": "x"}]}',
        '{"keys": ["x"]}',
    ],
)
def test_a_key_set_that_cannot_verify_is_refused_at_the_start(tmp_path: Path, content: str) -> None:
    (tmp_path / "jwks.json").write_text(content)

    with pytest.raises(ConfigError):
        guard_of(tmp_path / "jwks.json")


def test_a_private_key_in_the_set_is_refused(tmp_path: Path) -> None:
    private = jwt.get_algorithm_by_name("EdDSA").to_jwk(ED, as_dict=True)

    with pytest.raises(ConfigError, match="not a public"):
        guard_of(write(tmp_path / "jwks.json", {**private, "kid": "d", "alg": "EdDSA"}))


def test_two_keys_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="different ids"):
        guard_of(write(tmp_path / "j", public("a", RSA, "RS256"), public("a", EC, "ES256")))


@given(st.text(max_size=300))
def test_any_other_text_is_refused_without_a_traceback(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        FUZZED.authenticate(Credentials("http", "10.0.0.1:5", f"Bearer x{text}"))


FUZZED = Guard.__new__(Guard)


@pytest.fixture(scope="module", autouse=True)
def _fuzzed(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("jwks") / "jwks.json", public("r", RSA, "RS256"))
    Guard.__init__(FUZZED, GuardOptions(tokens=TokenOptions(path, "i", "a")))
