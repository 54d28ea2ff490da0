"""A table of forged tokens: each is 401, whatever library, clock or key it was made with."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import forging
import hypothesis
import hypothesis.strategies as st
import pytest
from flask.testing import FlaskClient
from forging import claims, hs256, outside, own, written

from api.app import create_app
from api.tokens import AUDIENCE, ISSUER
from api.verification import Verifier, parsed
from errors import Unauthorized
from settings import Settings

HOUR = 3600
NOW = int(time.time())
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


@pytest.fixture(scope="module")
def settings(module_database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("keys")
    newest, former = forging.own_entry("newest", forging.NEWEST), forging.own_entry("former", forging.FORMER)
    issuer_keys = (forging.rsa_jwk(), forging.ed_jwk(), forging.ec_jwk())
    return Settings(
        failed_authentications_per_minute=1_000_000,  # all of them come from one address
        data_dir=folder,
        database_url=module_database_url,
        broker_url="redis://127.0.0.1:1/0",
        jwt_key_file=forging.write_key_set(folder / "jwt.key", newest, former),
        jwks_file=forging.write_key_set(folder / "jwks.json", *issuer_keys),
        jwks_issuer=forging.OUTSIDE,
        jwks_audience=forging.OUTSIDE_AUDIENCE,
        jwks_tenants=f"{forging.TENANT}, another",
    )


@pytest.fixture(scope="module")
def http(settings: Settings) -> Iterator[FlaskClient]:
    app = create_app(settings)
    yield app.test_client()
    app.extensions["scorehouse"].close()


GOOD = {
    "the newest key": own,
    "a former key": lambda: own({"kid": "former"}, key=forging.FORMER),
    "another spelling of the type": lambda: own({"typ": "at+JWT"}),
    "a clock that is a little ahead": lambda: own(iat=int(time.time()) + 20, nbf=int(time.time()) + 20),
    "a member that is not known here": lambda: own(azp="app", iss=ISSUER),
    "RS256 of the outside issuer": outside,
    "EdDSA of the outside issuer": lambda: outside({"alg": "EdDSA", "kid": "idp-ed"}, sign=forging.ED_KEY.sign),
    "ES256 of the outside issuer": lambda: outside({"alg": "ES256", "kid": "idp-ec"}, sign=forging.es256),
    "another tenant of the outside issuer": lambda: outside(tenant="another"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_token_is_believed(http: FlaskClient, name: str) -> None:
    answer = http.get("/v1/jobs", headers={"Authorization": f"Bearer {GOOD[name]()}"})
    assert answer.status_code == 200, answer.data


def resigned(header: str, body: str) -> str:
    """Header and body as texts, under a signature that is good for them."""
    return written(header, body, hs256(forging.NEWEST))


def twice(name: str, value: Any) -> str:
    """The claims with one that stands there twice."""
    return json.dumps(claims())[:-1] + f", {json.dumps(name)}: {json.dumps(value)}}}"


def tampered() -> str:
    head, _, signature = own(scope="jobs:read").split(".")
    _, body, _ = own(scope="admin").split(".")
    return f"{head}.{body}.{signature}"


def other_ending() -> str:
    """The same bytes of the signature: the last of 43 letters holds two bits that decode to nothing."""
    token = own()
    return token[:-1] + LETTERS[LETTERS.index(token[-1]) ^ 1]


def plus_and_slash() -> str:
    """In the standard alphabet instead of the one for URLs."""
    while True:
        token = own(jti=str(time.time_ns()))
        head, _, signature = token.rpartition(".")
        if set("-_") & set(signature):
            return f"{head}.{signature.replace('-', '+').replace('_', '/')}"


def unsigned(algorithm: Any) -> str:
    return written({"alg": algorithm, "kid": "newest"}, claims(), lambda _: b"")


CONFUSED = {
    "RSA's PEM as the secret": lambda: outside({"alg": "HS256"}, sign=hs256(forging.rsa_pem())),
    "RSA's JWK as the secret": lambda: outside({"alg": "HS256"}, sign=hs256(json.dumps(forging.rsa_jwk()).encode())),
    "RSA's PEM under the kid of an own key": lambda: own(key=forging.rsa_pem()),
    "the own secret under the kid of the issuer": lambda: outside({"alg": "HS256"}, sign=hs256(forging.NEWEST)),
    "an own kid with the issuer's signature": lambda: own() and outside({"kid": "newest"}),
    "an own kid, issuer's signature, own issuer": lambda: outside({"kid": "newest"}, iss=ISSUER, aud=AUDIENCE),
    "the issuer's other kid": lambda: outside({"kid": "idp-ed"}),
    "the issuer's other kid and algorithm": lambda: outside({"kid": "idp-ed", "alg": "EdDSA"}),
    "another hash of the same RSA key": lambda: outside({"alg": "RS512"}, sign=forging.rs512),
    "another padding of the same RSA key": lambda: outside({"alg": "PS256"}, sign=forging.ps256),
    "another hash of the own key": lambda: written(
        {"alg": "HS512", "kid": "newest"}, claims(), hs256(forging.NEWEST, "sha512")
    ),
    "the issuer speaking as us": lambda: outside(iss=ISSUER, aud=AUDIENCE),
    "the issuer for our audience": lambda: outside(aud=AUDIENCE),
    "the issuer by our name": lambda: outside(iss=ISSUER),
    "us speaking as the issuer": lambda: own(iss=forging.OUTSIDE, aud=forging.OUTSIDE_AUDIENCE),
    "the issuer for a tenant that is not its own": lambda: outside(tenant="default"),
    "the former key under the kid of the newest": lambda: own(key=forging.FORMER),
    "another key": lambda: own(key=b"x" * 48),
    "no key": lambda: own(key=b""),
    "a forgotten key": lambda: own({"kid": "forgotten"}, key=forging.FORGOTTEN),
    "claims of another token": tampered,
}
ALGORITHMS = {
    f"alg {algorithm!r}": (lambda algorithm=algorithm: unsigned(algorithm))
    for algorithm in (
        "none",
        "None",
        "NONE",
        "nOnE",
        "",
        None,
        ["HS256"],
        {"HS256": 1},
        256,
        "hs256",
        "HS256 ",
        "HS384",
    )
}
KIDS = {
    f"kid {kid!r}": (lambda kid=kid: own({"kid": kid}))
    for kid in (
        "other",
        "",
        None,
        5,
        ["newest"],
        {"newest": 1},
        "newest\0",
        "NEWEST",
        "../../../../dev/null",
        "/dev/null",
        "newest' OR '1'='1",
        "'; DROP TABLE token; --",
        "n" * 5000,
    )
}
HEADERS = {
    "a key of its own": lambda: own({"jwk": forging.own_entry("newest", forging.NEWEST)}),
    "an RSA key of its own": lambda: outside({"jwk": forging.rsa_jwk()}),
    "an address of keys": lambda: own({"jku": "https://keys.example/jwks.json"}),
    "an address of a certificate": lambda: own({"x5u": "https://keys.example/cert.pem"}),
    "a certificate": lambda: own({"x5c": ["MIIB"]}),
    "an unknown extension": lambda: own({"crit": ["x"], "x": 1}),
    "no extension, but a list of them": lambda: own({"crit": []}),
    "a payload that is not encoded": lambda: own({"b64": False, "crit": ["b64"]}),
    "b64 alone": lambda: own({"b64": False}),
    "a compressed payload": lambda: own({"zip": "DEF"}),
    "an encrypted one": lambda: own({"enc": "A128GCM"}),
    "typ JWE": lambda: own({"typ": "JWE"}),
    "typ that is a number": lambda: own({"typ": 5}),
    "typ that is a list": lambda: own({"typ": ["JWT"]}),
    "typ null": lambda: resigned('{"alg": "HS256", "kid": "newest", "typ": null}', json.dumps(claims())),
    "alg twice": lambda: resigned('{"alg": "none", "alg": "HS256", "kid": "newest"}', json.dumps(claims())),
    "kid twice": lambda: resigned('{"alg": "HS256", "kid": "other", "kid": "newest"}', json.dumps(claims())),
    "no alg": lambda: resigned('{"kid": "newest"}', json.dumps(claims())),
    "no kid": lambda: resigned('{"alg": "HS256"}', json.dumps(claims())),
    "a header that is a list": lambda: resigned("[]", json.dumps(claims())),
    "a header that is a text": lambda: resigned('"HS256"', json.dumps(claims())),
    "a header that is empty": lambda: resigned("", json.dumps(claims())),
    "a header that is no JSON": lambda: resigned("{alg: HS256}", json.dumps(claims())),
    "a header of brackets": lambda: resigned("[" * 2500, json.dumps(claims())),
}
TIMES = {
    "expired": lambda: own(iat=NOW - 2 * HOUR, exp=NOW - HOUR),
    "expired a second ago": lambda: own(exp=int(time.time()) - 1),
    "not valid yet": lambda: own(nbf=NOW + HOUR),
    "made in the future": lambda: own(iat=NOW + HOUR, exp=NOW + 2 * HOUR),
    "ended before it was made": lambda: own(iat=NOW, exp=NOW - 1),
    **{f"exp {value!r}": (lambda value=value: own(exp=value)) for value in (True, False, {}, -1, 0, 10**30, 1e308)},
    # Names without the time: processes that share the tests must agree on them.
    "exp soon and a half": lambda: own(exp=NOW + 300.5),
    "exp soon, as text": lambda: own(exp=f"{NOW + 300}"),
    "exp soon, in a list": lambda: own(exp=[NOW + 300]),
    **{
        f"{name} {value!r}": (lambda name=name, value=value: own(**{name: value}))
        for name in ("iat", "nbf")
        for value in (True, 1.5, "1", [1], -1, 10**30)
    },
    "exp NaN": lambda: resigned(
        '{"alg": "HS256", "kid": "newest"}', json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": NaN')
    ),
    "exp Infinity": lambda: resigned(
        '{"alg": "HS256", "kid": "newest"}', json.dumps(claims(exp=0)).replace('"exp": 0', '"exp": Infinity')
    ),
}
CLAIMS = {
    "another audience": lambda: own(aud="someone-else"),
    "another issuer": lambda: own(iss="someone-else"),
    "an issuer that begins like ours": lambda: own(iss=ISSUER + ".evil.example"),
    **{
        f"no {name}": (lambda name=name: own(**{name: None}))
        for name in ("iss", "aud", "sub", "tenant", "scope", "iat", "exp", "jti")
    },
    **{
        f"{name} {value!r}": (lambda name=name, value=value: own(**{name: value}))
        for name in ("iss", "aud", "sub", "tenant", "scope", "jti")
        for value in ("", 5, True, [], ["admin"], {"admin": 1})
    },
    **{
        f"{name} null": (
            lambda name=name: resigned('{"alg": "HS256", "kid": "newest"}', json.dumps({**claims(), name: None}))
        )
        for name in ("sub", "tenant", "scope", "jti", "exp")
    },
    **{
        f"{name} twice": (lambda name=name: resigned('{"alg": "HS256", "kid": "newest"}', twice(name, claims()[name])))
        for name in ("sub", "tenant", "scope", "exp", "jti")
    },
    "our audience among others": lambda: own(aud=[AUDIENCE, "other"]),
    "scopes as a list": lambda: own(scope=["jobs:read", "admin"]),
    **{
        f"tenant {value!r}": (lambda value=value: own(tenant=value))
        for value in (
            "a b",
            "ä",
            ".",
            "..",
            "../acme",
            "acme\n",
            "acme\0",
            "-",
            "t" * 64,
            "*",
            "%",
            "'; DROP TABLE job",
        )
    },
    "a subject with a line break": lambda: own(sub="a\r\nb"),
    "a subject with a NUL": lambda: own(sub="a\0b"),
    "a subject that is half a letter": lambda: own(sub="\ud800"),
    "a subject of a page": lambda: own(sub="s" * 201),
    "an id of a page": lambda: own(jti="j" * 201),
    "claims that are a list": lambda: resigned('{"alg": "HS256", "kid": "newest"}', "[]"),
    "claims that are no JSON": lambda: resigned('{"alg": "HS256", "kid": "newest"}', "sub=admin"),
    "claims that are empty": lambda: resigned('{"alg": "HS256", "kid": "newest"}', ""),
    "claims of brackets": lambda: resigned('{"alg": "HS256", "kid": "newest"}', "[" * 2500),
}
SPELLINGS: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "a word": lambda: "admin",
    "dots": lambda: "..",
    "no signature": lambda: own().rpartition(".")[0],
    "an empty signature": lambda: own().rpartition(".")[0] + ".",
    "a fourth part": lambda: own() + ".e30",
    "a dot behind": lambda: own() + ".",
    "garbage behind": lambda: own() + "!!",
    "a letter behind": lambda: own() + "A",
    "padding": lambda: own() + "=",
    "much padding": lambda: own() + "====",
    "padding of the header": lambda: "=.".join(own().split(".", 1)),
    "another last letter of the signature": other_ending,
    "the other alphabet": plus_and_slash,
    "a space within": lambda: own()[:20] + " " + own()[20:],
    "a comma and another one": lambda: f"{own()},{own()}",
    "letters of no alphabet": lambda: "é" + own()[1:],
    "a signature of zeros": lambda: own().rpartition(".")[0] + "." + "A" * 43,
    "half of a signature": lambda: own()[:-20],
    "a huge token": lambda: own(note="x" * 8_000),
    "a huge word": lambda: "x" * 100_000,
    "encrypted parts": lambda: ".".join(["e30"] * 5),
    "the JSON form": lambda: base64.b64encode(json.dumps({"payload": "e30", "signatures": []}).encode()).decode(),
}
FORGED: dict[str, Callable[[], str]] = {
    **CONFUSED,
    **ALGORITHMS,
    **KIDS,
    **HEADERS,
    **TIMES,
    **CLAIMS,
    **SPELLINGS,
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_token_is_not_believed(http: FlaskClient, name: str) -> None:
    token = FORGED[name]()
    answer = http.get("/v1/jobs", headers={"Authorization": f"Bearer {token}"})
    assert (answer.status_code, answer.mimetype) == (401, "application/problem+json"), answer.data
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert len(token) < 10 or token not in answer.get_data(as_text=True)


@pytest.mark.parametrize("scheme", ["Basic", "Digest", "bearer:", "Token", ""])
def test_a_token_counts_as_a_bearer_token_only(http: FlaskClient, scheme: str) -> None:
    assert http.get("/v1/jobs", headers={"Authorization": f"{scheme} {own()}".strip()}).status_code == 401


@pytest.mark.parametrize("name", ["access_token", "token", "authorization", "Authorization"])
def test_a_token_counts_in_its_header_only(http: FlaskClient, name: str) -> None:
    assert http.get(f"/v1/jobs?{name}={own()}").status_code == 401
    assert http.get("/v1/jobs", headers={"Cookie": f"{name}={own()}"}).status_code == 401
    assert http.post("/v1/jobs", data={name: own()}).status_code == 401


def test_two_headers_are_no_token(http: FlaskClient) -> None:
    """Whichever of them a proxy looked at, we do not look at the other one."""
    for second in (own(), "x"):
        headers = [("Authorization", f"Bearer {own()}"), ("Authorization", f"Bearer {second}")]
        assert http.get("/v1/jobs", headers=headers).status_code == 401


def test_a_key_set_that_must_not_be_believed_keeps_the_api_from_starting(settings: Settings, tmp_path: Path) -> None:
    refused = {
        "shared secret": forging.own_entry("k", b"x" * 48),
        "private key": forging.rsa_jwk(d="AQAB"),
        "not accepted": forging.rsa_jwk(alg="RS512"),
        "no kid": {name: value for name, value in forging.rsa_jwk().items() if name != "kid"},
        "broken": forging.ed_jwk(x="AAAA"),
        "bits": forging.rsa_jwk(n=forging.text64(b"\xc1" + b"\x01" * 127)),
        "of a kind": forging.ec_jwk(crv="P-384"),
    }
    for told, entry in refused.items():
        file = forging.write_key_set(tmp_path / "jwks.json", entry)
        with pytest.raises(Exception, match=told):
            create_app(settings.model_copy(update={"jwks_file": file}))
    for content in ("", "[]", '{"keys": {}}', "-----BEGIN PUBLIC KEY-----", '{"keys": [1]}'):
        (tmp_path / "jwks.json").write_text(content)
        with pytest.raises(Exception, match="no JSON Web Key Set"):
            create_app(settings.model_copy(update={"jwks_file": tmp_path / "jwks.json"}))
    with pytest.raises(Exception, match="SCOREHOUSE_JWKS_AUDIENCE: set both"):
        create_app(settings.model_copy(update={"jwks_audience": None}))
    with pytest.raises(Exception, match="our own tokens' issuer"):
        create_app(settings.model_copy(update={"jwks_issuer": ISSUER}))


def test_a_guessable_key_keeps_the_api_from_starting(settings: Settings, tmp_path: Path) -> None:
    for content in (
        "",
        "secret",
        "k" * 31,
        '{"keys": []}',
        '{"keys": [{"kty": "oct", "alg": "HS256", "kid": "a", "k": "YQ"}]}',
    ):
        (tmp_path / "jwt.key").write_text(content)
        with pytest.raises(Exception, match=r"shorter than 32 bytes|is no key set") as refused:
            create_app(settings.model_copy(update={"jwt_key_file": tmp_path / "jwt.key"}))
        assert "secret" not in str(refused.value)


def test_no_letter_of_a_token_can_be_another_one(settings: Settings) -> None:
    verifier, token = Verifier(settings), own()
    assert verifier.read(token).subject == "tests"
    for place, letter in enumerate(token):
        other = LETTERS[(LETTERS.find(letter) + 1) % len(LETTERS)]
        for changed in (token[:place] + other + token[place + 1 :], token[:place] + token[place + 1 :]):
            with pytest.raises(Unauthorized):
                verifier.read(changed)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)
NAMES = ("iss", "aud", "sub", "tenant", "scope", "iat", "exp", "nbf", "jti")


@hypothesis.settings(max_examples=300, deadline=None)
@hypothesis.given(
    header=st.dictionaries(st.sampled_from(("alg", "kid", "typ", "crit", "jwk", "x")), JSON, max_size=3),
    body=st.dictionaries(st.sampled_from(NAMES), JSON, max_size=3),
)
def test_whatever_a_signed_token_says_it_is_believed_or_refused(
    settings: Settings, header: dict[str, Any], body: dict[str, Any]
) -> None:
    """Never another error; and what is believed has names and a time that the rest of the code can work with."""
    verifier = Verifier(settings)
    for head, said in (({}, body), (header, {}), (header, body)):
        token = written({"alg": "HS256", "kid": "newest"} | head, claims() | said, hs256(forging.NEWEST))
        try:
            caller = verifier.read(token)
        except Unauthorized:
            continue
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,63}", caller.tenant)
        assert 0 < len(caller.subject.encode()) <= 800
        assert datetime.fromtimestamp(caller.expires, UTC) > datetime.now(UTC)


@hypothesis.settings(max_examples=500, deadline=None)
@hypothesis.given(st.binary(max_size=60) | st.text(max_size=60))
def test_no_text_is_a_token(text: str | bytes) -> None:
    parts = text.decode("latin-1") if isinstance(text, bytes) else text
    for token in (parts, f"{parts}.{parts}.{parts}", f"{forging.text64(parts.encode(errors='replace'))}.e30.e30"):
        with contextlib.suppress(Unauthorized):
            parsed(token)
