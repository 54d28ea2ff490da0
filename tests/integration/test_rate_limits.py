"""Rate limits: a tenant's bucket holds for all processes together, and guesses of tokens are bounded by address."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from flask.testing import FlaskClient
from sqlalchemy import Engine

from api.app import create_app
from api.limits import TenantLimits
from api.rate_limits import FailedAuthentications, TenantRates, network
from api.tokens import create_token
from db import quotas, rates
from db.engine import create_engine, transaction
from db.quotas import Quotas
from errors import OverQuota
from settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"api_workers": 1, "api_host": "127.0.0.1"})


@pytest.fixture
def client(settings: Settings) -> Iterator[Callable[..., FlaskClient]]:
    """Makes test clients of applications with other settings."""
    apps = []

    def make(**changed: Any) -> FlaskClient:
        apps.append(create_app(settings.model_copy(update=changed)))
        return apps[-1].test_client()

    yield make
    for app in apps:
        app.extensions["scorehouse"].close()


def bearer(settings: Settings, tenant: str = "default") -> dict[str, str]:
    token = create_token(settings, subject="t", tenant=tenant, scopes=["jobs:read"], ttl=timedelta(minutes=5))
    return {"Authorization": f"Bearer {token}"}


def admitted(processes: list[TenantRates], seconds: float) -> tuple[int, float]:
    """How many requests came through in how long, when as many as can be are sent to all processes."""
    began = time.monotonic()

    def hammer(process: TenantRates) -> int:
        number = 0
        while time.monotonic() < began + seconds:
            try:
                process.admit("a")
                number += 1
            except OverQuota:
                time.sleep(0.005)
        return number

    with ThreadPoolExecutor(len(processes) * 4) as pool:
        total = sum(pool.map(hammer, processes * 4))
    return total, time.monotonic() - began


def test_all_processes_together_keep_to_the_rate(database_url: str) -> None:
    engines = [create_engine(database_url, name="tests") for _ in range(2)]
    limits = Quotas(requests_per_second=50, burst=100)
    processes = [TenantRates(engine, TenantLimits(engine, limits)) for engine in engines]
    total, seconds = admitted(processes, 2.0)
    for engine in engines:
        engine.dispose()
    assert 100 <= total <= 100 + 50 * seconds


def test_a_bucket_fills_with_time_and_no_further_than_the_burst(engine: Engine) -> None:
    def take(wanted: int) -> int:
        with transaction(engine) as connection:
            return rates.take(connection, "a", wanted=wanted, rate=1, burst=10).number

    assert (take(4), take(10), take(1)) == (4, 6, 0)
    with transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE tenant_rate SET at = at - interval '3 seconds'")
    assert (take(10), take(10)) == (3, 0)
    with transaction(engine) as connection:
        connection.exec_driver_sql("UPDATE tenant_rate SET at = at - interval '1 hour'")
    assert take(100) == 10


def test_a_tenant_over_its_rate_is_told_when_to_come_again(
    client: Callable[..., FlaskClient], settings: Settings
) -> None:
    http = client(quota_requests_per_second=1, quota_burst=3)
    answers = [http.get("/v1/jobs", headers=bearer(settings)) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["RateLimit"] for answer in answers[:3]] == [
        '"requests";r=2;t=1',
        '"requests";r=1;t=2',
        '"requests";r=0;t=3',
    ]
    refused = answers[-1]
    problem = refused.get_json(force=True)
    assert (problem["quota"], problem["limit"]) == ("requests_per_second", 1)
    assert refused.headers["Retry-After"] == "1"
    assert refused.headers["RateLimit-Policy"] == '"requests";q=3;w=3'
    assert refused.headers["RateLimit"] == '"requests";r=0;t=1'
    # Nobody else is slowed down, and probes are not counted.
    assert http.get("/v1/jobs", headers=bearer(settings, "other")).status_code == 200
    assert {http.get("/health/live").status_code for _ in range(10)} == {200}
    told = http.get("/metrics").get_data(as_text=True)
    assert 'scorehouse_refused_total{reason="requests_per_second"}' in told


def test_a_limit_of_nothing_blocks_and_of_null_does_not_count(
    client: Callable[..., FlaskClient], settings: Settings, engine: Engine
) -> None:
    with transaction(engine) as connection:
        quotas.set_limits(connection, "blocked", {"requests_per_second": 0}, by="tests")
        quotas.set_limits(connection, "free", {"requests_per_second": None}, by="tests")
    http = client()
    assert http.get("/v1/jobs", headers=bearer(settings, "blocked")).status_code == 429
    free = http.get("/v1/jobs", headers=bearer(settings, "free"))
    assert (free.status_code, "RateLimit" in free.headers) == (200, False)


def test_without_the_database_nobody_is_told_of_a_rate(settings: Settings) -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none", name="tests")
    process = TenantRates(engine, TenantLimits(engine, Quotas(requests_per_second=5, burst=5)))
    assert process.admit("a") is not None


def test_guesses_of_tokens_are_bounded(client: Callable[..., FlaskClient], settings: Settings) -> None:
    http = client(failed_authentications_per_minute=5)
    wrong = {"Authorization": "Bearer wrong"}
    assert [http.get("/v1/jobs", headers=wrong).status_code for _ in range(7)] == [401] * 5 + [429] * 2
    refused = http.get("/v1/jobs")
    assert (refused.status_code, refused.get_json(force=True)["quota"]) == (429, "failed_authentications")
    assert 1 <= int(refused.headers["Retry-After"]) <= 12
    assert http.get("/health/live").status_code == 200
    assert http.get("/metrics").status_code == 200
    assert http.get("/v1/jobs", headers=bearer(settings)).status_code == 200
    # Who says that he is somebody else is not believed.
    assert http.get("/v1/jobs", headers={"X-Forwarded-For": "203.0.113.9"}).status_code == 429


def test_behind_a_proxy_the_address_is_what_the_proxy_says(client: Callable[..., FlaskClient]) -> None:
    http = client(failed_authentications_per_minute=1, trusted_proxies=1)

    def ask(forwarded: str) -> int:
        return http.get("/v1/jobs", headers={"X-Forwarded-For": forwarded}).status_code

    assert (ask("203.0.113.1"), ask("203.0.113.1"), ask("203.0.113.2")) == (401, 429, 401)
    # Only the last is of the proxy; the others the client may have written itself.
    assert ask("203.0.113.77, 203.0.113.2") == 429


def test_failed_authentications_are_forgotten_with_time() -> None:
    now = [0.0]
    failures = FailedAuthentications(2, clock=lambda: now[0])
    failures.count("a")
    failures.count("a")
    with pytest.raises(OverQuota) as refused:
        failures.count("a")
    assert refused.value.retry_after == 30
    now[0] = 30.0
    failures.count("a")


def test_addresses_without_end_take_no_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rate_limits._REMEMBERED", 100)
    failures = FailedAuthentications(2)
    for number in range(1_000):
        failures.count(f"203.0.{number // 256}.{number % 256}")
    assert len(failures._left) <= 100


def test_an_address_of_ipv6_stands_for_its_network() -> None:
    assert network("2001:db8::1") == network("2001:db8::ffff:1") == "2001:db8::/64"
    assert network("192.0.2.1") == "192.0.2.1"
    assert network(None) == network("") == "local"


def test_threads_of_one_process_share_a_block(database_url: str) -> None:
    engine = create_engine(database_url, name="tests")
    process = TenantRates(engine, TenantLimits(engine, Quotas(requests_per_second=1, burst=40)))
    start = threading.Barrier(8)

    def some(_: int) -> int:
        start.wait(10)
        number = 0
        for _ in range(10):
            try:
                process.admit("a")
                number += 1
            except OverQuota:
                pass
        return number

    began = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        total = sum(pool.map(some, range(8)))
    engine.dispose()
    assert 40 <= total <= 40 + 1 * (time.monotonic() - began)
