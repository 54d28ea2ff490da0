"""The API and a worker child in one process, on a real Postgres: what a fuzzer needs to be quick.

A submission goes through the real application (Flask's test client), and is scored by the real child; only HTTP's
framing, Celery and the second process are left out.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import joblib
import pandas as pd
import pytest
import sqlalchemy as sa
from flask.testing import FlaskClient
from flask_openapi3.openapi import OpenAPI
from werkzeug.test import TestResponse

sys.path.insert(0, str(Path(__file__).with_name("models")))

from adding import COLUMNS, Adding

from api.app import create_app
from api.tokens import create_token
from db.engine import transaction
from db.predictions import _unfolded
from db.tables import job, prediction_block, row_error
from settings import Settings, get_settings
from worker.child import Child

MODEL, VERSION = "adding", "1.0.0"
NO_BROKER = "redis://127.0.0.1:1/0"
TYPES = {
    "amount": "number",
    "visits": "integer",
    "segment": "category",
    "active": "boolean",
    "note": "text",
    "seen": "timestamp",
}
NULLABLE = {"visits", "segment", "note", "seen"}
# Small bounds, so that small inputs reach them.
BOUNDS = {
    "chunk_bytes": 900,
    "max_record_bytes": 1_500,
    "max_columns": 20,
    "max_cell_chars": 200,
    "max_json_bytes": 20_000,
    "max_json_records": 50,
    "max_upload_bytes": 200_000,
}


@dataclass
class Outcome:
    """A job at its end: counts are total, succeeded, errored, canceled; scores are (row, key, prediction)."""

    state: str = ""
    counts: tuple[int, ...] = ()
    scored: list[tuple[int, str | None, str]] = field(default_factory=list)
    errors: list[Any] = field(default_factory=list)


class InProcess:
    """Use `in_process` to make one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app: OpenAPI = create_app(settings)
        self.http: FlaskClient = self.app.test_client()
        self.child = Child(settings, ("interactive", "bulk"))

    def close(self) -> None:
        self.app.extensions["scorehouse"].close()
        self.child.engine.dispose()

    def bearer(self, *scopes: str, tenant: str = "default", subject: str = "fuzz") -> dict[str, str]:
        token = create_token(
            self.settings, subject=subject, tenant=tenant, scopes=scopes or ("admin",), ttl=timedelta(hours=12)
        )
        return {"Authorization": f"Bearer {token}"}

    def upload(self, body: Any, headers: Mapping[str, str], **query: str) -> TestResponse:
        """POST /v1/jobs; the body is a stream that knows its `size`."""
        return self.http.post(
            "/v1/jobs",
            query_string={"model": MODEL, **query},
            input_stream=body,
            content_length=body.size,
            headers={**self.bearer_of_all, **headers},
            buffered=True,
        )

    @property
    def bearer_of_all(self) -> dict[str, str]:
        if not hasattr(self, "_bearer"):
            self._bearer = self.bearer()
        return self._bearer

    def get(self, path: str, **query: str) -> TestResponse:
        # Read to its end and closed, as by a server: a download has a place until then.
        return self.http.get(path, query_string=query, headers=self.bearer_of_all, buffered=True)

    def score(self) -> None:
        """Score all that waits."""
        for lane in ("interactive", "bulk"):
            while self.child.drain(lane) != "nothing to claim":
                pass

    def outcomes(self, job_ids: Sequence[str]) -> dict[str, Outcome]:
        """What Postgres holds of each job."""
        found = {job_id: Outcome() for job_id in job_ids}
        wanted = [UUID(job_id) for job_id in job_ids]
        with transaction(self.child.engine) as connection:
            for row in connection.execute(sa.select(job).where(job.c.id.in_(wanted))):
                found[str(row.id)].state = row.state
                found[str(row.id)].counts = (row.rows_total, row.rows_succeeded, row.rows_errored, row.rows_canceled)
            for block in connection.execute(sa.select(prediction_block).where(prediction_block.c.job_id.in_(wanted))):
                found[str(block.job_id)].scored += [
                    (each.row, each.record_key, each.prediction) for each in _unfolded(block)
                ]
            for error in connection.execute(sa.select(row_error).where(row_error.c.job_id.in_(wanted))):
                found[str(error.job_id)].errors.append(error)
        return found

    def register(
        self, artefact: Path, reference: Path, version: str = VERSION, model: str = MODEL, **fields: Any
    ) -> Any:
        """Register and examine; the version as the API shows it."""
        form = {"version": version, "trust": "true", **fields}
        data = {
            **form,
            "reference": (io.BytesIO(reference.read_bytes()), reference.name),
            "artefact": (io.BytesIO(artefact.read_bytes()), artefact.name),
        }
        answer = self.http.post(
            f"/v1/models/{model}/versions", data=data, headers=self.bearer_of_all, content_type="multipart/form-data"
        )
        assert answer.status_code == 202, answer.text
        self.child.register()
        return self.get(f"/v1/models/{model}/versions/{version}").get_json()

    def deploy(self, version: str = VERSION, model: str = MODEL) -> None:
        answer = self.http.post(
            f"/v1/models/{model}/deployments", json={"version": version}, headers=self.bearer_of_all
        )
        assert answer.status_code == 202, answer.text
        for _ in range(20):
            self.child.heartbeat._beat()
            self.child.deploy()
            self.score()  # its golden rows
            state = self.get(answer.headers["Location"]).get_json()
            if state["state"] in {"live", "failed"}:
                break
        assert state["state"] == "live", state


@contextmanager
def in_process(folder: Path, database_url: str, **bounds: int) -> Iterator[InProcess]:
    """The model of `adding.py` deployed. Nobody listens where the broker should be: no permit is needed here."""
    key_file = folder / "jwt.key"
    key_file.write_text("k" * 64)
    settings = Settings(
        quota_requests_per_second="unlimited",
        failed_authentications_per_minute=1_000_000,
        _env_file=None,  # type: ignore[call-arg]  # of pydantic-settings
        data_dir=folder,
        database_url=database_url,
        broker_url=NO_BROKER,
        jwt_key_file=key_file,
        drain_seconds=1,
        chunk_time_limit=3000,
        log_level="ERROR",
        **{**BOUNDS, **bounds},
    )
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SCOREHOUSE_BROKER_URL", NO_BROKER)  # the publisher takes it from there
        get_settings.cache_clear()
        inside = InProcess(settings)
        try:
            artefact, reference, signature = package(folder)
            found = inside.register(artefact, reference, signature=signature)
            assert found["state"] == "registered", found
            inside.deploy()
            yield inside
        finally:
            inside.close()
            get_settings.cache_clear()


def package(folder: Path) -> tuple[Path, Path, str]:
    """Artefact, reference and signature of the model."""
    rows = 40
    frame = pd.DataFrame(
        {
            "id": [f"c{number}" for number in range(rows)],
            "amount": [number / 4 for number in range(rows)],
            "visits": [number % 7 for number in range(rows)],
            "segment": ["gold", "new", None, "old"] * (rows // 4),
            "active": [True, False] * (rows // 2),
            "note": [f"note {number}" for number in range(rows)],
            "seen": ["2013-04-30T08:15:00Z"] * rows,
        }
    )
    frame["sum"] = frame["amount"] + frame["visits"]
    artefact, reference = folder / "adding.joblib", folder / "reference.csv"
    joblib.dump(Adding().fit(frame, frame["sum"]), artefact)
    frame.to_csv(reference, index=False)
    columns = [
        f"  - {{name: {name}, type: {TYPES[name]}, nullable: {str(name in NULLABLE).lower()}}}" for name in COLUMNS
    ]
    return artefact, reference, "\n".join(["key: id", "target: sum", "columns:", *columns])
