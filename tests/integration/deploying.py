"""A real worker child without Celery, and versions of a small model that it deploys, for the tests of deployments."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import joblib
import numpy as np
import pandas as pd
import sqlalchemy as sa
from sklearn.linear_model import LinearRegression, LogisticRegression
from sqlalchemy import Engine

from db import chunks, deployment_steps, deployments, jobs, models, slots, workers
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.models import NewVersion, Version
from deployment import advance
from records.piece import Piece
from registry.store import ArtefactStore
from settings import Settings
from worker import registration
from worker.child import Child
from worker.registration import Examined

TENANT, MODEL = "default", "m"
COLUMNS = ["a", "b"]
GOLDEN_ROW = "golden row 3 (0.1,0.2) gives 1 instead of 0"
ELSEWHERE = "elsewhere/1:7/1.00"  # a worker child of another host


def frame(rows: int = 200, seed: int = 3) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    data = pd.DataFrame(random.normal(size=(rows, 2)).round(3), columns=COLUMNS)
    return data.assign(y=(data["a"] + data["b"] / 2 > 0).astype(int))


def classifier(shift: float = 0.0) -> Any:
    """Which class a row has, decided `shift` away from where the data decide it."""
    data = frame()
    model = LogisticRegression().fit(data[COLUMNS], data["y"])
    model.intercept_ = model.intercept_ + shift
    return model


def regression(factor: float = 1.0) -> Any:
    data = frame()
    return LinearRegression().fit(data[COLUMNS], factor * (3 * data["a"] - data["b"] + 10))


_known: dict[tuple[str, str], Examined] = {}


def _examined(version: Version, store: ArtefactStore, folder: Path) -> Examined:
    """Most tests begin with the same versions, and an examination takes as long as a test."""
    content = (version.digest, version.reference_digest)
    if content not in _known:
        _known[content] = registration.examine_version(version, store, folder)
    return _known[content]


@dataclass
class House:
    """One live child, a store, and what the API would do."""

    engine: Engine
    settings: Settings
    folder: Path
    wanted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = ArtefactStore(self.settings.resolved_artefact_url())
        self.child = Child(self.settings, ("interactive", "bulk"))

    def close(self) -> None:
        self.child.engine.dispose()

    # what comes in over HTTP

    def register(self, version: str, model: Any, columns: Sequence[str] = COLUMNS, name: str = MODEL) -> None:
        artefact = self.folder / f"{name}-{version}.joblib"
        joblib.dump(model, artefact)
        data = frame()
        reference = data.assign(**{column: data["a"] for column in columns if column not in data})[[*columns, "y"]]
        digest, size = self.store.put([artefact.read_bytes()], 1 << 30)
        reference_digest, _ = self.store.put([reference.to_csv(index=False).encode()], 1 << 30)
        new = NewVersion(
            tenant=TENANT,
            model=name,
            version=version,
            digest=digest,
            reference_digest=reference_digest,
            format="joblib",
            runtime="sklearn",
            size=size,
            key_column=None,
            target_column="y",
            trusted=True,
            created_by="tests",
        )
        with transaction(self.engine) as connection:
            models.add_version(connection, new)
            waiting = models.claim_registration(connection)
        assert waiting is not None
        examined = _examined(waiting, self.store, self.folder)
        with transaction(self.engine) as connection:
            registration.complete(connection, waiting.id, examined)

    def ask(self, version: str, gate: dict[str, Any] | None = None, by: str = "ann", name: str = MODEL) -> UUID:
        with transaction(self.engine) as connection:
            return deployments.deploy(connection, TENANT, name, version, by=by, why=None, gate=gate)

    def roll_back(self, by: str = "bob") -> UUID:
        with transaction(self.engine) as connection:
            return deployments.rollback(connection, TENANT, MODEL, by=by, why=None)

    def cancel(self, deployment_id: UUID) -> None:
        with transaction(self.engine) as connection:
            deployments.cancel(connection, TENANT, MODEL, deployment_id, by="ann")

    def submit(self, data: pd.DataFrame, format: str = "csv", version: str | None = None, rows: int = 0) -> UUID:
        """A job of chunks of `rows` rows (of one, by default: all), scored right away."""
        lane = "interactive" if rows == 1 else "bulk"
        with transaction(self.engine) as connection:
            pinned = models.resolve(connection, TENANT, MODEL, version)
            new = NewJob(
                id=uuid7(),
                tenant=TENANT,
                version_id=pinned.id,
                kind="batch",
                lane=lane,
                format=format,
                columns=list(data.columns),
                created_by="tests",
            )
            jobs.receive(connection, new, lease_seconds=60)
            size = rows or len(data)
            parts = [data.iloc[start : start + size] for start in range(0, len(data), size)]
            for number, part in enumerate(parts):
                text = (
                    part.to_csv(index=False, header=False)
                    if format == "csv"
                    else part.to_json(orient="records", lines=True)
                )
                piece = Piece(1 + number * size, len(part), 1, text.encode())
                chunks.add(connection, new, number, piece)
            jobs.seal(connection, new.id, rows=len(data), chunks=len(parts), request_hash=None)
        while self.child.drain(lane) != "nothing to claim":
            pass
        return new.id

    # what the processes do

    def beat(self) -> None:
        self.child.heartbeat._beat()

    def neighbour(self, owner: str = ELSEWHERE, **states: str) -> None:
        """A heartbeat of another child, with what it answers to deployments by id."""
        answers = {each: {"state": state, "reason": GOLDEN_ROW} for each, state in states.items()}
        with transaction(self.engine) as connection:
            workers.beat(
                connection,
                owner=owner,
                worker="w",
                lanes=["bulk"],
                versions=[],
                refused={},
                deployments=answers,
                release="1",
                claimed=False,
            )

    def advance(self, owner: str | None = None) -> str | None:
        """What one permit does, by our child or as another worker."""
        worker = advance.Worker(
            self.child.engine, self.settings, owner or self.child.owner, self.child.cache.get, self.wanted.append
        )
        return advance.run_one(worker)

    def run(self, seconds: float = 30.0) -> str:
        """Heartbeats, permits and scoring, until no deployment is under way; what became of the last one."""
        deadline = time.monotonic() + seconds
        told = "nothing"
        while under_way(self.engine):
            assert time.monotonic() < deadline, f"it is not over: {told}"
            self.beat()
            told = self.advance() or told
            self.child.drain("interactive")
        return told

    def until(self, reached: Callable[[Any], bool], deployment_id: UUID) -> Any:
        """Go on until its row is as wanted."""
        deadline = time.monotonic() + 30
        while not reached(row := self.row(deployment_id)):
            assert time.monotonic() < deadline, row
            self.beat()
            self.advance()
            self.child.drain("interactive")
        return row

    # what there is

    def row(self, deployment_id: UUID) -> Any:
        return self.query("SELECT * FROM deployment WHERE id = :id", id=deployment_id)[0]

    def messages(self, deployment_id: UUID) -> list[tuple[str, str]]:
        with transaction(self.engine) as connection:
            return [(row.state, row.message) for row in deployments.events(connection, deployment_id)]

    def aliases(self, name: str = MODEL) -> dict[str, str]:
        with transaction(self.engine) as connection:
            return models.aliases(connection, models.get(connection, TENANT, name).id)

    def slots(self) -> tuple[str, dict[str, str | None]]:
        """The one that is live, and what is in each."""
        with transaction(self.engine) as connection:
            row = models.get(connection, TENANT, MODEL)
            return row.live_slot, slots.held(connection, row)

    def version(self, version: str, name: str = MODEL) -> Version:
        with transaction(self.engine) as connection:
            return models.resolve(connection, TENANT, name, version)

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result.all()) if result.returns_rows else []


def under_way(engine: Engine) -> bool:
    with transaction(engine) as connection:
        return bool(deployment_steps.under_way(connection))
