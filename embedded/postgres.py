"""PostgreSQL 18 as a foreground child of this process, on a unix socket only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import urlencode

import psutil
import psycopg2

from embedded import EmbeddedError
from embedded.account import Account, can_reach, unprivileged_account
from embedded.pginstall import MAJOR_VERSION, programs_for
from embedded.postmaster import end_orphans, recorded_pid, recorded_status, works_in
from embedded.server import Server
from embedded.sockets import remove_socket_folder, socket_folder
from embedded.tether import tethered

USER = "scorehouse"
# Who the API and the workers log in as; migrations make it. It owns nothing.
APP_USER = "scorehouse_app"
DATABASE = "scorehouse"
SOCKET = ".s.PGSQL.5432"

# For bulk writes on a small machine: few checkpoints, no replication, and no compiling of short queries.
TUNING = {
    "listen_addresses": "",
    "max_connections": "200",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
# A quarter of the machine's memory, and at most this: what a million predictions and their indexes touch while they are
# written fits, and only what is touched is taken. With 256 MB a second million cost 6.3 s of server CPU instead of 4.0,
# because every page that was needed had to push out a dirty one.
SHARED_BUFFERS_MIB = 1024

# For tests: commits survive the death of Postgres, not of the machine. synchronous_commit stays on: without fsync it costs
# one write, and without it a SIGKILL of Postgres loses commits that a client was told of.
NOT_DURABLE = {"fsync": "off", "full_page_writes": "off"}

START_SECONDS = 300.0  # recovery after a crash replays up to max_wal_size


class Postgres(Server):
    """A server whose data lives in `folder`, made by initdb on the first start.

    Args:
        folder: created when missing. As root the server runs as `nobody`; when that account cannot enter the folder, the
            data lives in a private folder below /var/tmp instead, written down in FOLDER/data_folder.
        durable: False gives up safety against a crash of the machine for speed.
        options: further server settings, which win over ours.
    """

    name: ClassVar[str] = "Postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # fast; SIGTERM would wait for the clients to leave
    hurry_signal: ClassVar[signal.Signals] = signal.SIGQUIT  # immediate: the next start recovers
    stop_seconds: ClassVar[float] = 60.0

    def __init__(self, folder: Path, *, durable: bool = True, options: Mapping[str, str] = {}) -> None:
        super().__init__(folder, options)
        self.durable = durable
        self._socket_folder: Path | None = None
        self._data: Path | None = None

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the database `scorehouse`."""
        return self.url_of(DATABASE)

    @property
    def admin_url(self) -> str:
        """SQLAlchemy URL of the maintenance database, for creating and dropping others."""
        return self.url_of("postgres")

    @property
    def app_url(self) -> str:
        """SQLAlchemy URL of the database `scorehouse` for whoever does not own it."""
        return self.url_of(DATABASE, APP_USER)

    def url_of(self, database: str, user: str = USER) -> str:
        """SQLAlchemy URL of a database of this server; neither it nor the user need exist."""
        if self._socket_folder is None:
            raise EmbeddedError(f"Postgres in {self.folder} has not been started, so it has no URL")
        query = urlencode({"host": str(self._socket_folder)}, safe="/")
        return f"postgresql+psycopg2://{user}@/{database}?{query}"

    def start(self) -> None:
        account = unprivileged_account()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is not None:
            self.folder.chmod(0o711)  # may be entered by the server, not listed; everything in it is private
        self._take_folder()
        try:
            place = self._place(account)
            programs = programs_for(account, place)
            self._data = data = self._initialised(place, programs, account)
            self._forget_dead_postmaster(data)
            self._socket_folder = socket_folder(self.folder, SOCKET, account, before=self._socket_folder)
            self._spawn([str(programs / "postgres"), "-D", str(data), *self._settings()], _environment(), account)
        except BaseException:
            self._lock.release()
            raise
        self._wait_until_ready(START_SECONDS)
        self._ensure_database()

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it and wait: `fast` ends the sessions and writes everything out, `immediate` leaves that to recovery."""
        steps = [(signal.SIGQUIT, 15.0), (signal.SIGKILL, 15.0)]
        self._end([(self.stop_signal, self.stop_seconds), *steps] if mode == "fast" else steps)
        if self._process is not None and self._socket_folder is not None:
            remove_socket_folder(self.folder)

    def discard(self) -> None:
        """Stop at once and delete the data, wherever it is: for folders that were only ever temporary.

        Raises:
            EmbeddedError: another process runs a server on this folder.
        """
        if not self.folder.exists():
            return
        self.stop("immediate")
        self._take_folder()
        record = self.folder / "data_folder"
        if record.exists():
            shutil.rmtree(record.read_text(), ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def _place(self, account: Account | None) -> Path:
        """The folder that holds `data`: ours, or the private one when the account cannot enter ours."""
        record = self.folder / "data_folder"
        if record.exists():
            place = Path(record.read_text())
            if not place.is_dir():
                raise EmbeddedError(
                    f"{record} says that the data of Postgres is in {place}, which is gone: put it back, or delete "
                    f"{self.folder} to start empty"
                )
            return place
        if account is None or can_reach(self.folder, account):
            return self.folder
        if (self.folder / "data").exists():
            raise EmbeddedError(
                f"Postgres runs as `nobody`, which cannot enter a folder above {self.folder / 'data'} any more: "
                "let everybody enter those folders (`chmod o+x`)"
            )
        place = Path(tempfile.mkdtemp(prefix="scorehouse-", dir="/var/tmp"))
        os.chown(place, account.uid, account.gid)
        record.write_text(str(place))
        return place

    def _initialised(self, place: Path, programs: Path, account: Account | None) -> Path:
        """PLACE/data, which is complete when it exists: initdb works beside it and is renamed at its end."""
        data, unfinished = place / "data", place / "data.new"
        if not data.exists():
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir(mode=0o700)
            if account is not None:
                os.chown(unfinished, account.uid, account.gid)
            self._initdb(unfinished, programs, account)
            unfinished.rename(data)
        version = (data / "PG_VERSION").read_text().strip()
        if version != str(MAJOR_VERSION):
            raise EmbeddedError(
                f"{data} was made by PostgreSQL {version}, and this is {MAJOR_VERSION}: dump it with the former and "
                "load it here, or use another data folder"
            )
        return data

    def _initdb(self, data: Path, programs: Path, account: Account | None) -> None:
        # The built-in locale needs none of the machine's; the socket folder is private, so whoever reaches it is trusted.
        argv = [str(programs / "initdb"), "-D", str(data), "-U", USER, "--auth=trust", "--encoding=UTF8"]
        argv += ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--data-checksums"]
        argv += [] if self.durable else ["--no-sync"]
        done = subprocess.run(
            tethered(argv, signal.SIGKILL, account),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env=_environment(),
            cwd="/",
            start_new_session=True,
            check=False,
        )
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            raise EmbeddedError(f"initdb could not make {data}, and said:\n{said}")

    def _settings(self) -> list[str]:
        chosen = {
            **TUNING,
            "shared_buffers": f"{_shared_buffers_mib()}MB",
            **({} if self.durable else NOT_DURABLE),
            **self.options,
        }
        chosen["unix_socket_directories"] = str(self._socket_folder)
        chosen["unix_socket_permissions"] = "0700"
        return [part for name, value in chosen.items() for part in ("-c", f"{name}={value}")]

    def _forget_dead_postmaster(self, data: Path) -> None:
        """Remove the pid file of a postmaster that was killed.

        Postgres takes the file seriously when *any* process of its account has that pid now, as happens after a restart of
        the machine. We hold the folder, so no server of ours runs; one that somebody else started is left to Postgres.
        """
        pid = recorded_pid(data)
        if pid is not None and not works_in(pid, data):
            (data / "postmaster.pid").unlink()

    def _running_pid(self) -> int | None:
        data = self._recorded_data()
        pid = recorded_pid(data)
        if pid is None or not works_in(pid, data):
            return None
        return None if recorded_status(data) == "stopping" else pid

    def _end_orphans(self) -> None:
        end_orphans(self._recorded_data())

    def _recorded_data(self) -> Path:
        """The data folder as far as it is known before the lock is ours."""
        record = self.folder / "data_folder"
        return (Path(record.read_text()) if record.exists() else self.folder) / "data"

    def _answers(self) -> bool:
        if self._data is None or recorded_status(self._data) != "ready":
            return False  # it would refuse, and write that into its log
        try:
            psycopg2.connect(_dsn(self.admin_url), connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    def _ensure_database(self) -> None:
        connection = psycopg2.connect(_dsn(self.admin_url))
        try:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,))
                if cursor.fetchone() is None:
                    cursor.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            connection.close()


def _environment() -> dict[str, str]:
    """Nothing of ours: a PGDATA, PGPORT or LC_ALL of the caller must not change the server."""
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _dsn(url: str) -> str:
    return url.replace("postgresql+psycopg2://", "postgresql://", 1)


def _shared_buffers_mib() -> int:
    return max(128, min(SHARED_BUFFERS_MIB, psutil.virtual_memory().total // 4 // 2**20))
