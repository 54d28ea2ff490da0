"""The schema: migrations up and down, one head, no drift from `db.tables`, partitions as days pass."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
import typer
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from predicted_rows import predicted
from sqlalchemy import Engine
from trained import until

import migrations
from cli import processes
from db import chunks, predictions
from db.engine import SYSTEM_ROLE, TENANT_ROLE, create_engine, transaction
from db.ids import uuid7
from db.tables import job, metadata, prediction_block
from errors import ScorehouseError
from settings import Settings


def test_up_down_and_up_again(empty_database_url: str) -> None:
    migrations.upgrade(empty_database_url)
    assert migrations.check(empty_database_url)[0] == migrations.check(empty_database_url)[1]
    migrations.downgrade(empty_database_url, "base")
    engine = create_engine(empty_database_url, name="tests", role=None)
    assert set(sa.inspect(engine).get_table_names()) <= {"alembic_version"}
    engine.dispose()
    migrations.upgrade(empty_database_url)
    migrations.upgrade(empty_database_url)  # a second time is no harm


def test_there_is_one_head(empty_database_url: str) -> None:
    script = ScriptDirectory.from_config(migrations._config(empty_database_url))
    assert len(script.get_heads()) == 1


def test_migrations_and_tables_agree(engine: Engine) -> None:
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "include_object": lambda _o, name, kind, *_: (
                    not (kind == "table" and str(name).startswith("prediction_block_"))
                ),
            },
        )
        assert compare_metadata(context, metadata) == []


def test_storage_parameters_agree_with_the_tables(owner: Engine) -> None:
    query = """
        SELECT c.relname, c.reloptions, t.reloptions AS toasted FROM pg_class c LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
        WHERE c.relkind = 'r' AND c.relnamespace = current_schema()::regnamespace AND c.relname = ANY (:names)
    """
    with owner.connect() as connection:
        rows = connection.execute(sa.text(query), {"names": list(metadata.tables)}).all()
    found = {row.relname: [*(row.reloptions or ()), *(f"toast.{each}" for each in row.toasted or ())] for row in rows}
    wanted = {name: table.dialect_options["postgresql"].get("with") or {} for name, table in metadata.tables.items()}
    assert {name: dict(each.split("=") for each in options) for name, options in found.items()} == {
        name: wanted[name] for name in found
    }
    assert found["chunk"]


def test_a_database_that_is_behind_is_told_apart(empty_database_url: str) -> None:
    assert migrations.check(empty_database_url) == (None, migrations.check(empty_database_url)[1])


def test_a_schema_of_a_later_release_fits_and_stays_as_it_is(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A migration suits the release before it, so an old stack goes on, and can be started again, when it was run."""
    migrations.upgrade(empty_database_url)
    wanted = migrations.check(empty_database_url).wanted
    engine = create_engine(empty_database_url, name="tests", role=None)
    with transaction(engine) as connection:
        connection.execute(sa.text("ALTER TABLE job ADD COLUMN later text"))
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'later'"))
    engine.dispose()
    found = migrations.check(empty_database_url)
    assert (found.ahead, found.fits, found.current, found.wanted) == (True, True, "later", wanted)
    monkeypatch.setattr(processes, "get_settings", lambda: Settings(database_url=empty_database_url))
    for command in (processes.db_upgrade, processes.db_check):
        command()
        assert "has revision later of a later release; this one runs on it" in capsys.readouterr().out
    assert migrations.check(empty_database_url).current == "later"


def test_a_schema_that_is_behind_does_not_fit(empty_database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is empty" in migrations.check(empty_database_url).told
    migrations.upgrade(empty_database_url, "0001")
    found = migrations.check(empty_database_url)
    assert (found.ahead, found.fits) == (False, False)
    assert "has revision 0001" in found.told
    assert "run `scorehouse db upgrade`" in found.told
    monkeypatch.setattr(processes, "get_settings", lambda: Settings(database_url=empty_database_url))
    with pytest.raises(typer.Exit) as ended:
        processes.db_check()
    assert ended.value.exit_code == 1


def test_the_user_of_the_api_is_made_with_its_password_and_owns_nothing(empty_database_url: str) -> None:
    login = sa.make_url(empty_database_url).set(username="quiet user", password="hush ' %s")
    text = login.render_as_string(hide_password=False)
    for _ in range(2):  # a second time is no harm
        migrations.upgrade(empty_database_url, login=text)
    owner = create_engine(empty_database_url, name="tests", role=None)
    with transaction(owner) as connection:
        row = connection.execute(sa.text("SELECT * FROM pg_authid WHERE rolname = 'quiet user'")).one()
        assert row.rolpassword.startswith("SCRAM-SHA-256$")
        assert (row.rolcanlogin, row.rolsuper, row.rolbypassrls, row.rolcreaterole) == (True, False, False, False)
    for role in (TENANT_ROLE, SYSTEM_ROLE):
        engine = create_engine(text, name="tests", role=role)
        with transaction(engine) as connection:
            assert connection.execute(sa.select(sa.func.count()).select_from(job)).scalar_one() == 0
        engine.dispose()
    nobody = create_engine(text, name="tests", role=None)
    with pytest.raises(sa.exc.ProgrammingError, match="permission denied"), transaction(nobody) as connection:
        connection.execute(sa.select(job))
    nobody.dispose()
    owner.dispose()


def test_an_owner_who_may_not_make_roles_is_told_what_an_administrator_has_to_run(empty_database_url: str) -> None:
    administrator = create_engine(empty_database_url, name="tests", role=None)
    database = sa.make_url(empty_database_url).database
    with transaction(administrator) as connection:
        connection.execute(sa.text("CREATE ROLE modest LOGIN"))
        connection.execute(sa.text(f"ALTER DATABASE {database} OWNER TO modest"))
        connection.execute(sa.text("GRANT CREATE ON SCHEMA public TO modest"))
    modest = empty_database_url.replace("scorehouse@", "modest@")
    with pytest.raises(ScorehouseError, match="may not make or grant roles") as told:
        migrations.upgrade(modest)
    assert migrations.check(modest).current != migrations.check(modest).wanted
    with transaction(administrator) as connection:
        for line in str(told.value).splitlines():
            if line.startswith("  GRANT"):  # the roles are there: the server has them since its first database
                connection.execute(sa.text(line))
    migrations.upgrade(modest)
    engine = create_engine(modest, name="tests", role=TENANT_ROLE)
    with transaction(engine) as connection:
        assert connection.execute(sa.select(sa.func.count()).select_from(job)).scalar_one() == 0
    engine.dispose()
    administrator.dispose()


def test_chunks_of_the_release_before_get_their_tenant(empty_database_url: str) -> None:
    """Those that wait when the schema changes, and those that its API adds afterwards, without a word of tenants."""
    migrations.upgrade(empty_database_url, "0009")
    engine = create_engine(empty_database_url, name="tests", role=None)
    new = """
        INSERT INTO job (id, tenant, version_id, kind, lane, priority, format, columns, created_by, state, chunks_left)
        VALUES (:job, 'theirs', 1, 'batch', 'bulk', 1, 'csv', '{x}', 'tests', 'queued', 1)
    """
    add = """
        INSERT INTO chunk (job_id, number, lane, priority, version_id, first_row, rows, first_line, payload)
        VALUES (:job, :number, 'bulk', 1, 1, 1, 1, 1, '')
    """
    version = """
        INSERT INTO model (id, tenant, name) VALUES (1, 'theirs', 'm');
        INSERT INTO model_version
            (id, model_id, version, state, digest, reference_digest, format, runtime, size, trusted, created_by)
        VALUES (1, 1, '1.0.0', 'registered', 'sha256:0', 'sha256:1', 'skops', 'sklearn', 1, false, 'tests')
    """
    job_id = uuid7()
    with transaction(engine) as connection:
        connection.execute(sa.text(version))
        connection.execute(sa.text(new), {"job": job_id})
        connection.execute(sa.text(add), {"job": job_id, "number": 0})
    migrations.upgrade(empty_database_url)
    with transaction(engine) as connection:
        connection.execute(sa.text(add), {"job": job_id, "number": 1})
    claims = [chunks.claim(engine, lane="bulk", count=1, owner="tests", lease_seconds=30) for _ in range(3)]
    assert [[item.number for item in found] for found in claims] == [[0], [1], []]
    with transaction(engine) as connection:
        assert connection.execute(sa.text("SELECT DISTINCT tenant FROM chunk")).scalars().all() == ["theirs"]
    engine.dispose()


def test_an_index_that_an_attempt_left_half_made_is_made_anew(empty_database_url: str) -> None:
    """One that was cut off while it was made beside others' writing is there, under its name, and of no use."""
    migrations.upgrade(empty_database_url, "0012")
    engine = create_engine(empty_database_url, name="tests", role=None)
    with engine.connect() as connection:
        connection.execute(sa.text("CREATE INDEX job_version_idx ON job (created_by)"))
        connection.commit()
        migrations.upgrade(empty_database_url)
        (found,) = [each for each in sa.inspect(connection).get_indexes("job") if each["name"] == "job_version_idx"]
    assert found["column_names"] == ["version_id", "id"]
    engine.dispose()


def test_of_upgrades_at_once_one_works_and_the_others_find_it_done(empty_database_url: str) -> None:
    program = "import sys, migrations; migrations.upgrade(sys.argv[1])"
    both = [
        subprocess.Popen([sys.executable, "-c", program, empty_database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for one in both:
        _, told = one.communicate(timeout=60)
        assert one.returncode == 0, told
    assert migrations.check(empty_database_url).fits


def test_what_does_not_compress_is_stored_as_it_is(engine: Engine) -> None:
    """Payloads are compressed already, filters are read by the group; each partition must take it over."""
    today = f"prediction_block_{datetime.now(UTC):%Y%m%d}"
    with engine.connect() as connection:
        stored = connection.execute(
            sa.text(
                "SELECT attrelid::regclass::text || '.' || attname FROM pg_attribute WHERE attstorage = 'e' "
                "AND attrelid = ANY (CAST(:tables AS regclass[]))"
            ),
            {"tables": ["chunk", today]},
        ).scalars()
    assert set(stored) == {"chunk.payload"} | {
        f"{today}.{name}" for name in ("probability", "probabilities", "key_filter")
    }


def test_a_prediction_goes_to_the_partition_of_its_jobs_day(engine: Engine) -> None:
    with transaction(engine) as connection:
        predictions.copy(connection, predicted(uuid7(), [1]))
        found = connection.execute(
            sa.select(sa.literal_column("tableoid::regclass::text")).select_from(prediction_block)
        ).scalar_one()
    assert found in {f"prediction_block_{datetime.now(UTC) - timedelta(days=late):%Y%m%d}" for late in (0, 1)}


def test_partitions_are_made_ahead_once(engine: Engine) -> None:
    with transaction(engine) as connection:
        predictions.ensure_partitions(connection)  # midnight may have passed since the database was made
        assert predictions.ensure_partitions(connection) == []
        made = predictions.ensure_partitions(connection, datetime.now(UTC) + timedelta(days=30))
    assert len(made) == 9


def test_whoever_makes_partitions_beside_another_finds_them_made(engine: Engine) -> None:
    day = datetime.now(UTC) + timedelta(days=60)

    def make() -> list[str]:
        with transaction(engine) as connection:
            return predictions.ensure_partitions(connection, day)

    with ThreadPoolExecutor(1) as threads:
        with transaction(engine) as connection:
            made = predictions.ensure_partitions(connection, day)
            other = threads.submit(make)
            waiting = sa.text("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
            until(lambda: connection.execute(waiting).all())
        assert len(made) == 9
        assert other.result(30) == []
