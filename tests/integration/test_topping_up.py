"""Permits on a real broker: what waits is topped up, so that a queue nobody takes from does not grow."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery
from structlog.testing import CapturingLogger

import permits
from embedded.valkey import Valkey
from permits import PERMITS, Publisher, celery_app, publish, top_up
from settings import get_settings


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Valkey]:
    """One of its own: nobody else publishes."""
    valkey = Valkey(tmp_path / "valkey")
    valkey.start()
    yield valkey
    valkey.stop()


@pytest.fixture
def app(broker: Valkey, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", broker.url)
    get_settings.cache_clear()
    app = celery_app("topping-up")
    yield app
    app.close()
    get_settings.cache_clear()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    log = CapturingLogger()
    monkeypatch.setattr(permits, "_log", log)
    return log


def connected(broker: Valkey) -> redis.Redis:
    return redis.Redis.from_url(broker.url.replace("redis+socket", "unix"))


def waiting(broker: Valkey, kind: str) -> int:
    with connected(broker) as connection:
        return int(connection.llen(PERMITS[kind][1]))


def until(holds: Callable[[], object]) -> None:
    """Looks every 20 ms, for at most 10 s."""
    ends = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_only_what_is_missing_is_published(app: Celery, broker: Valkey) -> None:
    for count, expected in ((1, 1), (1, 1), (4, 4), (2, 4)):
        top_up(app, "bulk", count)
        assert waiting(broker, "bulk") == expected
    top_up(app, "interactive", 3)
    assert (waiting(broker, "interactive"), waiting(broker, "bulk")) == (3, 4)


def test_a_queue_that_others_filled_gets_no_more(app: Celery, broker: Valkey) -> None:
    publish(app, "bulk", 10)
    top_up(app, "bulk", 4)
    assert waiting(broker, "bulk") == 10


def test_a_connection_that_was_lost_meanwhile_costs_no_permit(
    app: Celery, broker: Valkey, said: CapturingLogger
) -> None:
    publisher = Publisher()
    publisher.want("bulk")
    until(lambda: waiting(broker, "bulk") == 1)
    with connected(broker) as connection:
        connection.client_kill_filter(_type="normal", skipme=True)
    publisher.want("bulk", 2)
    until(lambda: waiting(broker, "bulk") == 2)
    assert said.calls == []


def test_what_a_full_broker_refuses_is_offered_until_it_is_taken(
    app: Celery, broker: Valkey, said: CapturingLogger
) -> None:
    publisher = Publisher()
    with connected(broker) as connection:
        connection.config_set("maxmemory", 1)
        publisher.want("bulk", 2)
        until(lambda: connection.info("errorstats").get("errorstat_OOM", {}).get("count", 0) > 2)
        publisher.want("interactive")
        connection.config_set("maxmemory", 0)
    until(lambda: (waiting(broker, "bulk"), waiting(broker, "interactive")) == (2, 1))
    until(lambda: len(said.calls) == 2)
    assert [call.args for call in said.calls] == [("permits_failed",), ("permits_resumed",)], "once, not at each try"
