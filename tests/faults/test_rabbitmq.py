"""RabbitMQ as the broker: the same promises as with Valkey, when it is stopped, forgets, is full, and says what it should not."""

from __future__ import annotations

import json
import pickle
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from apart import Apart
from celery import Celery
from customers import Customers
from harness import MODEL, SECONDS, VERSION
from kombu import Connection
from rabbitmq_server import HOST, RabbitMQ
from test_broker import Trap
from verdict import check, install_witness

from cli.background import SCOREHOUSE
from embedded.postgres import Postgres
from migrations import upgrade
from permits import QUEUES, TRAINING, celery_app, publish, top_up
from settings import get_settings

ROWS, MANY = 30_000, 100_000  # many are more than what is scored on the permits that are out already
PACE = 1e-4
CONSUMES_AGAIN_SECONDS = 10.0
HEARTBEAT_SECONDS = 5.0
LATENCY_SECONDS = 2.0
LONG_FORM = pytest.mark.skipif(SECONDS <= 5, reason="a part of `make faults`")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of a server at 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    argv = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    argv += ["-subj", "/CN=broker", "-addext", f"subjectAltName=IP:{HOST}"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def rabbit(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[RabbitMQ]:
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq") / "server", certificate) as rabbit:
        yield rabbit


@pytest.fixture(scope="module")
def house(rabbit: RabbitMQ, customers: Customers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    """API, beat and a worker that find each other through it, with the model in production."""
    folder = tmp_path_factory.mktemp("house")
    postgres = Postgres(folder / "postgres", durable=False)
    postgres.start()
    try:
        upgrade(postgres.url, login=postgres.app_url)
        with Apart(folder / "data", postgres.url, rabbit.url()) as house:
            install_witness(house.engine)
            house.start("beat")
            house.start("worker", "--concurrency", "2")
            house.start_api()
            house.until(lambda: len(house.query("SELECT 1 FROM worker_heartbeat")) == 2)
            house.register(customers, VERSION, seconds_per_row=PACE)
            yield house
    finally:
        postgres.discard()


@pytest.fixture
def app(rabbit: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    monkeypatch.setenv("SCOREHOUSE_BROKER_URL", rabbit.url())
    get_settings.cache_clear()
    app = celery_app("tests")
    yield app
    app.close()
    get_settings.cache_clear()


def test_singles_and_files_are_scored_beside_each_other(house: Apart, customers: Customers) -> None:
    file = customers.file(ROWS)
    job_id = house.submit(file.body)
    house.until(lambda: house.done(job_id) >= 1)
    for row in (1, 2, 3):
        single = house.client.submit(MODEL, customers.record(row), wait=CONSUMES_AGAIN_SECONDS)
        assert single.result is not None
        assert str(single.result["prediction"]) == file.expected.predictions[row - 1]
    house.client.wait(job_id, timeout=60)
    assert check(house.engine, job_id, file.expected).problems == []


def test_a_deployment_switches(house: Apart, customers: Customers) -> None:
    house.register(customers, "1.1.0", seconds_per_row=PACE)
    file = customers.file(500)
    job = house.client.wait(house.submit(file.body), timeout=60)
    assert job.model_version == "1.1.0"
    assert check(house.engine, job.id, file.expected).problems == []


@pytest.mark.parametrize("harm", ["stop", pytest.param("kill", marks=LONG_FORM)])
def test_it_goes_in_mid_job_and_comes_back_empty(
    harm: str, house: Apart, rabbit: RabbitMQ, app: Celery, customers: Customers
) -> None:
    file, few, mains = customers.file(MANY), customers.file(500), house.pids
    jobs = {house.submit(file.body): file}
    first = next(iter(jobs))
    house.until(lambda: house.done(first) >= 2)
    getattr(rabbit, harm)()
    rabbit.forget()
    began = time.monotonic()
    jobs[house.submit(few.body)] = few
    single = house.client.submit(MODEL, customers.record(1))
    assert time.monotonic() - began < LATENCY_SECONDS
    rabbit.start()
    assert house.query("SELECT 1 FROM job WHERE id = :job AND finished_at IS NULL", job=first), "give it more rows"
    _assert_both_lanes_hear(house, customers)
    assert house.client.wait(single.id, timeout=CONSUMES_AGAIN_SECONDS).state == "succeeded"
    assert _next_tick(app).startswith("tick."), "beat has found it, too"
    for job_id, scored in jobs.items():
        house.client.wait(job_id, timeout=60)
        assert check(house.engine, job_id, scored.expected).problems == []
    assert house.pids == mains
    assert house.logged("deaf") == 0


@LONG_FORM
def test_it_hangs(house: Apart, rabbit: RabbitMQ, customers: Customers) -> None:
    """Nothing is heard of it, so workers look for another connection."""
    few, mains, away = customers.file(500), house.pids, house.logged("broker_away")
    with rabbit.stopped():
        began = time.monotonic()
        job_id = house.submit(few.body)
        single = house.client.submit(MODEL, customers.record(1))
        assert time.monotonic() - began < LATENCY_SECONDS
        house.until(lambda: house.logged("broker_away") > away, seconds=4 * HEARTBEAT_SECONDS)
    _assert_both_lanes_hear(house, customers)
    assert house.client.wait(single.id, timeout=60).state == "succeeded"
    house.client.wait(job_id, timeout=60)
    assert check(house.engine, job_id, few.expected).problems == []
    assert house.pids == mains


@LONG_FORM
def test_it_is_full_for_a_while(house: Apart, rabbit: RabbitMQ, customers: Customers) -> None:
    """At its limit of memory it takes nothing from whoever publishes."""
    few, mains, failed = customers.file(500), house.pids, house.logged("permits_failed")
    rabbit.ctl("set_vm_memory_high_watermark", "0")
    try:
        began = time.monotonic()
        job_id = house.submit(few.body)
        single = house.client.submit(MODEL, customers.record(1))
        assert time.monotonic() - began < LATENCY_SECONDS
        house.until(lambda: house.logged("permits_failed") > failed)
    finally:
        rabbit.ctl("set_vm_memory_high_watermark", "0.4")
    _assert_both_lanes_hear(house, customers)
    assert house.client.wait(single.id, timeout=60).state == "succeeded"
    house.client.wait(job_id, timeout=60)
    assert check(house.engine, job_id, few.expected).problems == []
    assert house.pids == mains


def test_what_it_says_is_not_believed(house: Apart, rabbit: RabbitMQ, customers: Customers, tmp_path: Path) -> None:
    trap, mains = tmp_path / "trap", house.pids
    children = {child.pid for child in house.children("worker")}
    with Connection(rabbit.url()) as connection:
        producer = connection.Producer()
        for queue in QUEUES:
            for body, properties in _hostile(trap):
                producer.publish(body, routing_key=queue, **{"content_encoding": "utf-8", **properties})
        for body in (b"\x80\x04garbage", pickle.dumps(Trap(trap)), b"{}", b'{"method": "shutdown"}'):
            kind = {"content_type": "application/json", "content_encoding": "utf-8"}
            producer.publish(body, exchange="celery.pidbox", routing_key="", **kind)
    _assert_both_lanes_hear(house, customers)
    house.until(lambda: house.logged("message_dropped") >= 4)
    assert not trap.exists(), "code of a message ran"
    assert house.pids == mains, "a message ended a worker"
    assert {child.pid for child in house.children("worker")} == children


def test_permits_that_nobody_takes_do_not_pile_up(house: Apart, app: Celery) -> None:
    """Nobody serves the lane of trainings here."""
    app.control.purge()
    for count, expected in ((1, 1), (3, 3), (2, 3)):
        top_up(app, "train", count)
        assert _waiting(app, TRAINING) == expected
    publish(app, "train", 1_100)
    assert _waiting(app, TRAINING) == 1_000


def test_doctor_tells_what_it_is_and_whom_it_does_not_trust(
    house: Apart, rabbit: RabbitMQ, certificate: tuple[Path, Path]
) -> None:
    found = _doctor(house, rabbit.url())
    assert found["state"] == "ok"
    assert found["detail"].startswith("RabbitMQ ")
    trusted = {"SSL_CERT_FILE": str(certificate[0])}
    assert _doctor(house, rabbit.tls_url(HOST), **trusted)["state"] == "ok"
    for url, environment in ((rabbit.tls_url("127.1"), trusted), (rabbit.tls_url(HOST), {})):
        refused = _doctor(house, url, **environment)
        assert refused["state"] == "failed"
        assert "certificate verify failed" in refused["detail"]


def _assert_both_lanes_hear(house: Apart, customers: Customers) -> None:
    """Within the time in which a broker must be found again, from now on."""
    since = house.query("SELECT clock_timestamp() AS now")[0].now
    house.submit(customers.file(500).body)
    single = house.client.submit(MODEL, customers.record(1), wait=CONSUMES_AGAIN_SECONDS)
    assert single.state == "succeeded", "the interactive lane does not hear"
    claimed = "SELECT 1 FROM chunk WHERE lane = 'bulk' AND started_at > :since LIMIT 1"
    house.until(lambda: house.query(claimed, since=since), seconds=CONSUMES_AGAIN_SECONDS)


def _hostile(trap: Path) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """Bodies and properties of messages; kombu sends them as they are."""
    json_ = {"content_type": "application/json"}
    pickled = pickle.dumps(Trap(trap))

    def headers(**more: Any) -> dict[str, Any]:
        return {"headers": {"task": "score.bulk", "id": str(uuid4()), "lang": "py", **more}}

    yield b"\x80\x04garbage", {}
    yield b"", json_
    yield pickled, {"content_type": "application/x-python-serialize", "content_encoding": "binary", **headers()}
    yield pickled, {**json_, **headers()}
    yield b"bomb", {**json_, **headers(compression="application/x-gzip")}
    yield b"[[], {}, {", {**json_, **headers()}
    yield json.dumps([[f"touch {trap}"], {}, {}]).encode(), {**json_, **headers(task="os.system")}
    yield json.dumps([[], {}, {"callbacks": [{"task": "os.system"}]}]).encode(), {**json_, **headers()}
    yield b"[[], {}, {}]", {**json_, **headers(task=["score.bulk"])}
    yield b"[[], {}, {}]", {**json_, **headers(id="../../etc/passwd")}
    yield b"[[], {}, {}]", {**json_, **headers(eta="2999-01-01T00:00:00+00:00", timelimit=[0.001, 0.001])}
    yield b"[[], {}, {}]", {**json_, **headers(), "reply_to": "x", "priority": 9, "correlation_id": "y"}


def _next_tick(app: Celery) -> str:
    """What beat asks for; the worker takes turns with us."""
    taken: list[Any] = []
    with (
        app.connection_for_read() as connection,
        connection.Consumer(app.amqp.queues["ticks"], callbacks=[lambda _, each: taken.append(each)], no_ack=True),
    ):
        connection.drain_events(timeout=CONSUMES_AGAIN_SECONDS)
    return str(taken[0].headers["task"])


def _waiting(app: Celery, queue: str) -> int:
    with app.connection_for_write() as connection:
        return int(connection.default_channel.queue_declare(queue, passive=True).message_count)


def _doctor(house: Apart, broker_url: str, **environment: str) -> dict[str, Any]:
    """What it says of the broker."""
    inherited = {name: value for name, value in house.environment.items() if name != "SSL_CERT_FILE"}
    done = subprocess.run(
        [str(SCOREHOUSE), "doctor", "--json"],
        env={**inherited, "SCOREHOUSE_BROKER_URL": broker_url, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    checks = {each["name"]: each for each in json.loads(done.stdout)["checks"]}
    found: dict[str, Any] = checks["broker"]
    return found
