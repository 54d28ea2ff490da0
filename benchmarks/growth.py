"""What grows with the database: the queries of polling, listing, claiming and looking up, beside a million jobs and 100 million predictions.

    python -m benchmarks.growth --jobs 1000000 --predictions 100000000

Fills a database of its own: jobs of a single record and a few of a large file over the last 30 days, nine of ten of them one tenant's,
all but some over. Then each query is run as API and workers run it, by their own functions. Told are its time and, what no other
load on the machine changes, how many pages it touches and how many rows it looks at (EXPLAIN with ANALYZE and BUFFERS).
Writes benchmarks/reports/growth.json and growth.md, and exits 1 when a query looks at more than it should.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy import Connection, Engine

import migrations
from benchmarks.bulk import REPORTS
from benchmarks.prediction_storage import CHUNK, block
from db import audits, gauges, jobs, labels, predictions, profiles, samples, usage
from db.engine import TENANT_ROLE, create_engine, for_tenant, transaction
from embedded.postgres import Postgres

DAYS = 30
TENANT = "acme"
#: Of a query that shows a page or takes a chunk: rows that it may look at, and pages that it may touch.
MOST_ROWS, MOST_PAGES = 2_500, 8_000
# Of each million jobs.
QUEUED, FAILED, SELDOM = 50, 200, 20

_VERSIONS = """
    INSERT INTO model (tenant, name) SELECT tenant, name FROM unnest(:tenants) AS tenant, unnest('{often,seldom}'::text[]) AS name;
    INSERT INTO model_version (model_id, version, state, digest, reference_digest, format, runtime, size, trusted, created_by, signature)
    SELECT id, '1.0.0', 'registered', 'sha256:0', 'sha256:1', 'skops', 'sklearn', 1, false, 'benchmark',
           '{"columns": [{"name": "x", "type": "number"}], "output": {"kind": "regression"}}'
    FROM model ORDER BY id;
"""
# The n-th of `count` jobs, evenly over the days, the last ones still open; the id is of its time.
_JOBS = """
    INSERT INTO job (id, tenant, version_id, kind, lane, priority, format, columns, created_by, state, rows_total, rows_succeeded,
                     rows_errored, chunks_total, chunks_left, created_at, started_at, finished_at)
    SELECT (substr(hex, 1, 8) || '-' || substr(hex, 9, 4) || '-7' || lpad(to_hex(n % 4096), 3, '0') || '-8000-'
            || lpad(to_hex(n), 12, '0'))::uuid,
           of.tenant, v.id, 'single', 'interactive', 1, 'ndjson', '{x}', 'benchmark', of.state, 1,
           (of.state = 'succeeded')::int, (of.state = 'completed_with_errors')::int, 1, (of.state = 'queued')::int, at,
           CASE WHEN of.state <> 'queued' THEN at END, CASE WHEN of.state <> 'queued' THEN at END
    FROM generate_series(0, :count - 1) AS n
    CROSS JOIN LATERAL (SELECT now() - make_interval(secs => :days * 86400.0 * (:count - n) / :count) AS at) AS moment
    CROSS JOIN LATERAL (SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS hex) AS id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN n % 10 < 9 THEN :tenant ELSE 'other' || n % 100 / 10 END AS tenant,
               CASE WHEN n % (:count / :seldom) = 1 THEN 'seldom' ELSE 'often' END AS model,
               CASE WHEN n >= :count - :queued THEN 'queued'
                    WHEN n % (:count / :failed) = 1 THEN 'completed_with_errors' ELSE 'succeeded' END AS state
    ) AS of
    JOIN model AS m ON m.tenant = of.tenant AND m.name = of.model
    JOIN model_version AS v ON v.model_id = m.id
"""
_CHUNKS = """
    INSERT INTO chunk (job_id, number, tenant, lane, priority, version_id, first_row, rows, first_line, payload, state, finished_at)
    SELECT id, 0, tenant, lane, 1, version_id, 1, 1, 1, convert_to(repeat('x', 200), 'UTF8'),
           CASE WHEN state = 'queued' THEN 'queued' ELSE 'done' END, finished_at
    FROM job
"""
_SINGLES = """
    INSERT INTO prediction_block (job_id, first_row, version_id, record_keys, predictions, probability, scored_at)
    SELECT id, 1, version_id, ARRAY['S' || row_number() OVER ()], '{1}', '{0.5}', finished_at FROM job WHERE state = 'succeeded'
"""
# A label for each tenth single record of a tenant, an hour's and a day's worth of what was counted for each hour and day.
_LABELS = """
    INSERT INTO label (model_id, record_key, label, observed_at)
    SELECT v.model_id, b.record_keys[1], '1', b.scored_at
    FROM prediction_block AS b JOIN model_version AS v ON v.id = b.version_id
    WHERE cardinality(b.predictions) = 1 AND hashtext(b.record_keys[1]) % 10 = 0
"""
_WINDOWS = """
    INSERT INTO profile_window (version_id, schema_digest, start, rows, profile)
    SELECT id, 'schema', date_trunc('hour', now()) - make_interval(hours => n), 1000, convert_to(repeat('x', 4000), 'UTF8')
    FROM model_version CROSS JOIN generate_series(0, 24 * :days - 1) AS n
"""
_OUTCOMES = """
    INSERT INTO outcome_window (version_id, day, scored, labelled, outcomes, dirty)
    SELECT id, current_date - n, 1000, 100, '{}', false FROM model_version CROSS JOIN generate_series(0, :days - 1) AS n
"""
_FILE = """
    INSERT INTO job (id, tenant, version_id, kind, lane, priority, format, columns, created_by, state, rows_total, rows_succeeded,
                     chunks_total, created_at, started_at, finished_at)
    SELECT :id, :tenant, v.id, 'batch', 'bulk', 1, 'csv', '{x}', 'benchmark', 'succeeded', :rows, :rows, :chunks, :at, :at, :at
    FROM model AS m JOIN model_version AS v ON v.model_id = m.id WHERE m.tenant = :tenant AND m.name = 'often'
    RETURNING version_id
"""
_FILE_CHUNKS = """
    INSERT INTO chunk (job_id, number, tenant, lane, priority, version_id, first_row, rows, first_line, payload, state, finished_at)
    SELECT :id, n, :tenant, 'bulk', 1, :version_id, 1 + n * :size, :size, 2 + n * :size, 'x', 'done', :at
    FROM generate_series(0, :chunks - 1) AS n
"""


@dataclass(frozen=True)
class Filled:
    """What there is to ask for."""

    tenant_jobs: list[UUID]
    file: UUID | None
    keys: list[str]
    versions: list[int]
    model: int


@dataclass(frozen=True)
class Case:
    """A query: the call that makes it, as who, and whether it is to look at a page's worth of rows only."""

    name: str
    call: Callable[[Connection], Any]
    as_tenant: bool = True
    bounded: bool = True


@dataclass(frozen=True)
class Looked:
    """Of all statements of a call: rows that its scans looked at, pages that it touched."""

    rows: int
    pages: int


def main() -> int:
    given = _arguments()
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder, Postgres(Path(folder) / "pg") as server:
        migrations.upgrade(server.url)
        owner = create_engine(server.url, name="benchmark", role=None, statement_timeout=3600)
        began = time.perf_counter()
        filled = fill(owner, given.jobs, given.predictions)
        print(f"filled in {time.perf_counter() - began:.0f} s", flush=True)
        with owner.connect() as connection:
            size = connection.execute(sa.text("SELECT pg_database_size(current_database())")).scalar_one()
        owner.dispose()
        measured = [_measured(server.url, case, given.repeats) for case in cases(filled)]
    return _write(measured, size, given)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--jobs", type=int, default=1_000_000, help="of a single record")
    parser.add_argument("--predictions", type=int, default=100_000_000, help="of large files, beside those")
    parser.add_argument("--repeats", type=int, default=200, help="calls of each query")
    return parser.parse_args()


def fill(engine: Engine, count: int, file_rows: int) -> Filled:
    """Jobs of a single record, and files of a million rows with so many rows in all."""
    at = datetime.now(UTC)
    with transaction(engine) as connection:
        for day in range(0, DAYS + 7, 7):
            predictions.ensure_partitions(connection, at - timedelta(days=day))
        tenants = [TENANT, *(f"other{number}" for number in range(10))]
        connection.execute(sa.text(_VERSIONS), {"tenants": tenants})
        shares = {
            name: max(round(share * count / 1_000_000), 3)
            for name, share in (("queued", QUEUED), ("failed", FAILED), ("seldom", SELDOM))
        }
        connection.execute(sa.text(_JOBS), {"count": count, "days": DAYS, "tenant": TENANT, **shares})
        connection.execute(sa.text(_CHUNKS))
        connection.execute(sa.text(_SINGLES))
        connection.execute(sa.text(_LABELS))
        connection.execute(sa.text(_WINDOWS), {"days": DAYS})
        connection.execute(sa.text(_OUTCOMES), {"days": DAYS})
    files = list(_files(engine, file_rows, at))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            sa.text("VACUUM (ANALYZE) job, chunk, prediction_block, label, profile_window, outcome_window")
        )
    with transaction(engine) as connection:
        ids = connection.execute(
            sa.text("SELECT id FROM job WHERE tenant = :tenant AND kind = 'single' ORDER BY random() LIMIT 1000"),
            {"tenant": TENANT},
        ).scalars()
        versions = connection.execute(
            sa.text(
                "SELECT v.id, model_id FROM model_version AS v JOIN model AS m ON m.id = model_id WHERE tenant = :tenant ORDER BY v.id"
            ),
            {"tenant": TENANT},
        ).all()
        keys = [f"S{number}" for number in range(1, count, max(count // 500, 1))]
        keys += [f"C{number:010d}" for number in range(1, min(file_rows, 1_000_000), 2003)]
        return Filled(list(ids), files[0] if files else None, keys, [row.id for row in versions], versions[0].model_id)


def _files(engine: Engine, rows: int, at: datetime) -> Iterator[UUID]:
    per_file = min(rows, 34 * CHUNK)
    number = round(rows / per_file) if per_file else 0
    for place in range(number):
        moment = at - timedelta(days=DAYS * (place + 0.5) / number)
        job = UUID(int=(int(moment.timestamp() * 1000) << 80) | 0x7 << 76 | 0x2 << 62 | place)
        about = {"id": job, "tenant": TENANT, "rows": per_file, "chunks": -(-per_file // CHUNK), "at": moment}
        with transaction(engine) as connection:
            version = connection.execute(sa.text(_FILE), about).scalar_one()
            connection.execute(sa.text(_FILE_CHUNKS), {**about, "version_id": version, "size": CHUNK})
            for first in range(1, per_file + 1, CHUNK):
                predictions.copy(connection, block(job, first, version))
        yield job


def cases(filled: Filled) -> list[Case]:
    draw = random.Random(1)
    listed = {"state": None, "model_name": None, "after": None, "limit": 50}

    def page(name: str, **wanted: Any) -> Case:
        return Case(f"list: {name}", lambda c: jobs.page(c, TENANT, **{**listed, **wanted}))

    def poll(connection: Connection) -> None:
        row = jobs.get(connection, TENANT, draw.choice(filled.tenant_jobs))
        if row.state == "queued":
            jobs.queue_position(connection, row)

    now, version = datetime.now(UTC), filled.versions[0]
    day = (now - timedelta(days=DAYS - 3)).replace(hour=0, minute=0, second=0, microsecond=0)

    def labelled(connection: Connection) -> None:
        query = labels.labelled_query(connection, filled.model, version, day.date())
        connection.exec_driver_sql(f"SELECT count(label) FROM ({query}) AS labelled").scalar_one()

    found = [
        Case("poll a job", poll),
        page("the newest 50"),
        Case(
            "list: 50 from anywhere on",
            lambda c: jobs.page(c, TENANT, **{**listed, "after": draw.choice(filled.tenant_jobs)}),
        ),
        page("those queued", state="queued"),
        page("those with errors", state="completed_with_errors"),
        page("those that failed, of which there is none", state="failed"),
        page("of a model that is seldom asked", model_name="seldom"),
        page("of that model, with errors", model_name="seldom", state="completed_with_errors"),
        Case("results of a single", lambda c: predictions.of_job(c, draw.choice(filled.tenant_jobs))),
        Case("a record key", lambda c: predictions.of_key(c, filled.versions, draw.choice(filled.keys), limit=100), bounded=False),
        Case("the input of a row", lambda c: jobs.chunk_of_row(c, draw.choice(filled.tenant_jobs), 1)),
        Case("what a tenant has used", lambda c: usage.of(c, TENANT)),
        Case("metrics: open jobs", gauges.open_jobs, as_tenant=False),
        Case("metrics: open chunks", gauges.open_chunks, as_tenant=False),
        Case("audits that are due", audits.due, as_tenant=False),
        Case("drift: the profiles of a day", lambda c: profiles.between(c, version, "schema", day, day + timedelta(days=1)), as_tenant=False),
        Case("accuracy: the outcomes of a month", lambda c: labels.counted(c, version, day.date(), now.date()), as_tenant=False),
        Case("accuracy: rows that were scored in a month", lambda c: profiles.scored(c, version, day, now), as_tenant=False),
        Case("accuracy: a day's predictions with their labels", labelled, as_tenant=False, bounded=False),
        Case(
            "inputs of a day, for the domain classifier",
            lambda c: samples.chunks_between(
                c, version, now - timedelta(days=3), now - timedelta(days=2), rows=5_000, seed=1
            ),
            as_tenant=False,
            bounded=False,
        ),
        Case(
            "the last inputs, for a replay",
            lambda c: samples.last_chunks(c, filled.versions[:1], until=None, rows=1_000),
            as_tenant=False,
        ),
    ]  # fmt: skip
    if filled.file is not None:
        file = filled.file
        columns = ("row", "record_key", "prediction", "probability")
        found.append(Case("results of one chunk", lambda c: predictions.export(c, file, 1, columns)))
        found.append(Case("the chunks of a file", lambda c: jobs.spans(c, file)))
    return found


@contextmanager
def explained(connection: Connection) -> Iterator[list[Looked]]:
    """Each SELECT in the block is explained, by running it once more; yields what was found."""
    found: list[Looked] = []
    said: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        said.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(connection, "before_cursor_execute", note)
    for statement, parameters in said:
        if statement.lstrip().startswith(("SELECT set_config", "SET ")):
            connection.exec_driver_sql(statement, parameters)  # as who the next one runs
        else:
            told = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            found.append(_looked(told.scalar_one()[0]["Plan"]))


def _looked(plan: dict[str, Any]) -> Looked:
    pages = plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    return Looked(sum(_rows(node) for node in _scans(plan)), pages)


def _rows(scan: dict[str, Any]) -> int:
    per_loop = scan["Actual Rows"] + sum(
        scan.get(key, 0) for key in ("Rows Removed by Filter", "Rows Removed by Index Recheck")
    )
    return round(per_loop * scan["Actual Loops"])


def _scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in plan:
        yield plan
    for below in plan.get("Plans", []):
        yield from _scans(below)


def looked(engine: Engine, case: Case) -> Looked:
    """What one call of a case looks at."""
    with transaction(engine) as connection:
        with explained(connection) as found:
            case.call(connection)
        return Looked(sum(each.rows for each in found), sum(each.pages for each in found))


def engine_for(url: str, case: Case) -> Engine:
    """As the API is for a tenant's request, or as a worker."""
    if not case.as_tenant:
        return create_engine(url, name="benchmark")
    return for_tenant(create_engine(url, name="benchmark", role=TENANT_ROLE), TENANT)


@dataclass(frozen=True)
class Measured:
    name: str
    p50: float
    p99: float
    rows: int
    pages: int
    good: bool


def _measured(url: str, case: Case, repeats: int) -> Measured:
    engine = engine_for(url, case)
    times: list[float] = []
    end = time.monotonic() + 60
    while len(times) < 5 or (len(times) < repeats and time.monotonic() < end):
        began = time.perf_counter()
        with transaction(engine) as connection:
            case.call(connection)
        times.append(1000 * (time.perf_counter() - began))
    found = looked(engine, case)
    engine.dispose()
    good = not case.bounded or (found.rows <= MOST_ROWS and found.pages <= MOST_PAGES)
    p99 = statistics.quantiles(times, n=100)[98]
    measured = Measured(case.name, statistics.median(times), p99, found.rows, found.pages, good)
    print(measured, flush=True)
    return measured


def _write(measured: list[Measured], size: int, given: argparse.Namespace) -> int:
    lines = [
        f"# Beside {given.jobs:,} jobs and {given.jobs + given.predictions:,} predictions",
        "",
        f"A database of {size / 1e9:.1f} GB, up to {given.repeats} calls of each query, one after the other; ms of a whole transaction. Rows that "
        f"the scans of one call looked at, pages (8 KiB) that it touched. What shows a page is to look at no more than {MOST_ROWS:,} rows "
        f"and {MOST_PAGES:,} pages.",
        "",
        "| query | p50 | p99 | rows | pages | holds |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        *(
            f"| {each.name} | {each.p50:.1f} | {each.p99:.1f} | {each.rows:,} | {each.pages:,} | {'yes' if each.good else '**no**'} |"
            for each in measured
        ),
        "",
    ]
    REPORTS.mkdir(exist_ok=True)
    content = {"options": vars(given), "bytes": size, "queries": [asdict(each) for each in measured]}
    (REPORTS / "growth.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / "growth.md").write_text("\n".join(lines))
    print("\n".join(lines))
    return 0 if all(each.good for each in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
