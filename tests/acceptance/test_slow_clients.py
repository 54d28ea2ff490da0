"""What slow and endless clients of one tenant cost the others: nothing that can be seen."""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from house import House
from toys import COLUMNS, VERSION, Toy, customers

from benchmarks.slow_clients import ANNOUNCED_BYTES, HEADER, LINE, EndlessBody, slow_bodies, slow_heads, upload_head
from scorehouse_client import Client

HOSTILE = "hostile"
SLOW_CLIENTS = 200
SINGLES = 60
ENDLESS_BYTES = 60_000_000
PLACES = 12
FLAT_BYTES = 64 * 1024 * 1024


@pytest.fixture(scope="module")
def hostile(house: House, toys: dict[str, Toy]) -> str:
    """The token of a tenant that has a model of its own, and may submit."""
    toy, token = toys["toy"], house.token(HOSTILE)
    with Client(house.url, token, retry_for=0) as client:
        client.register_version(
            toy.name, VERSION, toy.artefact, toy.reference, key=toy.key, target=toy.target, trust=True
        )
        client.deploy(toy.name, VERSION)
    return token


def api_processes(house: House) -> list[psutil.Process]:
    return psutil.Process(int(house.stack.found["pids"]["api"])).children()


def submit_one(house: House, record: dict[str, Any]) -> str:
    inputs = dict(record)
    answer = house.submit(model="toy", key=inputs.pop("id"), inputs=inputs)
    assert answer.status == 202, answer.body
    return str(answer.json["id"])


def test_slow_clients_and_an_endless_body_do_not_stop_the_submits_of_others(
    house: House, hostile: str, toy: Toy
) -> None:
    records = json.loads(customers(SINGLES, seed=3)[["id", *COLUMNS]].to_json(orient="records"))
    before = {process.pid: process.memory_info().rss for process in api_processes(house)}
    heads = slow_heads(house.url, SLOW_CLIENTS)
    bodies = slow_bodies(house.url, SLOW_CLIENTS, hostile, toy.name)
    endless = EndlessBody(house.url, hostile, toy.name, ENDLESS_BYTES)
    with ExitStack() as attack, ThreadPoolExecutor(4) as pool:
        attack.enter_context(endless.running())
        attack.enter_context(heads.running())
        attack.enter_context(bodies.running())
        assert heads.connected == SLOW_CLIENTS
        jobs = list(pool.map(lambda record: submit_one(house, record), records))
        for job_id in jobs:
            job = house.client.wait(job_id, timeout=60)
            assert job.state == "succeeded"
        house.until(lambda: endless.sent >= ENDLESS_BYTES or endless.answer)
        house.until(lambda: heads.connected + bodies.connected > SLOW_CLIENTS)  # the attack is on to the end
        after = {process.pid: process.memory_info().rss for process in api_processes(house)}
    assert set(after) == set(before), "no process of the API has died"
    assert all(after[pid] - before[pid] < FLAT_BYTES for pid in after), (before, after)
    kept = "SELECT 1 FROM job WHERE tenant = :tenant AND endpoint <> 'validation'"
    house.until(lambda: not house.query(kept, tenant=HOSTILE))
    assert house.query("SELECT 1 FROM chunk WHERE NOT EXISTS (SELECT 1 FROM job WHERE id = job_id)") == []


def test_uploads_beyond_the_places_of_a_tenant_wait_and_those_that_stall_end(
    house: House, hostile: str, toy: Toy
) -> None:
    """Two processes with six places each; what has stalled for thirty seconds has none any more."""
    with ExitStack() as stack:
        clients = [stack.enter_context(house.raw_connection()) for _ in range(PLACES + 4)]
        for client in clients:
            client.settimeout(60)
            client.sendall(upload_head(hostile, toy.name, f"Content-Length: {ANNOUNCED_BYTES}") + HEADER + LINE)
        heads = [client.makefile("rb").read().decode() for client in clients]
    statuses = Counter(int(head.split()[1]) for head in heads)
    assert set(statuses) == {429, 408}
    assert statuses[429] >= 4
    assert all("Retry-After: 1\r\n" in head for head in heads if " 429 " in head.splitlines()[0])
    assert all("1,024 bytes per second" in head for head in heads if " 408 " in head.splitlines()[0])
    assert not house.query("SELECT 1 FROM job WHERE tenant = :tenant AND state = 'receiving'", tenant=HOSTILE)
    again = house.call(
        "POST", "/v1/jobs", HEADER + LINE, {"Content-Type": "text/csv"}, tenant=HOSTILE, query={"model": "toy"}
    )
    assert again.status == 202
