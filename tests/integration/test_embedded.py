"""The embedded servers: what a start, a kill, an odd folder and a second start do."""

from __future__ import annotations

import signal
import stat
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import kombu
import psutil
import psycopg2
import pytest
import redis
from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from embedded import EmbeddedError
from embedded.account import unprivileged_account
from embedded.postgres import Postgres
from embedded.secrets import ensure_secrets
from embedded.valkey import Valkey


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    server = Postgres(tmp_path / "postgres", durable=False)
    server.start()
    yield server
    server.discard()


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


def ask(url: str, statement: str) -> object:
    engine: Engine = create_engine(url)
    try:
        with engine.begin() as connection:
            result = connection.execute(text(statement))
            return result.scalar() if result.returns_rows else None
    finally:
        engine.dispose()


def kill_and_wait(server: Postgres | Valkey) -> None:
    server.send(signal.SIGKILL)
    while server.poll() is None:
        pass


def place_of(server: Postgres) -> Path:
    """Where the data is: beside the log, or as root in a private folder that the server's account can enter."""
    record = server.folder / "data_folder"
    return Path(record.read_text()) if record.exists() else server.folder


def socket_folder_of(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def test_postgres_is_ready_for_us_and_for_nobody_else(postgres: Postgres) -> None:
    assert ask(postgres.url, "SELECT current_database()") == "scorehouse"
    assert ask(postgres.admin_url, "SELECT current_database()") == "postgres"
    assert ask(postgres.url, "SHOW server_encoding") == "UTF8"
    assert ask(postgres.url, "SHOW data_checksums") == "on"
    assert ask(postgres.url, "SHOW listen_addresses") == ""
    assert postgres.pid is not None
    listening = psutil.Process(postgres.pid).net_connections(kind="inet")
    assert listening == []
    assert stat.S_IMODE(socket_folder_of(postgres.url).stat().st_mode) == 0o700
    assert stat.S_IMODE((place_of(postgres) / "data").stat().st_mode) == 0o700


def test_a_durable_postgres_writes_through_and_takes_options(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", options={"work_mem": "9MB"})
    try:
        server.start()
        assert ask(server.url, "SHOW fsync") == "on"
        assert ask(server.url, "SHOW synchronous_commit") == "on"
        assert ask(server.url, "SHOW work_mem") == "9MB"
    finally:
        server.discard()


def test_a_killed_postgres_keeps_what_was_committed(postgres: Postgres) -> None:
    idle = psycopg2.connect(postgres.url.replace("+psycopg2", ""))
    ask(postgres.url, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number")
    kill_and_wait(postgres)
    assert postgres.poll() == -signal.SIGKILL
    postgres.start()
    assert ask(postgres.url, "SELECT count(*) FROM kept") == 1000
    idle.close()


def test_a_start_does_not_wait_for_a_backend_that_has_not_noticed_the_kill(postgres: Postgres) -> None:
    began = threading.Event()

    def count_for_long() -> None:
        connection = psycopg2.connect(postgres.url.replace("+psycopg2", ""))
        began.set()
        with suppress(psycopg2.OperationalError), connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM generate_series(1, 1000000000000) AS number")
        connection.close()

    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(count_for_long)
        assert began.wait(10)
        while (
            ask(postgres.url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT count(*) FROM gen%'") != 1
        ):
            pass
        kill_and_wait(postgres)
        postgres.start()
        assert ask(postgres.url, "SELECT 1") == 1
        busy.result(10)


def test_stopping_and_starting_postgres_keeps_the_data(postgres: Postgres) -> None:
    ask(postgres.url, "CREATE TABLE kept (number int)")
    modes: tuple[Literal["fast"], Literal["immediate"]] = ("fast", "immediate")
    for mode in modes:
        sockets = socket_folder_of(postgres.url)
        postgres.stop(mode)
        assert postgres.poll() is not None
        assert not (sockets / ".s.PGSQL.5432").exists() or mode == "immediate"
        postgres.start()
        assert ask(postgres.url, "SELECT count(*) FROM kept") == 0


def test_a_pid_file_that_names_a_stranger_of_the_same_account_is_no_obstacle(postgres: Postgres) -> None:
    postgres.stop()
    account = unprivileged_account()
    stranger = subprocess.Popen(["sleep", "60"], user=account and account.uid)
    try:
        file = place_of(postgres) / "data" / "postmaster.pid"
        file.write_text(f"{stranger.pid}\n{file.parent}\n0\n5432\n\n\n\nready\n")
        postgres.start()
        assert ask(postgres.url, "SELECT 1") == 1
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_interrupted_first_start_leaves_nothing_that_disturbs_the_next(postgres: Postgres) -> None:
    postgres.stop()
    data = place_of(postgres) / "data"
    unfinished = data.rename(data.with_name("data.new"))
    (unfinished / "PG_VERSION").unlink()
    postgres.start()
    assert ask(postgres.url, "SELECT 1") == 1
    assert not unfinished.exists()


def test_the_data_stays_below_a_folder_that_the_server_can_enter() -> None:
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o711)  # what `ensure_data_dir` makes for root
    server = Postgres(folder / "postgres", durable=False)
    try:
        server.start()
        assert place_of(server) == server.folder
        assert socket_folder_of(server.url) == server.folder / "run"
        assert stat.S_IMODE((server.folder / "data").stat().st_mode) == 0o700
    finally:
        server.discard()
        folder.rmdir()


def test_data_that_is_gone_is_not_replaced_by_an_empty_database(postgres: Postgres) -> None:
    postgres.stop()
    place = place_of(postgres)
    (postgres.folder / "data_folder").write_text("/nowhere/at/all")
    with pytest.raises(EmbeddedError, match=r"the data of Postgres is in /nowhere/at/all, which is gone"):
        postgres.start()
    (postgres.folder / "data_folder").write_text(str(place))  # so that the fixture finds it


def test_data_of_another_major_version_is_refused(postgres: Postgres) -> None:
    postgres.stop()
    (place_of(postgres) / "data" / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedError, match="was made by PostgreSQL 16, and this is 18"):
        postgres.start()


def test_a_wrong_option_is_reported_with_what_postgres_said(tmp_path: Path) -> None:
    server = Postgres(tmp_path / "postgres", durable=False, options={"work_mem": "plenty"})
    try:
        with pytest.raises(EmbeddedError, match=r'(?s)ended with code 1.*invalid value for parameter "work_mem"'):
            server.start()
    finally:
        server.discard()


def test_a_second_postgres_on_the_folder_is_refused_and_harms_nothing(postgres: Postgres) -> None:
    with pytest.raises(EmbeddedError, match=rf"already runs on .* \(pid {postgres.pid}\)"):
        Postgres(postgres.folder, durable=False).start()
    assert ask(postgres.url, "SELECT 1") == 1


def test_both_servers_work_below_a_long_path_with_odd_characters(tmp_path: Path) -> None:
    folder = tmp_path / ("long " * 30) / "with, comma's and ünïcode %20"
    postgres, valkey = Postgres(folder / "postgres", durable=False), Valkey(folder / "valkey")
    try:
        postgres.start()
        valkey.start()
        assert ask(postgres.url, "SELECT 1") == 1
        assert round_trip(valkey.url) == {"permit": "bulk"}
    finally:
        sockets = socket_folder_of(postgres.url)
        postgres.discard()
        valkey.stop()
    assert not sockets.exists()
    assert not postgres.folder.exists()


def round_trip(url: str) -> object:
    with kombu.Connection(url) as connection:
        queue = connection.SimpleQueue("permits")
        queue.put({"permit": "bulk"})
        message = queue.get(timeout=10)
        message.ack()
        queue.close()
        return message.payload


def client_of(valkey: Valkey) -> redis.Redis:
    return redis.Redis.from_url(valkey.url.replace("redis+socket", "unix"))


def test_valkey_carries_messages_and_listens_on_no_port(valkey: Valkey) -> None:
    assert round_trip(valkey.url) == {"permit": "bulk"}
    assert valkey.pid is not None
    assert psutil.Process(valkey.pid).net_connections(kind="inet") == []
    assert stat.S_IMODE(Path(urlsplit(valkey.url).path).parent.stat().st_mode) == 0o700
    with client_of(valkey) as client:
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_a_killed_valkey_starts_again_at_the_same_url_and_empty(valkey: Valkey) -> None:
    url = valkey.url
    with client_of(valkey) as client:
        client.set("kept", "no")
    kill_and_wait(valkey)
    valkey.start()
    assert valkey.url == url
    with client_of(valkey) as client:
        assert client.get("kept") is None


def test_a_second_valkey_on_the_folder_is_refused(valkey: Valkey) -> None:
    with pytest.raises(EmbeddedError, match=rf"already runs on .* \(pid {valkey.pid}\)"):
        Valkey(valkey.folder).start()
    assert round_trip(valkey.url) == {"permit": "bulk"}


def test_secrets_are_made_once_for_our_eyes_only(tmp_path: Path) -> None:
    data_dir = tmp_path / "new" / "data"
    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(ensure_secrets, [data_dir] * 16))
    found = ensure_secrets(data_dir)
    assert set(started) == {found}
    assert len(found.jwt_key_file.read_text()) >= 43  # 32 bytes in base64
    assert len(found.flower_password()) >= 16
    assert found.jwt_key_file.read_text() == ensure_secrets(data_dir).jwt_key_file.read_text()
    assert sorted(path.name for path in data_dir.iterdir()) == ["flower.password", "jwt.key"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in data_dir.iterdir()} == {0o600}
    assert data_dir.stat().st_mode & 0o066 == 0


def test_a_data_folder_that_is_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(EmbeddedError, match="is a file: name a folder with --data-dir"):
        ensure_secrets(tmp_path / "data")
