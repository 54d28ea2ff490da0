"""Whoever waits for a database that does not answer hears of it in time, and whoever waits for long work does not."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from proxy import HOST, Proxy
from sqlalchemy import Connection, Engine

from db import silence
from db.engine import create_engine, cursor_of, transaction
from embedded.postgres import SOCKET, USER
from errors import Unavailable

# Shorter than in earnest: looked into after 1 s, and 1 s for an answer.
NOTICED_SECONDS = 4.0
LONG_SECONDS = 3.0


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(silence, "SILENT_SECONDS", 1.0)
    monkeypatch.setattr(silence, "_ANSWER_SECONDS", 1.0)
    monkeypatch.setattr(silence, "_IDLE_SECONDS", 0.5)
    monkeypatch.setattr(silence, "_LOOK_SECONDS", 0.2)


@pytest.fixture
def network(database_url: str) -> Iterator[Proxy]:
    folder = Path(parse_qs(urlsplit(database_url).query)["host"][0])
    with Proxy(lambda: folder / SOCKET) as network:
        at_the_latest = threading.Timer(30, network.cut)  # a test that fails ends, too
        at_the_latest.start()
        yield network
        at_the_latest.cancel()


@pytest.fixture
def remote(network: Proxy, database_url: str) -> Iterator[Engine]:
    name = urlsplit(database_url).path
    url = f"postgresql://{USER}@{HOST}:{network.port}{name}?sslmode=disable&gssencmode=disable"
    engine = create_engine(url, name="remote", pool_size=2)
    yield engine
    engine.dispose()


def _statement(connection: Connection) -> None:
    connection.execute(sa.text("SELECT 1"))


def _copy(connection: Connection) -> None:
    cursor_of(connection).copy_expert("COPY model TO STDOUT", io.StringIO())


def _commit(connection: Connection) -> None:
    connection.commit()


@pytest.mark.parametrize("act", [_statement, _copy, _commit])
@pytest.mark.parametrize("harm", [Proxy.silence, Proxy.black_hole])
def test_a_server_that_does_not_answer_is_an_outage(
    harm: Callable[[Proxy], None], act: Callable[[Connection], None], network: Proxy, remote: Engine
) -> None:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        _harmed(remote, lambda: harm(network), act)
    assert time.monotonic() - began < NOTICED_SECONDS
    network.heal()
    with transaction(remote) as connection:
        _statement(connection)


def test_a_connection_that_was_forgotten_is_cut_though_the_server_answers(network: Proxy, remote: Engine) -> None:
    def forget() -> None:
        network.silence()
        network.heal()

    began = time.monotonic()
    with pytest.raises(Unavailable):
        _harmed(remote, forget, _statement)
    assert time.monotonic() - began < NOTICED_SECONDS


def test_long_work_is_not_cut(remote: Engine) -> None:
    with transaction(remote) as connection:
        connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": LONG_SECONDS})


def test_a_wait_for_a_lock_is_not_cut(remote: Engine) -> None:
    held, waited = threading.Event(), threading.Event()

    def hold() -> None:
        with transaction(remote) as connection:
            connection.execute(sa.text("LOCK TABLE model"))
            held.set()
            waited.wait(LONG_SECONDS)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(10)
    with transaction(remote) as connection:
        connection.execute(sa.text("SELECT * FROM model"))
    holder.join()


def test_a_server_that_has_no_place_for_the_question_is_no_silence(network: Proxy, remote: Engine) -> None:
    stop = threading.Event()

    def refuse() -> None:
        while not stop.wait(0.02):
            network.cut(b"scorehouse-silence")

    refusing = threading.Thread(target=refuse)
    refusing.start()
    try:
        with transaction(remote) as connection:
            connection.execute(sa.text("SELECT pg_sleep(:seconds)"), {"seconds": LONG_SECONDS})
    finally:
        stop.set()
        refusing.join()


def _harmed(engine: Engine, harm: Callable[[], None], act: Callable[[Connection], None]) -> None:
    """A transaction whose network is harmed before it does the last."""
    with transaction(engine) as connection:
        _statement(connection)
        harm()
        act(connection)
