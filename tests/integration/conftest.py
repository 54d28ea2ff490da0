"""Rows that most integration tests need: a registered version and jobs of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
import sqlalchemy as sa
from sqlalchemy import Engine

from db import chunks, jobs
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.tables import model, model_version
from records.piece import Piece
from settings import Settings

TENANT = "default"


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    """Of an API with a database of its own, a key and no broker."""
    key_file = tmp_path / "jwt.key"
    key_file.write_text("k" * 64)
    return Settings(
        data_dir=tmp_path,
        database_url=database_url,
        broker_url="redis://127.0.0.1:1/0",
        jwt_key_file=key_file,
        api_host="192.0.2.1",  # nothing listens; what is open on loopback is not open here
    )


@pytest.fixture
def version_id(engine: Engine) -> int:
    """A registered version of the model `m`."""
    with transaction(engine) as connection:
        model_id = connection.execute(
            sa.insert(model).values(tenant=TENANT, name="m").returning(model.c.id)
        ).scalar_one()
        return connection.execute(
            sa.insert(model_version)
            .values(
                model_id=model_id,
                version="1.0.0",
                state="registered",
                digest="sha256:" + "0" * 64,
                reference_digest="sha256:" + "1" * 64,
                format="skops",
                runtime="sklearn",
                size=1,
                trusted=False,
                signature={"columns": [{"name": "x", "type": "number"}], "output": {"kind": "regression"}},
                created_by="tests",
            )
            .returning(model_version.c.id)
        ).scalar_one()


@dataclass
class Jobs:
    """Makes jobs of CSV chunks with the one column `x`."""

    engine: Engine
    version_id: int

    def __call__(
        self, *rows_per_chunk: int, lane: str = "bulk", seal: bool = True, tenant: str = TENANT, **more: object
    ) -> UUID:
        new = NewJob(
            id=uuid7(),
            tenant=tenant,
            version_id=self.version_id,
            kind="batch",
            lane=lane,
            format="csv",
            columns=["x"],
            created_by="tests",
            **more,  # type: ignore[arg-type]
        )
        with transaction(self.engine) as connection:
            assert jobs.receive(connection, new, lease_seconds=60)
            row = 1
            for number, rows in enumerate(rows_per_chunk):
                data = b"".join(b"%d\n" % value for value in range(row, row + rows))
                chunks.add(connection, new, number, Piece(row, rows, row + 1, data))
                row += rows
            if seal:
                jobs.seal(connection, new.id, rows=row - 1, chunks=len(rows_per_chunk), request_hash=None)
        return new.id


@pytest.fixture
def make_job(engine: Engine, version_id: int) -> Callable[..., UUID]:
    return Jobs(engine, version_id)
