"""A model in production with rows that were scored and came true, for the tests of retraining; no broker is needed."""

from __future__ import annotations

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import joblib
import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy import Engine

from db import chunks, deployments, jobs, models, slots, trainings
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.labels import NewLabel, Staging
from db.models import NewVersion
from db.tables import model_version, training_run
from records.piece import Piece
from registry.store import ArtefactStore
from settings import Settings
from worker import registration, scoring
from worker.cache import Cache

TENANT, MODEL = "default", "m"


def world(rows: int, slope: float = 2.0, seed: int = 1, prefix: str = "k") -> pd.DataFrame:
    """Records `id`, `x`, `group` and the truth `y`, which the slope makes of x."""
    random = np.random.default_rng(seed)
    x = random.normal(size=rows).round(6)
    y = (random.random(rows) < 1 / (1 + np.exp(-slope * x))).astype(int)
    group = random.choice(np.array(["a", "b"]), rows)
    return pd.DataFrame({"id": [f"{prefix}{number}" for number in range(rows)], "x": x, "group": group, "y": y})


@dataclass
class Trained:
    engine: Engine
    settings: Settings
    store: ArtefactStore
    cache: Cache

    @classmethod
    def within(cls, engine: Engine, database_url: str, folder: Path) -> Trained:
        settings = Settings(data_dir=folder, database_url=database_url, broker_url="redis://127.0.0.1:1/0")
        store = ArtefactStore(settings.resolved_artefact_url())
        return cls(engine, settings, store, Cache(engine, store, folder / "cache", 4))

    @property
    def model_id(self) -> int:
        with transaction(self.engine) as connection:
            return int(models.get(connection, TENANT, MODEL).id)

    def register(self, estimator: Any, frame: pd.DataFrame, version: str = "1.0.0", **lineage: Any) -> int:
        """A fitted estimator with its reference, examined and in production."""
        artefact = io.BytesIO()
        joblib.dump(estimator, artefact)
        digest, size = self.store.put([artefact.getvalue()], 1 << 30)
        reference, _ = self.store.put([frame.to_csv(index=False).encode()], 1 << 30)
        new = NewVersion(
            tenant=TENANT,
            model=MODEL,
            version=version,
            digest=digest,
            reference_digest=reference,
            format="joblib",
            runtime="sklearn",
            size=size,
            key_column="id",
            target_column="y",
            trusted=True,
            created_by="tests",
            lineage=lineage,
        )
        with transaction(self.engine) as connection:
            version_id = models.add_version(connection, new)
        self.examine()
        until(lambda: self._is_registered(version_id), 60)  # another thread may have it in hand
        self.go_live(version)
        return version_id

    def _is_registered(self, version_id: int) -> bool:
        with transaction(self.engine) as connection:
            return models.by_id(connection, version_id).state == "registered"

    def go_live(self, version: str) -> None:
        """What the last step of a deployment does."""
        with transaction(self.engine) as connection:
            model_id, found = (
                models.get(connection, TENANT, MODEL).id,
                models.resolve(connection, TENANT, MODEL, version),
            )
            before = slots.aliases(connection, model_id).get("production")
            slots.put_into_production(connection, model_id, found.id, previous=before)

    def deployments(self) -> list[tuple[str, str]]:
        """Version and state of what is to be deployed, and by whom else than a training nobody asks here."""
        with transaction(self.engine) as connection:
            found = deployments.listing(connection, models.get(connection, TENANT, MODEL).id)
        assert {each.by for each in found} <= {"training"}
        return [(each.to, each.state) for each in found]

    def examine(self) -> None:
        """What a worker does with each version that waits."""
        while True:
            with transaction(self.engine) as connection:
                version = models.claim_registration(connection)
            if version is None:
                return
            found = registration.examine_version(version, self.store, self.settings.data_dir / "cache")
            with transaction(self.engine) as connection:
                registration.complete(connection, version.id, found)

    @contextmanager
    def examining(self) -> Iterator[None]:
        """A thread examines, as workers of the bulk lane do, until the block ends."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(0.1):
                self.examine()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def score(
        self,
        frame: pd.DataFrame,
        version_id: int,
        as_of: datetime | None = None,
        *,
        format: str = "csv",
        keyed: bool = True,
    ) -> UUID:
        """A job of two chunks, scored by the worker's own code."""
        inputs = frame.drop(columns="y", errors="ignore")
        new = NewJob(
            id=uuid7(),
            tenant=TENANT,
            version_id=version_id,
            kind="batch",
            lane="bulk",
            format=format,  # type: ignore[arg-type]  # tests name it right
            columns=list(inputs.columns),
            key_column="id" if keyed else None,
            created_by="tests",
            as_of=as_of,
        )
        half = len(inputs) // 2
        with transaction(self.engine) as connection:
            assert jobs.receive(connection, new, lease_seconds=60)
            for number, (first, part) in enumerate(((1, inputs.iloc[:half]), (half + 1, inputs.iloc[half:]))):
                piece = Piece(first, len(part), first + 1, _data(part, format))
                chunks.add(connection, new, number, piece)
            jobs.seal(connection, new.id, rows=len(inputs), chunks=2, request_hash=None)
        while claims := chunks.claim(self.engine, lane="bulk", count=1, owner="tests", lease_seconds=60):
            scored = scoring.score(claims, self.cache.get(version_id), self.settings)
            chunks.finish(self.engine, scored.outcomes, scored.predicted, scored.counted)
        return new.id

    def label(self, frame: pd.DataFrame) -> None:
        self.put(
            *[NewLabel(str(label), None, record_key=key) for key, label in zip(frame["id"], frame["y"], strict=True)]
        )

    def put(self, *labels: NewLabel) -> None:
        with transaction(self.engine) as connection:
            known = [row.id for row in models.versions(connection, models.get(connection, TENANT, MODEL).id)]
            staging = Staging(connection)
            staging.add(labels)
            staging.store(TENANT, self.model_id, known)

    def ask(self, key: str = "now", kind: Any = "hand") -> UUID:
        with transaction(self.engine) as connection:
            return trainings.request(connection, self.model_id, kind, key, by="tests")

    def set_policy(self, **values: Any) -> None:
        with transaction(self.engine) as connection:
            trainings.set_policy(connection, self.model_id, trainings.Policy(**values))

    def run(self, run_id: UUID) -> Any:
        with transaction(self.engine) as connection:
            return trainings.get(connection, self.model_id, run_id)

    def aliases(self) -> dict[str, str]:
        with transaction(self.engine) as connection:
            return models.aliases(connection, self.model_id)

    def versions(self) -> list[str]:
        with transaction(self.engine) as connection:
            query = sa.select(model_version.c.version).order_by(model_version.c.id)
            return list(connection.execute(query).scalars())

    def expire_leases(self) -> None:
        with transaction(self.engine) as connection:
            connection.execute(sa.update(training_run).values(lease_until=sa.text("now() - interval '1 second'")))


def until(condition: Any, seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)
    return found


def _data(part: pd.DataFrame, format: str) -> bytes:
    if format == "csv":
        return part.to_csv(index=False, header=False).encode()
    return "".join(json.dumps(record) + "\n" for record in part.to_dict("records")).encode()
