"""Permits of an installation that has no broker."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import CapturingLogger

import permits
from permits import Publisher
from settings import get_settings


def test_without_one_nothing_is_published_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCOREHOUSE_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SCOREHOUSE_BROKER_URL", raising=False)
    log = CapturingLogger()
    monkeypatch.setattr(permits, "_log", log)
    get_settings.cache_clear()
    try:
        publisher = Publisher()
        for _ in range(3):
            publisher.want("bulk")
            assert publisher._thread is not None
            publisher._thread.join(10)
            assert not publisher._thread.is_alive()
    finally:
        get_settings.cache_clear()
    assert [call.args for call in log.calls] == [("no_broker",)]
