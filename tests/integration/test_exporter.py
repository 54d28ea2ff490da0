"""What Prometheus reads: every metric that is listed, with the labels that are listed and the values that the tables say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from audited import Audited, keyed, register
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine

from db import audits, chunks, deployments, workers
from db.audits import Request
from db.engine import create_engine, transaction
from db.tables import audit_run, chunk
from embedded.postgres import Postgres
from migrations import upgrade
from monitoring import alerting, audit, rollup
from monitoring.alerts import Observation
from monitoring.exporter import DatabaseCollector
from monitoring.metric_names import METRICS
from settings import Settings
from worker import sweeps

DAY = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def version(engine: Engine) -> Audited:
    return register(engine)


def scraped(engine: Engine) -> list[Any]:
    """The families, as Prometheus parses them; a series that is there twice is an error."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DatabaseCollector(engine))
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    series = [(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples]
    assert len(series) == len(set(series))
    return families


def values(engine: Engine) -> dict[tuple[str, ...], float]:
    """By name and values of the labels in the order of the list."""
    found = {}
    for family in scraped(engine):
        for sample in family.samples:
            metric = METRICS.get(sample.name)
            names = metric.labels if metric is not None else sorted(sample.labels)
            found[sample.name, *(sample.labels[name] for name in names)] = sample.value
    return found


def beat(engine: Engine, owner: str, lanes: list[str], refused: dict[str, str] | None = None) -> None:
    with transaction(engine) as connection:
        workers.beat(
            connection,
            owner=owner,
            worker="w",
            lanes=lanes,
            versions=[],
            refused=refused or {},
            release="1",
            claimed=True,
        )


def canceled_deployment(version: Audited) -> None:
    with transaction(version.engine) as connection:
        found = deployments.deploy(connection, version.tenant, "m", "1.0.0", by="tests", why=None)
        deployments.cancel(connection, version.tenant, "m", found, by="tests")


def test_deployments_are_counted_when_they_are_over(engine: Engine, version: Audited) -> None:
    for _ in range(2):
        canceled_deployment(version)
    with transaction(engine) as connection:
        deployments.deploy(connection, version.tenant, "m", "1.0.0", by="tests", why=None)
    assert {key: value for key, value in values(engine).items() if key[0] == "scorehouse_deployments_total"} == {
        ("scorehouse_deployments_total", "m", "deploy", "failed"): 2
    }


def run_audit(version: Audited, kind: str, tmp_path: Path) -> None:
    start = DAY.replace(hour=0)
    with transaction(version.engine) as connection:
        wanted = Request(
            kind, version.model_id, version.version_id, start, start + timedelta(days=1), "", alerting=True
        )
        audits.request(connection, wanted)
    assert "failed" not in str(audit.run_one(version.engine, None, tmp_path))  # type: ignore[arg-type]  # domain only


def test_each_metric_of_the_list_is_there_with_exactly_its_labels(
    engine: Engine, version: Audited, tmp_path: Path
) -> None:
    version.score(400, 200, as_of=DAY)
    version.receive(3)
    version.finish_one(errored=1)
    version.receive(2, 2)
    version.label(*keyed(range(1, 401)))
    beat(engine, "h:1", ["bulk"])
    canceled_deployment(version)
    for kind in ("drift", "accuracy"):
        run_audit(version, kind, tmp_path)
    with transaction(engine) as connection:
        run = connection.execute(sa.select(audit_run).limit(1)).one()
        alerting.observe(connection, run, [Observation("warn", 0.2, 0.1, 0.3, "ks", DAY, "x")])
    sweeps.roll_up(engine, Settings())
    found: dict[str, set[tuple[str, ...]]] = {}
    kinds = {}
    for family in scraped(engine):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        kinds[name] = family.type
        assert family.documentation == METRICS[name].help
        for sample in family.samples:
            found.setdefault(name, set()).add(tuple(sorted(set(sample.labels) - {"le"})))
    counted_by_processes = ("scorehouse_http_", "scorehouse_refused_")
    expected = {name: metric for name, metric in METRICS.items() if not name.startswith(counted_by_processes)}
    assert found == {name: {tuple(sorted(metric.labels))} for name, metric in expected.items()}
    assert kinds == {name: metric.kind for name, metric in expected.items()}


def test_without_the_database_there_is_only_its_absence() -> None:
    away = create_engine("postgresql://nobody@127.0.0.1:9/none", name="tests")
    assert values(away) == {("scorehouse_up",): 0.0}


def test_when_the_database_goes_and_comes_back(tmp_path: Path) -> None:
    """As above for a pool that has a connection."""
    postgres = Postgres(tmp_path / "postgres", durable=False)
    postgres.start()
    try:
        upgrade(postgres.admin_url)
        engine = create_engine(postgres.admin_url, name="tests")
        assert values(engine)["scorehouse_up",] == 1
        postgres.stop()
        assert values(engine) == {("scorehouse_up",): 0.0}
        postgres.start()
        assert values(engine)["scorehouse_up",] == 1
        engine.dispose()
    finally:
        postgres.discard()


def test_an_empty_database_has_counters_at_zero_and_nobody_at_work(engine: Engine) -> None:
    found = values(engine)
    for lane in ("interactive", "bulk"):
        assert found["scorehouse_workers", lane] == 0
        assert found["scorehouse_oldest_pending_seconds", lane] == 0
        assert found["scorehouse_chunks", lane, "queued"] == found["scorehouse_chunks", lane, "running"] == 0
    assert found["scorehouse_jobs", "queued"] == found["scorehouse_jobs", "running"] == 0
    assert found["scorehouse_rows_scored_total",] == found["scorehouse_chunk_rescues_total",] == 0


def test_jobs_and_chunks_are_those_that_are_open(engine: Engine, version: Audited) -> None:
    version.score(3)
    version.receive(1, 1, 1)
    version.receive(2)
    version.receive(9, seal=False)
    chunks.claim(engine, lane="bulk", count=1, owner="a", lease_seconds=60)
    found = values(engine)
    assert found["scorehouse_jobs", "running"] == 1
    assert found["scorehouse_jobs", "queued"] == 1
    assert found["scorehouse_chunks", "bulk", "running"] == 1
    assert found["scorehouse_chunks", "bulk", "queued"] == 4
    assert found["scorehouse_chunks", "interactive", "queued"] == 0


def test_the_oldest_pending_chunk_is_the_one_that_waits_longest(engine: Engine, version: Audited) -> None:
    version.receive(1, 1, 1)
    with transaction(engine) as connection:
        waited = sa.text("now() - number * interval '60 seconds'")
        connection.execute(sa.update(chunk).values(not_before=waited))
        connection.execute(
            sa.update(chunk).where(chunk.c.number == 0).values(not_before=sa.text("now() + interval '1 hour'"))
        )
    assert values(engine)["scorehouse_oldest_pending_seconds", "bulk"] == pytest.approx(120, abs=20)
    with transaction(engine) as connection:
        connection.execute(sa.update(chunk).where(chunk.c.number > 0).values(state="running"))
    assert values(engine)["scorehouse_oldest_pending_seconds", "bulk"] == 0, "it may not be claimed yet"


def test_workers_are_counted_by_the_lanes_that_they_serve_while_they_live(engine: Engine, version: Audited) -> None:
    digest = "sha256:" + "0" * 64
    beat(engine, "h:1", ["bulk"], {digest: "its digest is another"})
    beat(engine, "h:2", ["bulk", "interactive"], {"sha256:other": "no"})
    beat(engine, "h:3", ["interactive"], {digest: "it is dead"})
    with transaction(engine) as connection:
        connection.execute(
            sa.text("UPDATE worker_heartbeat SET seen_at = now() - interval '1 minute' WHERE owner = 'h:3'")
        )
    found = values(engine)
    assert found["scorehouse_workers", "bulk"] == 2
    assert found["scorehouse_workers", "interactive"] == 1
    assert found["scorehouse_workers_refusing", "m", "1.0.0"] == 1


def test_rows_errors_durations_and_rescues(engine: Engine, version: Audited) -> None:
    version.score(30)
    version.score(5, endpoint="predict")
    version.receive(4)
    version.finish_one(errored=1)
    version.receive(1)
    chunks.claim(engine, lane="bulk", count=1, owner="dead", lease_seconds=60)
    assert chunks.rescue(engine, poison_attempts=9, dead_owners=["dead"]) == 1
    for _ in range(2):  # fresh, and rolled up
        found = values(engine)
        assert found["ml_predictions_total", "m", "1.0.0", "jobs"] == 33
        assert found["ml_predictions_total", "m", "1.0.0", "predict"] == 5
        assert found["scorehouse_rows_scored_total",] == 38
        assert found["scorehouse_row_errors_total", "type_error"] == 1
        assert found["scorehouse_chunk_rescues_total",] == 1
        duration = {
            sample.labels["le"]: sample.value
            for family in scraped(engine)
            for sample in family.samples
            if sample.name == "ml_prediction_duration_seconds_bucket" and sample.labels["endpoint"] == "jobs"
        }
        assert (duration["0.1"], duration["0.25"], duration["+Inf"]) == (0, 2, 2)  # each took 0.2
        rollup.roll_up(engine)


def test_audits_show_the_latest_of_production(engine: Engine, version: Audited, tmp_path: Path) -> None:
    idle = register(engine, name="idle", deployed=None)
    for each in (version, idle):
        each.score(600, as_of=DAY)
        each.label(*keyed(range(1, 541), "1"), *keyed(range(541, 571), "0"))
        for kind in ("drift", "accuracy"):
            run_audit(each, kind, tmp_path)
    found = values(engine)
    assert found["scorehouse_drift_status", "m", "1.0.0"] == 0
    assert found["ml_data_drift_score", "m", "1.0.0", "x"] == pytest.approx(0, abs=0.02)
    assert found["ml_model_accuracy", "m", "1.0.0"] == pytest.approx(540 / 570)
    low, high = (found[f"scorehouse_model_accuracy_{end}", "m", "1.0.0"] for end in ("low", "high"))
    assert 0.9 < low < 540 / 570 < high < 0.98
    assert found["scorehouse_label_coverage", "m", "1.0.0"] == pytest.approx(570 / 600)
    assert not [
        key for key in found if "idle" in key and key[0].startswith(("ml_data", "ml_model", "scorehouse_drift"))
    ]
    now = datetime.now(UTC).timestamp()
    for kind in ("drift", "accuracy"):
        assert found["scorehouse_audit_last_success_timestamp_seconds", kind] == pytest.approx(now, abs=60)
    assert ("scorehouse_audit_last_success_timestamp_seconds", "domain") not in found


def test_models_of_two_tenants_with_one_name_are_one_series_of_the_worse(
    engine: Engine, version: Audited, tmp_path: Path
) -> None:
    other = register(engine, tenant="other")
    for each, right in ((version, 300), (other, 240)):
        each.score(600, as_of=DAY)
        each.label(*keyed(range(1, right + 1), "1"), *keyed(range(right + 1, 401), "0"))
        for kind in ("drift", "accuracy"):
            run_audit(each, kind, tmp_path)
    beat(engine, "h:1", ["bulk"], {"sha256:" + "0" * 64: "no"})
    found = values(engine)
    assert found["ml_predictions_total", "m", "1.0.0", "jobs"] == 1200
    assert found["ml_model_accuracy", "m", "1.0.0"] == pytest.approx(240 / 400)
    assert found["scorehouse_workers_refusing", "m", "1.0.0"] == 1


def test_alerts_that_are_open_are_counted_by_state_and_severity(
    engine: Engine, version: Audited, tmp_path: Path
) -> None:
    version.score(10, as_of=DAY)
    run_audit(version, "drift", tmp_path)
    for window in range(2):
        with transaction(engine) as connection:
            run = connection.execute(sa.select(audit_run).limit(1)).one()
            start = DAY + timedelta(hours=window)
            found = [Observation("critical", 0.4, 0.1, 0.3, "ks", start, column) for column in ("a", "b")]
            alerting.observe(connection, run, [*found[: 2 - window], *found[:window]])
    found = values(engine)
    assert found["scorehouse_alerts", "m", "firing", "critical"] == 1
    assert found["scorehouse_alerts", "m", "pending", "critical"] == 1
