"""Permits on a real broker: what waits is topped up, so that a queue nobody takes from does not grow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from celery import Celery

from embedded.valkey import Valkey
from permits import PERMITS, celery_app, publish, top_up
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


def waiting(broker: Valkey, kind: str) -> int:
    with redis.Redis.from_url(broker.url.replace("redis+socket", "unix")) as connection:
        return int(connection.llen(PERMITS[kind][1]))


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
