"""`scorehouse token …` and `scorehouse trail` as whoever runs an installation uses them."""

from __future__ import annotations

import io
import json
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from api.tokens import create_token, make_token
from api.verification import Verifier
from cli.database import user
from cli.main import run
from settings import Settings, get_settings

NOWHERE = "postgresql://scorehouse:hunter2@127.0.0.1:1/nothing"


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Outcome]


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """What the commands find in their environment."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jwt.key").write_text("k" * 64)
    (tmp_path / "jwt.key").chmod(0o600)
    monkeypatch.setenv("SCOREHOUSE_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("SCOREHOUSE_DATABASE_URL", database_url)
    return Settings(data_dir=tmp_path)


@pytest.fixture
def command(settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str, stdin: str = "", **variables: str) -> Outcome:
        with monkeypatch.context() as environment:
            for name, value in variables.items():
                environment.setenv(f"SCOREHOUSE_{name.upper()}", value)
            environment.setattr(sys, "stdin", io.StringIO(stdin))
            get_settings.cache_clear()
            code = run(arguments)
        get_settings.cache_clear()
        said = capsys.readouterr()
        return Outcome(code, said.out, said.err)

    return call


def made(command: Command, *more: str) -> str:
    outcome = command("token", "create", "--tenant", "acme", "--scope", "jobs:read,jobs:write", *more)
    assert outcome.code == 0, outcome.err
    return outcome.out.strip()


def test_a_token_goes_through_its_life(command: Command, settings: Settings) -> None:
    token = made(command, "--subject", "app", "--ttl", "2h")
    caller = Verifier(settings).read(token)
    assert (caller.subject, caller.tenant, caller.scopes) == ("app", "acme", {"jobs:read", "jobs:write"})
    listed = command("token", "list", "--json")
    assert [each["jti"] for each in listed.json["tokens"]] == [caller.jti]
    assert listed.json["tokens"][0]["created_by"] == user()
    assert command("token", "list", "--tenant", "other", "--json").json == {"tokens": []}
    assert caller.jti in command("token", "list").out
    shown = command("token", "show", "-", "--json", stdin=token + "\n")
    assert (shown.code, shown.json["state"], shown.json["sub"], shown.json["tenant"]) == (0, "good", "app", "acme")
    ended = command("token", "revoke", caller.jti, "--why", "lost")
    assert (ended.code, "1 revoked" in ended.err) == (0, True)
    assert command("token", "revoke", caller.jti).err.startswith("It was revoked already")
    shown = command("token", "show", "--json", token=token)
    assert (shown.code, shown.json["state"]) == (1, "revoked")
    acts = [(entry["act"], entry["by"]) for entry in command("trail", "--json").json["entries"]]
    assert acts == [("token.revoked", user()), ("token.made", user())]
    assert [entry["act"] for entry in command("trail", "--act", "token.made", "--json").json["entries"]] == [
        "token.made"
    ]
    for outcome in (listed, shown, ended, command("trail"), command("token", "list")):
        assert token not in outcome.out + outcome.err


def test_all_tokens_of_a_subject_are_revoked(command: Command) -> None:
    for _ in range(3):
        made(command, "--subject", "app")
    made(command, "--subject", "other")
    assert "3 revoked" in command("token", "revoke", "--subject", "app").err
    again = command("token", "revoke", "--subject", "app")
    assert (again.code, "no good token" in again.err) == (1, True)
    states = {each["subject"]: each["revoked_at"] for each in command("token", "list", "--json").json["tokens"]}
    assert states["other"] is None
    assert states["app"] is not None


def test_a_token_is_made_without_the_database_and_says_so(command: Command, settings: Settings) -> None:
    outcome = command("token", "create", "--tenant", "acme", "--scope", "admin", database_url=NOWHERE)
    caller = Verifier(settings).read(outcome.out.strip())
    assert outcome.code == 0
    assert "Not on record (the database cannot serve this now" in outcome.err
    assert "hunter2" not in outcome.err
    assert command("token", "list", "--json").json == {"tokens": []}
    assert "1 revoked" in command("token", "revoke", caller.jti).err
    assert command("token", "show", "-", stdin=outcome.out).code == 1


@pytest.mark.parametrize("url", ["postgresql://u:hunter2@[::1", "nonsense hunter2", "mysql://u:hunter2@h/d"])
def test_a_wrong_database_url_is_not_repeated(command: Command, url: str) -> None:
    for arguments in (["token", "list"], ["trail"], ["db", "check"], ["doctor"], ["db", "upgrade"]):
        outcome = command(*arguments, database_url=url)
        assert outcome.code == 1
        assert "hunter2" not in outcome.out + outcome.err


def test_keys_are_rotated_listed_and_forgotten(command: Command, settings: Settings) -> None:
    before = made(command)
    assert command("token", "rotate").code == 0
    listed = command("token", "keys", "--json")
    newest, former = listed.json["keys"]
    assert (newest["use"], former["use"], former["kid"], former["age_days"]) == ("signs", "verifies", "local", 0)
    assert command("token", "show", "-", stdin=before).code == 0
    assert command("token", "forget", newest["kid"]).code == 1
    assert command("token", "forget", "local").code == 0
    shown = command("token", "show", "-", "--json", stdin=before)
    assert (shown.code, shown.json["state"], "key is not known" in shown.json["reason"]) == (1, "refused", True)
    targets = [(entry["act"], entry["target"], entry["tenant"]) for entry in command("trail", "--json").json["entries"]]
    assert targets[:2] == [("key.forgotten", "local", None), ("key.rotated", newest["kid"], None)]
    secret = json.loads((settings.data_dir / "jwt.key").read_text())["keys"][0]["k"]
    assert secret not in listed.out + command("token", "keys").out
    assert stat.S_IMODE((settings.data_dir / "jwt.key").stat().st_mode) == 0o600


def test_the_admin_token_is_renewed_when_its_key_is_forgotten(command: Command, settings: Settings) -> None:
    file = settings.data_dir / "admin.token"
    file.write_text(create_token(settings, subject="admin", scopes=["admin"], ttl=timedelta(days=300)))
    file.chmod(0o600)
    command("token", "rotate")
    assert command("token", "show").code == 0
    assert "made anew" in command("token", "forget", "local").err
    assert command("token", "show").code == 0
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_key_that_cannot_be_replaced_stays_as_it_is(command: Command, settings: Settings) -> None:
    content = '{"keys": [broken'
    (settings.data_dir / "jwt.key").write_text(content)
    outcome = command("token", "rotate")
    assert (outcome.code, "no key set" in outcome.err, "broken" in outcome.err) == (1, True, False)
    assert (settings.data_dir / "jwt.key").read_text() == content
    (settings.data_dir / "jwt.key").unlink()
    for name in ("rotate", "keys"):
        assert "there is no signing key" in command("token", name).err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["create", "--tenant", "a b", "--scope", "admin"], 1),
        (["create", "--tenant", "acme", "--scope", "root"], 1),
        (["create", "--tenant", "acme", "--scope", "admin", "--ttl", "400d"], 1),
        (["create", "--tenant", "acme", "--scope", "admin", "--ttl", "soon"], 2),
        (["create", "--tenant", "acme", "--scope", "admin", "--ttl", "0d"], 1),
        (["revoke"], 2),
        (["revoke", "x", "--subject", "y"], 2),
        (["show", "eyJhbGciOiJIUzI1NiJ9.e30.x"], 2),
    ],
)
def test_what_is_wrong_is_told(command: Command, arguments: list[str], code: int) -> None:
    outcome = command("token", *arguments)
    assert (outcome.code, outcome.out) == (code, "")
    assert outcome.err
    assert "Traceback" not in outcome.err


def test_a_token_of_elsewhere_is_shown_but_not_believed(command: Command, settings: Settings) -> None:
    token = make_token(settings, subject="s", tenant="acme", scopes=["admin"], ttl=timedelta(hours=1)).text
    (settings.data_dir / "jwt.key").unlink()
    shown = command("token", "show", "-", "--json", stdin=token)
    assert (shown.code, shown.json["state"], shown.json["tenant"]) == (1, "unchecked", "acme")
    nothing = command("token", "show", "-", stdin="no token")
    assert (nothing.code, "no JSON Web Token" in nothing.err) == (1, True)


def test_secrets_are_made_private_and_the_metrics_token_opens_metrics_alone(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = command("secrets", "create", str(tmp_path / "secrets"))
    assert outcome.code == 0
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert file.read_text().strip() not in outcome.out + outcome.err
    found = Verifier(Settings(jwt_key_file=folder / "scorehouse_jwt_key")).read(
        (folder / "scorehouse_metrics_token").read_text()
    )
    assert found.scopes == {"metrics:read"}
    assert not found.has("audits:read")


def test_doctor_tells_of_secrets_that_others_can_read(command: Command, settings: Settings) -> None:
    def finding() -> tuple[str, str]:
        checks = {check["name"]: check for check in command("doctor", "--json").json["checks"]}
        return checks["secrets"]["state"], checks["secrets"]["advice"]

    assert finding() == ("ok", "")
    (settings.data_dir / "jwt.key").chmod(0o640)
    assert finding() == ("warning", f"chmod 600 {settings.data_dir / 'jwt.key'}")


def test_an_api_with_keys_that_are_no_good_is_not_started(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "jwks.json"
    file.write_text('{"keys": [{"kty": "oct", "kid": "k", "k": "c2VjcmV0"}]}')
    issuer = {"jwks_issuer": "https://issuer.example", "jwks_audience": "scores"}
    told = command("api", jwks_file=str(file), **issuer)
    assert (told.code, "shared secret" in told.err, "c2VjcmV0" in told.err) == (1, True, False)
    assert "set both" in command("api", jwks_file=str(file)).err
    (tmp_path / "jwt.key").write_text("short")
    assert "shorter than 32 bytes" in command("api").err
