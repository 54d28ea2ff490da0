"""What a running stack lets nobody do without a secret, and who may read its files."""

from __future__ import annotations

import socket
import stat
import subprocess
import time
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
import redis
import urllib3
from house import House

from cli import secrets
from cli.background import free_port
from embedded.valkey import program

SECRETS = ("jwt.key", "admin.token", "flower.password", "stack.json")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("path", ["/", "/tasks", "/workers", "/broker", "/api/workers", "/api/tasks"])
def test_flower_needs_its_password(house: House, path: str) -> None:
    assert flower(house, path).status == 401


def test_flower_tells_nothing_without_it(house: House) -> None:
    """Its own metrics are taken out; that it lives, and its style sheets, are nobody's secret."""
    assert flower(house, "/metrics").status == 404
    assert flower(house, "/healthcheck").data == b"OK"


def test_flower_shows_what_takes_its_time_and_not_each_single_record(house: House) -> None:
    password = (house.stack.data_dir / "flower.password").read_text().strip()
    signed_in = {"Authorization": "Basic " + b64encode(f"admin:{password}".encode()).decode()}

    def shown() -> set[str]:
        return {task["name"] for task in flower(house, "/api/tasks", signed_in).json().values()}

    record = {"amount": 1.0, "visits": 1, "segment": "gold", "active": True, "note": "x"}
    assert house.call("POST", "/v1/jobs", {"model": "toy", "inputs": record}, {"Prefer": "wait=20"}).status == 200
    house.finished(house.submit(model="toy", inputs=[record] * 100))
    house.until(lambda: "score.bulk" in shown())
    assert "score.interactive" not in shown()


def flower(house: House, path: str, headers: Mapping[str, str] | None = None) -> urllib3.BaseHTTPResponse:
    url = str(house.stack.found["flower_url"]) + path
    return urllib3.request("GET", url, redirect=False, retries=False, headers=headers)


def test_metrics_need_a_token_behind_a_proxy(house: House) -> None:
    proxied = {"X-Forwarded-For": "203.0.113.7", "Authorization": ""}
    assert house.call("GET", "/metrics", headers=proxied).status == 401
    for scope, status in (("admin", 403), ("metrics:read", 200)):
        allowed = {**proxied, "Authorization": f"Bearer {house.token('default', scope)}"}
        assert house.call("GET", "/metrics", headers=allowed).status == status


def test_the_servers_listen_on_no_port(house: House) -> None:
    """Postgres and Valkey are reached by sockets in folders that are their owner's alone."""
    for name in ("Postgres", "Valkey"):
        process = psutil.Process(int(house.stack.found["pids"][name]))
        listening = [each for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
        assert listening == []
    assert mode(Path(urlsplit(str(house.stack.found["broker_url"])).path).parent) == 0o700


def test_what_listens_does_so_on_loopback(house: House) -> None:
    for name in ("api", "flower"):
        process = psutil.Process(int(house.stack.found["pids"][name]))
        addresses = {each.laddr.ip for each in process.net_connections() if each.status == psutil.CONN_LISTEN}
        assert addresses == {"127.0.0.1"}


def test_files_are_their_owners_alone(house: House) -> None:
    assert not mode(house.stack.data_dir) & 0o066, "nobody else lists it"
    assert {name: mode(house.stack.data_dir / name) for name in SECRETS} == dict.fromkeys(SECRETS, 0o600)


def test_the_valkey_of_compose_needs_its_password(tmp_path: Path) -> None:
    """With the very configuration that `scorehouse secrets create` writes."""
    folder = tmp_path / "secrets"
    secrets.create(folder)
    port = free_port(0)
    command = [str(program()), str(folder / "redis_conf"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    server = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL)
    try:
        _wait_for(port)
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port).ping()
        with pytest.raises(redis.AuthenticationError):
            redis.Redis(port=port, password="guess").ping()
        assert redis.Redis(port=port, password=(folder / "redis_password").read_text()).ping()
    finally:
        server.terminate()
        server.wait(20)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < deadline, "Valkey does not listen"
        time.sleep(0.05)
