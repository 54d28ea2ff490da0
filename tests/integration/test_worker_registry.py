"""A worker child and the registry, down to the bytes: what it examines, what it loads, and what it refuses to score."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from moto.server import ThreadedMotoServer
from object_store import BUCKET, s3_server, start_s3
from sklearn.ensemble import RandomForestClassifier
from sklearn.neural_network import MLPClassifier
from sqlalchemy import Engine
from structlog.testing import capture_logs

import logs
from db import backups, chunks, jobs, models, predictions, usage, workers
from db.engine import transaction
from db.ids import uuid7
from db.jobs import NewJob
from db.models import NewVersion
from db.tables import chunk, model_alias, model_version
from records.piece import Piece
from registry.compiled.runtime import CompiledRuntime
from registry.store import ArtefactStore
from settings import Settings
from worker import cache
from worker.child import Child

LANES = ("bulk",)
TENANT = "default"
ROWS = 200


@dataclass
class Site:
    """Workers of one database and one artefact store, a host each, and the model `m` in it."""

    engine: Engine
    database_url: str
    artefact_url: str
    folder: Path
    children: list[Child] = field(default_factory=list)

    def worker(self) -> Child:
        settings = Settings(
            _env_file=None,  # type: ignore[call-arg]  # of pydantic-settings
            database_url=self.database_url,
            artefact_url=self.artefact_url,
            data_dir=self.folder / f"host-{len(self.children)}",
            drain_seconds=60,  # then it would pass a permit on, and nobody is there to take it
        )
        child = Child(settings, LANES)
        child.owner = child.heartbeat._owner = f"host-{len(self.children)}:1/0"
        self.children.append(child)
        return child

    @property
    def store(self) -> ArtefactStore:
        return ArtefactStore(self.artefact_url)

    def register(self, worker: Child, version: str, artefact: Path, reference: Path, **more: Any) -> int:
        digest, size = self.store.put([artefact.read_bytes()], 1 << 30)
        new = NewVersion(
            tenant=TENANT,
            model="m",
            version=version,
            digest=digest,
            reference_digest=self.store.put([reference.read_bytes()], 1 << 30)[0],
            format=artefact.suffix.removeprefix("."),
            runtime="sklearn",
            size=size,
            key_column=None,
            target_column="late",
            trusted=True,
            created_by="tests",
            **more,
        )
        with transaction(self.engine) as connection:
            version_id = models.add_version(connection, new)
        worker.register()
        return version_id

    def row(self, version_id: int) -> Any:
        with transaction(self.engine) as connection:
            return connection.execute(sa.select(model_version).where(model_version.c.id == version_id)).one()

    def change(self, version_id: int, **values: Any) -> None:
        with transaction(self.engine) as connection:
            connection.execute(sa.update(model_version).where(model_version.c.id == version_id).values(**values))

    def submit(self, version_id: int) -> NewJob:
        new = NewJob(
            id=uuid7(),
            tenant=TENANT,
            version_id=version_id,
            kind="batch",
            lane="bulk",
            format="csv",
            columns=["a", "b"],
            created_by="tests",
        )
        with transaction(self.engine) as connection:
            assert jobs.receive(connection, new, lease_seconds=60)
            piece = Piece(1, 2, 2, b"0.5,1.5\n-2,3\n")
            chunks.add(connection, new, 0, piece)
            jobs.seal(connection, new.id, rows=2, chunks=1, request_hash=None)
        return new

    def chunk_state(self, job: NewJob) -> str:
        with transaction(self.engine) as connection:
            return str(connection.execute(sa.select(chunk.c.state).where(chunk.c.job_id == job.id)).scalar_one())

    def refusals(self, worker: Child) -> dict[str, str]:
        """What the worker's heartbeat says."""
        worker.heartbeat._beat()
        with transaction(self.engine) as connection:
            return next(dict(row.refused) for row in workers.live(connection) if row.owner == worker.owner)


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedMotoServer]:
    with s3_server() as server:
        yield server


@pytest.fixture
def bucket(server: ThreadedMotoServer) -> str:
    del server  # only has to run
    return f"s3://{BUCKET}/registry"


@pytest.fixture
def site(engine: Engine, database_url: str, tmp_path: Path) -> Iterator[Site]:
    site = Site(engine, database_url, (tmp_path / "artefacts").as_uri(), tmp_path)
    yield site
    for child in site.children:
        child.engine.dispose()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(artefact, reference) of a forest that is added up by four threads, whose order would show in the last bits."""
    folder = tmp_path_factory.mktemp("model")
    random = np.random.default_rng(11)
    frame = pd.DataFrame(random.normal(size=(ROWS, 2)), columns=["a", "b"])
    late = (frame["a"] + random.normal(size=ROWS) > 0).astype(int)
    forest = RandomForestClassifier(40, max_depth=4, n_jobs=4, random_state=0).fit(frame, late)
    joblib.dump(forest, folder / "m.joblib")
    frame.assign(late=late).to_csv(folder / "reference.csv", index=False)
    return folder / "m.joblib", folder / "reference.csv"


def test_a_version_is_registered_and_scored_out_of_a_bucket(site: Site, files: tuple[Path, Path], bucket: str) -> None:
    site.artefact_url = bucket
    version_id = site.register(site.worker(), "1.0.0", *files, candidate=True)
    assert site.row(version_id).state == "registered", site.row(version_id).error
    with transaction(site.engine) as connection:
        assert connection.execute(sa.select(model_alias.c.alias, model_alias.c.version_id)).all() == [
            ("candidate", version_id)
        ]
    job, other = site.submit(version_id), site.worker()
    assert "scored" in other.drain("bulk")
    assert site.chunk_state(job) == "done"
    cached = other.cache._folder / site.row(version_id).digest.removeprefix("sha256:")
    assert cached.read_bytes() == files[0].read_bytes()


def one_bit_off(golden: list[dict[str, Any]]) -> list[dict[str, Any]]:
    row = golden[0]
    return [{**row, "probabilities": [float(np.nextafter(p, 2)) for p in row["probabilities"]]}, *golden[1:]]


def another_class(golden: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**golden[0], "prediction": 1 - golden[0]["prediction"]}, *golden[1:]]


@pytest.mark.parametrize(
    ("damage", "told"),
    [(one_bit_off, "golden row 1 .* off by .*the same"), (another_class, "golden row 1 .*instead of")],
)
def test_a_worker_that_fails_golden_rows_leaves_the_version_to_others(
    site: Site, files: tuple[Path, Path], damage: Callable[[Any], Any], told: str
) -> None:
    worker, other = site.worker(), site.worker()
    version_id = site.register(worker, "1.0.0", *files)
    version = site.row(version_id)
    job = site.submit(version_id)
    site.change(version_id, golden=damage(version.golden))
    assert worker.drain("bulk") == "nothing to claim"
    assert site.chunk_state(job) == "queued"
    reason = site.refusals(worker)[version.digest]
    assert re.search(told, reason), reason
    site.change(version_id, golden=version.golden)
    assert worker.drain("bulk") == "nothing to claim", "it has refused the version and claims no more of it"
    assert "scored" in other.drain("bulk")
    assert site.chunk_state(job) == "done"
    assert site.refusals(other) == {}


def test_elsewhere_golden_rows_may_differ_by_rounding(site: Site, files: tuple[Path, Path]) -> None:
    worker = site.worker()
    version_id = site.register(worker, "1.0.0", *files)
    version = site.row(version_id)
    elsewhere = {**version.lineage, "examined_with": {**version.lineage["examined_with"], "numpy": "1.0.0"}}
    site.change(version_id, golden=one_bit_off(version.golden), lineage=elsewhere)
    site.submit(version_id)
    assert "scored" in worker.drain("bulk")
    far = [{**row, "probabilities": [p + 1e-6 for p in row["probabilities"]]} for row in version.golden]
    site.change(version_id, golden=far)
    another = site.worker()
    site.submit(version_id)
    assert another.drain("bulk") == "nothing to claim"
    assert "numpy 1.0.0, here" in site.refusals(another)[version.digest]


def test_a_flipped_byte_is_refused_before_anything_is_loaded(site: Site, files: tuple[Path, Path]) -> None:
    version_id = site.register(site.worker(), "1.0.0", *files)
    digest = site.row(version_id).digest
    stored = Path(site.store._place(digest))
    content = bytearray(stored.read_bytes())
    content[len(content) // 2] ^= 1
    stored.write_bytes(content)
    job, worker = site.submit(version_id), site.worker()
    assert worker.drain("bulk") == "nothing to claim"
    assert "was changed or damaged" in site.refusals(worker)[digest]
    assert site.chunk_state(job) == "queued"


def test_a_store_that_is_away_for_a_while_is_no_refusal_for_ever(
    site: Site, files: tuple[Path, Path], bucket: str, server: ThreadedMotoServer
) -> None:
    site.artefact_url = bucket
    version_id = site.register(site.worker(), "1.0.0", *files)
    worker, job = site.worker(), site.submit(version_id)
    digest = site.row(version_id).digest
    server.stop()
    try:
        assert worker.drain("bulk") == "nothing to claim"
        assert site.chunk_state(job) == "queued"
        assert "did not do what was asked" in site.refusals(worker)[digest]
    finally:
        start_s3(server.get_host_and_port()[1])
    deadline = time.monotonic() + 60
    while worker.cache.refused_ids:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert "scored" in worker.drain("bulk")
    assert site.refusals(worker) == {}


def test_what_whoever_registers_declares_is_kept_beside_what_was_found(site: Site, files: tuple[Path, Path]) -> None:
    worker = site.worker()
    site.register(worker, "1.0.0", *files)
    version = site.row(site.register(worker, "1.1.0", *files, lineage={"parent": "1.0.0", "training_rows": ROWS}))
    assert version.declared == {"parent": "1.0.0", "training_rows": ROWS}
    assert set(version.lineage) == {"reference_digest", "fitted_with", "examined_with"}
    assert version.lineage["fitted_with"]["scikit-learn"] == version.lineage["examined_with"]["scikit-learn"]


def test_a_compiled_form_that_is_damaged_costs_its_speed_only(
    site: Site, files: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    version_id = site.register(site.worker(), "1.0.0", *files, wanted_runtime="onnx")
    compiled = site.row(version_id).compiled
    assert compiled["lanes"] == ["interactive", "bulk"]
    with transaction(site.engine) as connection:
        used = usage.of(connection, TENANT).bytes_stored
    assert used == site.row(version_id).bytes_stored == files[0].stat().st_size + compiled["size"]
    good, other = site.worker(), site.worker()
    assert good.cache.get(version_id).runtime_of("bulk").name == "a RandomForestClassifier"
    assert isinstance(good.cache.get(version_id).runtime_of("bulk"), CompiledRuntime)
    stored = site.folder / "artefacts" / compiled["digest"].removeprefix("sha256:")
    found = [
        path for path in (site.folder / "artefacts").rglob("*") if path.name in stored.name or stored.name in path.name
    ]
    (path,) = [path for path in found if path.is_file()]
    path.chmod(0o600)
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    job = site.submit(version_id)
    assert "scored" in other.drain("bulk")
    assert site.chunk_state(job) == "done"
    assert other.cache.get(version_id).forms == {}
    assert site.refusals(other) == {}


@pytest.fixture(scope="module")
def network(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(artefact, reference) of a neural network on the forest's reference."""
    frame = pd.read_csv(files[1])
    model = MLPClassifier((256, 256), tol=100.0, n_iter_no_change=3, random_state=0)
    artefact = tmp_path_factory.mktemp("network") / "m.joblib"
    joblib.dump(model.fit(frame[["a", "b"]], frame["late"]), artefact)
    return artefact, files[1]


def test_a_quantised_form_is_stored_counted_and_scores(
    site: Site, network: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.compiled.examined.WORTH", 100.0)  # whatever it takes here
    plain = site.register(site.worker(), "1.0.0", *network)
    assert not {"quantised", "accelerated"} & site.row(plain).compiled.keys()
    version_id = site.register(site.worker(), "1.1.0", *network, quantise_within=0.02)
    compiled = site.row(version_id).compiled
    quantised = compiled["quantised"]
    assert (quantised["within"], quantised["lanes"]) == (0.02, ["interactive", "bulk"])
    assert quantised["tried"]["int8"]["max_difference"] <= 0.02
    stored = sum(path.stat().st_size for path in network[:1]) + compiled["size"] + quantised["size"]
    assert site.row(version_id).bytes_stored == stored
    with transaction(site.engine) as connection:
        assert quantised["digest"] in backups.snapshot(connection).artefacts
    worker, job = site.worker(), site.submit(version_id)
    assert "scored" in worker.drain("bulk")
    assert site.chunk_state(job) == "done"
    loaded = worker.cache.get(version_id)
    rows = pd.DataFrame({"a": [0.5, -2.0], "b": [1.5, 3.0]})
    exact = loaded.runtime.predict(rows).probabilities
    with transaction(site.engine) as connection:
        found = [row.probability for row in predictions.of_job(connection, job.id)]
    assert exact is not None
    off = np.abs(np.array(found) - exact[:, 1])
    assert 0 < off.max() <= 0.02


def test_a_worker_without_the_accelerator_scores_on_its_processor_and_says_so_once(
    site: Site, network: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_log", logs.get("worker.cache"))  # one that was used already is not captured
    accelerated = {"provider": "CUDAExecutionProvider", "rows": 200, "processor": 2.0, "accelerator": 1.0}
    versions = [site.register(site.worker(), f"1.{minor}.0", *network, wanted_runtime="onnx") for minor in range(2)]
    for version_id in versions:
        compiled = site.row(version_id).compiled
        site.change(version_id, compiled={**compiled, "accelerated": {"bulk": accelerated}})
    worker = site.worker()
    with capture_logs() as told:
        found = [worker.cache.get(version_id).runtime_of("bulk") for version_id in versions]
    assert all(isinstance(runtime, CompiledRuntime) for runtime in found)
    assert [(each["event"], each["provider"]) for each in told] == [("provider_absent", "CUDAExecutionProvider")]
