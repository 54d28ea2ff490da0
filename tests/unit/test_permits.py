"""Permits of an installation that has no broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from permits import Publisher
from settings import get_settings


def test_without_one_nothing_is_published_and_that_is_said_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCOREHOUSE_DATA_DIR", str(tmp_path))
    monkeypatch.delenv("SCOREHOUSE_BROKER_URL", raising=False)
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
    assert "".join(capfd.readouterr()).count("no_broker") == 1
