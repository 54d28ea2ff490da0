"""An installation that runs somewhere: STAGING_URL and STAGING_TOKEN say where. Without them nothing here is collected."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from scorehouse_client import Client, ModelVersion

URL, TOKEN = (os.environ.get(name, "") for name in ("STAGING_URL", "STAGING_TOKEN"))
collect_ignore_glob = [] if URL else ["test_*.py"]


@pytest.fixture(scope="session")
def url() -> str:
    return URL


@pytest.fixture(scope="session")
def client() -> Iterator[Client]:
    with Client(URL, TOKEN) as client:
        yield client


@pytest.fixture(scope="session")
def live_versions(client: Client) -> list[ModelVersion]:
    """What is in production there."""
    found = [client.version(model.name, model.production) for model in client.models() if model.production]
    assert found, "no model is in production: deploy one before the stack is examined"
    return found
