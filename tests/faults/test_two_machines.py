"""Servers and API on one machine, workers on another that knows two URLs and the artefact store, and a cable that is pulled."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import redis
import sqlalchemy as sa
from apart import Apart
from customers import Customers
from harness import MODEL, SETTINGS, VERSION
from machines import Machine, two_machines
from object_store import BUCKET, s3_server
from verdict import check, install_witness

from cli.background import SCOREHOUSE
from db.engine import create_engine
from embedded.console import Console
from embedded.postgres import APP_USER, DATABASE, Postgres
from embedded.program import Program
from embedded.valkey import Valkey
from migrations import upgrade

ROWS = 30_000
PACE = 1e-4
ANSWER_SECONDS = 20.0
BROKER_PORT = 6379


@dataclass
class House:
    """`servers` runs everything but the worker; `away` is the folder of the machine that has the worker."""

    apart: Apart
    servers: Machine
    workers: Machine
    away: Path

    @property
    def log_away(self) -> str:
        return (self.away / "log").read_text(errors="replace")


@pytest.fixture(scope="module")
def house(customers: Customers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("machines")
    with two_machines() as (servers, workers), ExitStack() as opened:
        opened.enter_context(servers.entered())
        login, broker_url, postgres = _start_servers(folder, servers, workers, opened)
        opened.enter_context(s3_server(servers.address))
        store = {"SCOREHOUSE_ARTEFACT_URL": f"s3://{BUCKET}/artefacts"}
        addresses = {"SCOREHOUSE_DATABASE_URL": login, "SCOREHOUSE_BROKER_URL": broker_url, **store}
        apart = opened.enter_context(Apart(folder / "servers", postgres.url, **addresses))
        install_witness(apart.engine)
        apart.start("beat")
        apart.start_api()
        opened.enter_context(_worker_away(folder / "away", workers, apart, addresses))
        apart.until(lambda: len(apart.query("SELECT 1 FROM worker_heartbeat")) == 2)
        apart.register(customers, VERSION, seconds_per_row=PACE)
        yield House(apart, servers, workers, folder / "away")


def test_a_machine_that_knows_three_addresses_scores(house: House, customers: Customers) -> None:
    apart, file = house.apart, customers.file(10_000)
    job_id = apart.submit(file.body)
    for row in (1, 2):
        single = apart.client.submit(MODEL, customers.record(row), wait=ANSWER_SECONDS)
        assert single.result is not None
        assert str(single.result["prediction"]) == file.expected.predictions[row - 1]
    apart.client.wait(job_id, timeout=60)
    assert check(apart.engine, job_id, file.expected).problems == []
    assert [path for path in house.away.rglob("*") if path.is_file() and path.stat().st_size > 1_000], "its own copy"
    assert not [path for path in house.away.rglob("*") if path.suffix in {".key", ".token"}]


def test_the_cable_is_pulled_for_longer_than_a_lease(house: House, customers: Customers) -> None:
    apart, file, few = house.apart, customers.file(ROWS), customers.file(500)
    jobs = {apart.submit(file.body): file}
    first = next(iter(jobs))
    apart.until(lambda: apart.done(first) >= 2)
    house.workers.pull_the_cable()
    try:
        jobs[apart.submit(few.body)] = few
        single = apart.client.submit(MODEL, customers.record(1))
        over = "SELECT 1 WHERE NOT EXISTS (SELECT FROM chunk WHERE state = 'running' AND lease_until > now())"
        apart.until(lambda: apart.query(over))
        done = apart.done(first)
        assert apart.query("SELECT 1 FROM chunk WHERE state = 'running' AND lease_until < now()"), "nothing was in hand"
    finally:
        house.workers.plug_it_in()
    assert apart.client.wait(single.id, timeout=ANSWER_SECONDS).state == "succeeded"
    for job_id, scored in jobs.items():
        apart.client.wait(job_id, timeout=60)
        verdict = check(apart.engine, job_id, scored.expected)
        assert (verdict.lost, verdict.duplicated, verdict.problems) == (0, 0, [])
    assert done < len(apart.query("SELECT 1 FROM chunk WHERE job_id = :job", job=first))


def test_another_machine_takes_over_what_one_has_in_hand(house: House, customers: Customers) -> None:
    """And what the first makes of it, once it is back, is refused."""
    apart, file = house.apart, customers.file(ROWS)
    job_id = apart.submit(file.body)
    apart.until(lambda: apart.done(job_id) >= 2)
    told = len(house.log_away)
    house.workers.pull_the_cable()
    try:
        apart.start("worker", "--concurrency", "2")
        apart.client.wait(job_id, timeout=60)
        assert apart.query("SELECT 1 FROM chunk WHERE job_id = :job AND crashes > 0", job=job_id), "nothing was in hand"
    finally:
        house.workers.plug_it_in()
    apart.stop("worker")
    single = apart.client.submit(MODEL, customers.record(1), wait=ANSWER_SECONDS)
    assert single.state == "succeeded", "the first machine is back"
    # It learns that its claim was taken away, or gives it up when the database had not answered for too long.
    apart.until(lambda: any(f'"{event}"' in house.log_away[told:] for event in ("fenced", "session_cut")))
    verdict = check(apart.engine, job_id, file.expected)
    assert (verdict.lost, verdict.duplicated, verdict.problems) == (0, 0, [])


def _start_servers(folder: Path, servers: Machine, workers: Machine, opened: ExitStack) -> tuple[str, str, Postgres]:
    """Postgres and Valkey as on a machine of their own, with passwords; the URLs that are given to others."""
    postgres = Postgres(folder / "postgres", durable=False, options={"listen_addresses": servers.address})
    opened.callback(postgres.discard)
    postgres.start()
    valkey = Valkey(folder / "valkey", options={"port": str(BROKER_PORT), "bind": servers.address})
    opened.enter_context(valkey)
    password = secrets.token_hex()
    with redis.Redis(unix_socket_path=valkey.url.removeprefix("redis+socket://")) as broker:
        broker.config_set("requirepass", password)
    upgrade(postgres.url, login=postgres.app_url)
    owner = create_engine(postgres.url, name="machines", role=None)
    with owner.begin() as connection:
        connection.execute(sa.text(f"ALTER ROLE {APP_USER} PASSWORD '{password}'"))
        rules = Path(connection.execute(sa.text("SHOW hba_file")).scalar_one())
        with rules.open("a") as file:
            file.writelines(
                f"host {DATABASE} {APP_USER} {each.address}/32 scram-sha-256\n" for each in (servers, workers)
            )
        connection.execute(sa.text("SELECT pg_reload_conf()"))
    owner.dispose()
    login = f"postgresql://{APP_USER}:{password}@{servers.address}/{DATABASE}"
    return login, f"redis://:{password}@{servers.address}:{BROKER_PORT}/0", postgres


@contextmanager
def _worker_away(folder: Path, machine: Machine, apart: Apart, addresses: dict[str, str]) -> Iterator[None]:
    """A worker with an empty data folder and nothing of ours but the addresses, and how to reach the bucket."""
    folder.mkdir()
    bucket = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    own = {"PATH": os.environ["PATH"], "SCOREHOUSE_DATA_DIR": str(folder / "data"), **addresses, **bucket}
    environment = {**own, **SETTINGS, "PYTHONPATH": apart.environment["PYTHONPATH"]}  # where the model's code is
    with (folder / "log").open("a") as log:
        argv = [str(SCOREHOUSE), "worker", "--concurrency", "2"]
        program = Program("worker away", argv, environment, Console(log), cwd=folder)
        with machine.entered():
            program.start()
        try:
            yield
        finally:
            program.stop()
