"""Permits on a real broker: what waits is topped up, so that a queue nobody takes from does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery

from permits import PERMITS, celery_app, publish, top_up
from settings import get_settings


@pytest.fixture
def app(servers: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", servers.broker_url)
    get_settings.cache_clear()
    app = celery_app("topping-up")
    yield app
    app.close()
    with redis.Redis.from_url(servers.broker_url.replace("redis+socket", "unix")) as broker:
        broker.delete(*(queue for _, queue in PERMITS.values()))
    get_settings.cache_clear()


def waiting(servers: Any, kind: str) -> int:
    with redis.Redis.from_url(servers.broker_url.replace("redis+socket", "unix")) as broker:
        return int(broker.llen(PERMITS[kind][1]))


def test_only_what_is_missing_is_published(app: Celery, servers: Any) -> None:
    for count, expected in ((1, 1), (1, 1), (4, 4), (2, 4)):
        top_up(app, "bulk", count)
        assert waiting(servers, "bulk") == expected
    top_up(app, "interactive", 3)
    assert (waiting(servers, "interactive"), waiting(servers, "bulk")) == (3, 4)


def test_a_queue_that_others_filled_gets_no_more(app: Celery, servers: Any) -> None:
    publish(app, "bulk", 10)
    top_up(app, "bulk", 4)
    assert waiting(servers, "bulk") == 10
