"""What must hold of every installation, through whatever stands before its API.

It scores rows made from signatures, as of long ago: no audit shall take them for customers.
"""

from __future__ import annotations

import csv
import io
import json
import os
import uuid
from typing import Any

import pytest

from cli.validation import LONG_AGO, sample_record
from scorehouse_client import Client, ModelVersion, ScorehouseApiError

SECONDS = 120.0
ROWS = 500
KEY = "staging_key"


def test_it_is_healthy_and_of_the_release_that_was_brought_out(client: Client) -> None:
    health = client.health()
    assert health["status"] == "ok", health
    wanted = os.environ.get("STAGING_RELEASE")
    assert not wanted or health["release"].partition("+")[0] == wanted


def test_nobody_enters_without_a_token(url: str) -> None:
    with Client(url, None) as stranger, pytest.raises(ScorehouseApiError) as caught:
        stranger.models()
    assert caught.value.status == 401


def test_a_record_is_scored_by_the_version_in_production(client: Client, live_versions: list[ModelVersion]) -> None:
    for version in live_versions:
        job = client.submit(version.model, sample_record(version), key="staging", as_of=LONG_AGO, wait=30)
        job = client.wait(job.id, timeout=SECONDS)
        assert job.state == "succeeded", (version.model, job.error)
        assert job.result is not None
        assert (job.result["key"], job.model_version) == ("staging", version.version)


def test_a_file_comes_back_whole_and_in_order(client: Client, live_versions: list[ModelVersion]) -> None:
    for version in live_versions:
        keys = [f"{uuid.uuid4()}" for _ in range(ROWS)]
        job = client.submit_file(_file(version, keys), version.model, key_column=KEY, as_of=LONG_AGO)
        job = client.wait(job.id, timeout=SECONDS)
        assert job.state == "succeeded", (version.model, job.error)
        text = b"".join(client.results(job.id)).decode()
        assert [row[KEY] for row in csv.DictReader(io.StringIO(text))] == keys


def test_a_bad_row_costs_one_row_error(client: Client, live_versions: list[ModelVersion]) -> None:
    for version in live_versions:
        numbers = [column["name"] for column in version.signature["columns"] if column["type"] == "number"]
        if not numbers:
            continue
        file = _file(version, ["good", "bad", "good too"], {"bad": {numbers[0]: "no number"}})
        job = client.submit_file(file, version.model, key_column=KEY, as_of=LONG_AGO)
        job = client.wait(job.id, timeout=SECONDS)
        assert (job.rows.total, job.rows.succeeded, job.rows.errored) == (3, 2, 1)
        (error,) = b"".join(client.errors(job.id, "ndjson")).splitlines()
        assert json.loads(error)["key"] == "bad"


def test_a_repeated_submission_is_one_job(client: Client, live_versions: list[ModelVersion]) -> None:
    version, key = live_versions[0], uuid.uuid4().hex
    first, second = (
        client.submit(version.model, sample_record(version), as_of=LONG_AGO, idempotency_key=key).id for _ in range(2)
    )
    assert first == second


def _file(version: ModelVersion, keys: list[str], changes: dict[str, dict[str, Any]] | None = None) -> io.BytesIO:
    text = io.StringIO()
    names = [KEY, *(column["name"] for column in version.signature["columns"])]
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for key in keys:
        writer.writerow({KEY: key, **sample_record(version), **(changes or {}).get(key, {})})
    return io.BytesIO(text.getvalue().encode())
