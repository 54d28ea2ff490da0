"""Tokens and keys of a running stack, whose API is two processes."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest
from house import House

from api import keys
from api.tokens import make_token
from scorehouse_client import Client, ScorehouseApiError

# Of new connections, so that both processes are asked.
REQUESTS = 24


def statuses(house: House, token: str) -> set[int]:
    headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
    return {house.call("GET", "/v1/jobs?limit=1", headers=headers).status for _ in range(REQUESTS)}


def scorehouse(house: House, *arguments: str, url: bool = False, code: int = 0) -> Any:
    environment = dict(house.stack.environment)
    if url:  # as on another machine: the API is known, and nothing else
        environment["SCOREHOUSE_DATA_DIR"] = "/nonexistent"
        environment["SCOREHOUSE_TOKEN"] = house.token()
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else done.stdout + done.stderr


def test_a_running_stack_heeds_keys_that_come_and_go(house: House) -> None:
    first = house.token()
    scorehouse(house, "token", "rotate")
    second = house.token()
    assert (statuses(house, first), statuses(house, second)) == ({200}, {200})
    scorehouse(house, "token", "rotate")
    middle = scorehouse(house, "token", "keys", "--json")["keys"][1]["kid"]
    scorehouse(house, "token", "forget", middle)
    assert (statuses(house, first), statuses(house, second)) == ({200}, {401})
    assert statuses(house, house.token()) == {200}
    kids = [key.kid for key in keys.read(house.settings.resolved_jwt_key_file())]
    acts = [(entry["act"], entry["target"]) for entry in scorehouse(house, "trail", "--json")["entries"]]
    assert acts[:3] == [("key.forgotten", middle), ("key.rotated", kids[0]), ("key.rotated", middle)]


def test_both_processes_soon_refuse_a_revoked_token(house: House) -> None:
    made = make_token(house.settings, subject="app", scopes=["jobs:read"], ttl=timedelta(minutes=5))
    assert statuses(house, made.text) == {200}
    assert "1 revoked" in scorehouse(house, "token", "revoke", made.jti)
    house.until(lambda: statuses(house, made.text) == {401}, seconds=20)


def test_the_client_makes_lists_and_revokes_tokens(house: House) -> None:
    made = house.client.create_token("client", ["jobs:read", "admin"], 60)
    assert made["jti"] in {each["jti"] for each in house.client.tokens()}
    assert [each["jti"] for each in house.client.tokens(subject="client")] == [made["jti"]]
    with Client(house.url, made["token"], retry_for=0) as client:
        assert client.tokens(subject="client")
        child = client.create_token("child", ["jobs:read"], 10)
    ended = house.client.revoke_token(made["jti"], why="over")
    assert (ended["jti"], ended["why"]) == (made["jti"], "over")
    house.until(lambda: statuses(house, made["token"]) == statuses(house, child["token"]) == {401}, seconds=20)
    entries = house.client.audit_trail(act="token.revoked", limit=2)
    assert {entry["target"] for entry in entries} == {made["jti"], child["jti"]}
    with Client(house.url, house.token(), retry_for=0) as client, pytest.raises(ScorehouseApiError) as refused:
        client.create_token("client", ["metrics:read"], 60)
    assert refused.value.status == 403


def test_commands_ask_an_api_where_the_database_is_not_known(house: House) -> None:
    made = house.client.create_token("elsewhere", ["jobs:read"], 60)
    listed = scorehouse(house, "token", "list", "--subject", "elsewhere", "--json", url=True)
    assert [each["jti"] for each in listed["tokens"]] == [made["jti"]]
    assert "1 revoked" in scorehouse(house, "token", "revoke", "--subject", "elsewhere", url=True)
    entries = scorehouse(house, "trail", "--act", "token.revoked", "--json", url=True)["entries"]
    assert entries[0]["target"] == made["jti"]
    assert "token.revoked" in scorehouse(house, "trail", url=True)
    told = scorehouse(house, "token", "create", "--tenant", "t", "--scope", "admin", url=True, code=1)
    assert "there is no signing key" in told
