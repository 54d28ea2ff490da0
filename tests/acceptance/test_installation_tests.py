"""The integration tests of the pipeline, which a release must pass on staging, against the stack of the acceptance tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from house import House

FOLDER = Path(__file__).parents[1] / "staging"


def run(house: House, token: str, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"STAGING_URL": house.url, "STAGING_TOKEN": token, **variables}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--quiet", *options, str(FOLDER)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_good_installation_passes_with_the_scopes_that_are_documented(house: House) -> None:
    as_of_now = "SELECT count(*) FROM job WHERE as_of IS NULL"
    before = house.query(as_of_now)
    done = run(house, house.token("default", "models:read", "jobs:read", "jobs:write"), STAGING_RELEASE="0.1.0")
    assert done.returncode == 0, done.stdout
    assert "6 passed" in done.stdout
    assert house.query(as_of_now) == before, "audits would take them for customers"


def test_another_release_than_the_one_that_was_brought_out_fails(house: House) -> None:
    done = run(house, house.token(), "-k", "healthy", STAGING_RELEASE="0.2.0")
    assert done.returncode == 1
    assert "1 failed" in done.stdout
