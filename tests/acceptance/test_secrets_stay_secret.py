"""Secrets that can be told from everything else are given to a stack; then all that it says is searched for them."""

from __future__ import annotations

import os
import secrets
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from house import House
from sqlalchemy import Engine

from api.tokens import make_token
from cli.background import BackgroundStack, free_port
from db import alerts
from db.engine import transaction
from db.tables import model, model_version

# What may hold a secret, each for its owner alone.
PRIVATE = {"jwt.key", "flower.password", "admin.token", "stack.json"}


def canary(name: str) -> str:
    return f"canary-{name}-{secrets.token_hex(12)}"


@dataclass
class Canaries:
    """The secrets by what they are, and everything that was said."""

    secrets: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    def found(self) -> list[str]:
        return [
            f"{name} in {place}: …{text[max(0, text.index(secret) - 120) : text.index(secret)]}"
            for place, text in self.said.items()
            for name, secret in self.secrets.items()
            if secret in text
        ]


@pytest.fixture
def canaries() -> Canaries:
    names = ("key", "flower", "database", "broker", "webhook-address", "webhook", "smtp")
    return Canaries({name: canary(name) for name in names})


@pytest.fixture
def own_house(
    canaries: Canaries, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[House]:
    stack, known = BackgroundStack(tmp_path / "data"), canaries.secrets
    stack.data_dir.mkdir(mode=0o711)
    for name, secret in (("jwt.key", known["key"]), ("flower.password", known["flower"])):
        (stack.data_dir / name).write_text(secret)
        (stack.data_dir / name).chmod(0o600)
    away = f"http://127.0.0.1:{free_port(0)}"
    variables = {
        "DATABASE_URL": sa.make_url(database_url).set(password=known["database"]).render_as_string(hide_password=False),
        "ALERT_WEBHOOK_URL": f"{away}/hooks/{known['webhook-address']}",
        "ALERT_WEBHOOK_SECRET": known["webhook"],
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": away.rpartition(":")[2],
        "SMTP_USER": "alerts",
        "SMTP_PASSWORD": known["smtp"],
        "ALERT_EMAIL_FROM": "alerts@example.org",
        "ALERT_EMAIL_TO": "ops@example.org",
        "LOG_LEVEL": "DEBUG",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"SCOREHOUSE_{name}", value)
    stack.start(1, free_port(0), free_port(0))
    house = House.of(stack)
    yield house
    house.client.close()
    house.engine.dispose()
    stack.stop()


def test_no_secret_is_said_aloud(own_house: House, canaries: Canaries, engine: Engine, tmp_path: Path) -> None:
    house, said = own_house, canaries.said
    token = make_token(house.settings, subject="canary", scopes=["admin"], ttl=timedelta(minutes=30)).text
    canaries.secrets["bearer token"] = token.rpartition(".")[2]
    canaries.secrets["admin's token"] = (house.stack.data_dir / "admin.token").read_text().strip().rpartition(".")[2]

    requests(house, token, said)
    unreachable_channels(house, engine)
    flower(house, said)
    commands(house, token, said, tmp_path)
    without_their_broker(house, canaries, tmp_path)

    processes = [psutil.Process(int(house.stack.found["pid"]))]
    processes += processes[0].children(recursive=True)
    assert len(processes) > 5
    for process in processes:
        said[f"command line of {process.pid}"] = " ".join(process.cmdline())
    with engine.connect() as connection:
        for table in ("token", "audit_trail", "alert_event", "job"):
            rows = connection.execute(sa.text(f"SELECT to_jsonb({table})::text FROM {table}")).scalars()
            said[f"table {table}"] = "\n".join(rows)
    own_house.stack.stop()
    for path in files(house.stack.data_dir):
        said[str(path)] = path.read_text(errors="replace")
    assert "alert" in said[str(house.stack.log_file)], "the log says nothing, so nothing was shown"
    assert canaries.found() == []


def test_what_holds_a_secret_is_its_owners_alone(own_house: House) -> None:
    folder = own_house.stack.data_dir
    assert stat.S_IMODE(folder.stat().st_mode) in (0o700, 0o711)
    for name in PRIVATE:
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600, name
    created = [path for path in folder.iterdir() if stat.S_IMODE(path.stat().st_mode) & 0o022]
    assert created == [], "nobody else may write here"


def test_a_malformed_request_is_not_repeated(house: House) -> None:
    """What the server refuses before our code sees it may carry a token in the wrong place."""
    token = house.token()
    for head in (
        f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization Bearer {token}\r\n\r\n",
        f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\n Authorization: Bearer {token}\r\n\r\n",
        f"GET /v1/jobs?access_token={token} HTTP/9\r\nHost: x\r\n\r\n",
        f"GET /v1/jobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\0\r\n\r\n",
        f"Bearer {token}\r\n\r\n",
    ):
        with house.raw_connection() as connection:
            connection.sendall(head.encode())
            answer = connection.recv(65_536).decode(errors="replace")
        assert " 400 " in answer
        assert token.rpartition(".")[2] not in answer
    assert token.rpartition(".")[2] not in house.stack.log_file.read_text(errors="replace")


def requests(house: House, token: str, said: dict[str, str]) -> None:
    bearer = {"Authorization": f"Bearer {token}"}
    forged = token[:-2] + ("AA" if token[-2:] != "AA" else "BB")
    asked: list[tuple[str, str, Any, dict[str, str]]] = [
        ("GET", "/v1/jobs", None, bearer),
        ("GET", f"/v1/jobs?access_token={token}", None, {"Authorization": ""}),
        ("GET", f"/v1/jobs?model={token[:60]}", None, bearer),
        ("GET", "/v1/jobs", None, {"Authorization": f"Bearer {forged}"}),
        ("GET", "/v1/jobs", None, {"Authorization": f"Basic {token}"}),
        ("GET", f"/no/such/{token[:40]}", None, bearer),
        ("POST", "/v1/jobs", b"{", {**bearer, "Content-Type": "application/json"}),
        ("POST", "/v1/jobs", b"x", {**bearer, "Content-Type": "image/png"}),
        ("POST", "/v1/jobs?model=m", b"a\n1\n", {**bearer, "Content-Type": "text/csv"}),
        ("POST", "/predict", {"model": "m"}, bearer),
        ("POST", "/v1/models/m/deployments", {"version": "1.0.0"}, bearer),
        ("POST", "/v1/models/m/versions", b"x", bearer),
        ("DELETE", "/v1/jobs", None, bearer),
        ("GET", "/v1/tokens", None, bearer),
        ("GET", "/v1/audit-trail", None, bearer),
        ("GET", "/health", None, {}),
        ("GET", "/metrics", None, {}),
        ("GET", "/openapi.json", None, {}),
    ]
    for method, path, body, headers in asked:
        answer = house.call(method, path, body, headers)
        assert answer.status < 500 or path == "/health", answer.body
        said[f"{method} {path[:30]} {answer.status}"] = f"{answer.headers}\n{answer.body.decode(errors='replace')}"


def unreachable_channels(house: House, engine: Engine) -> None:
    """An alert that is to be told by channels that nobody listens on; until it was tried."""
    with transaction(engine) as connection:
        model_id = connection.execute(
            sa.insert(model).values(tenant="default", name="m").returning(model.c.id)
        ).scalar_one()
        version = {"state": "failed", "digest": "sha256:0", "reference_digest": "sha256:1", "format": "skops"}
        more = {"runtime": "sklearn", "size": 1, "trusted": False, "created_by": "tests", "version": "1.0.0"}
        version_id = connection.execute(
            sa.insert(model_version).values(model_id=model_id, **version, **more).returning(model_version.c.id)
        ).scalar_one()
        machine = {"state": "firing", "severity": "critical", "value": 1.0}
        alert_id = alerts.put(
            connection, model_id=model_id, version_id=version_id, column="x", check="drift", machine=machine
        )
        alerts.record(connection, alert_id, origin="ok", to="firing", by="audit", document={"value": 1.0})
    house.until(lambda: house.query("SELECT 1 FROM alert_event WHERE attempts > 0"))


def flower(house: House, said: dict[str, str]) -> None:
    import urllib3

    url, password = str(house.stack.found["flower_url"]), (house.stack.data_dir / "flower.password").read_text()
    for number, login in enumerate(("admin:wrong", f"admin:{password}")):
        headers = urllib3.make_headers(basic_auth=login)
        for path in ("/", "/workers", "/tasks", "/broker", "/api/workers"):
            answer = urllib3.request("GET", url + path, headers=headers, retries=False, timeout=30.0)
            said[f"Flower {path} {number}"] = answer.data.decode(errors="replace")


def commands(house: House, token: str, said: dict[str, str], folder: Path) -> None:
    environment = {**house.stack.environment, "SCOREHOUSE_TOKEN": token}
    away = environment["SCOREHOUSE_DATABASE_URL"].replace("host=", "host=/nowhere")
    for number, (arguments, changed) in enumerate(
        [
            (["doctor"], {}),
            (["doctor", "--json"], {"SCOREHOUSE_DATABASE_URL": away}),
            (["token", "list"], {}),
            (["token", "list"], {"SCOREHOUSE_DATABASE_URL": away}),
            (["token", "show"], {}),
            (["token", "show", "--json"], {"SCOREHOUSE_TOKEN": token[:-3] + "AAA"}),
            (["token", "keys"], {}),
            (["token", "rotate"], {}),
            (["trail"], {}),
            (["jobs", "list"], {}),
            (["jobs", "list"], {"SCOREHOUSE_API_URL": "http://127.0.0.1:1"}),
            (["jobs", "list"], {"SCOREHOUSE_TOKEN": token[:-3] + "AAA"}),
            (["models", "show", "m"], {}),
            (["db", "check"], {"SCOREHOUSE_DATABASE_URL": away}),
            (["healthcheck", "worker"], {"SCOREHOUSE_DATABASE_URL": away}),
        ]
    ):
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env={**os.environ, **environment, **changed},
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert "Traceback" not in done.stderr, (arguments, done.stderr)
        said[f"command {number} {' '.join(arguments)}"] = done.stdout + done.stderr


def without_their_broker(house: House, canaries: Canaries, folder: Path) -> None:
    """Processes that cannot reach a broker whose URL holds a password, until they say so."""
    environment = {**os.environ, **house.stack.environment}
    environment["SCOREHOUSE_BROKER_URL"] = f"redis://:{canaries.secrets['broker']}@127.0.0.1:1/0"
    for arguments in (["worker", "--lane", "bulk", "--concurrency", "1"], ["beat", "--data-dir", str(folder / "beat")]):
        command = [sys.executable, "-m", "cli.main", *arguments]
        with subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
            watch = threading.Timer(90, process.kill)
            watch.start()
            assert process.stderr is not None
            lines = []
            for line in process.stderr:
                lines.append(line)
                if "127.0.0.1:1" in line or "Connection refused" in line:
                    break
            canaries.said[f"command line of {arguments[0]}"] = " ".join(psutil.Process(process.pid).cmdline())
            process.terminate()
            lines += process.stderr.readlines()
            watch.cancel()
        canaries.said[f"{arguments[0]} without a broker"] = "".join(lines)
        assert "refused" in "".join(lines)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "doctor"], env=environment, capture_output=True, text=True, check=False
    )
    canaries.said["doctor without a broker"] = done.stdout + done.stderr


def files(folder: Path) -> list[Path]:
    """All that the stack wrote, but where its secrets are kept and what the servers hold."""
    return [
        path
        for path in folder.rglob("*")
        if path.is_file() and path.name not in PRIVATE and "postgres" not in path.relative_to(folder).parts
    ]
