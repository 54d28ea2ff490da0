"""`scorehouse backup` and `scorehouse restore`: the database, and every artefact that it refers to.

The database comes first, by an exported snapshot, and then the artefacts that this very snapshot refers to. An artefact is in
the store before a version refers to it and never changes, so the other order could miss one, and this one cannot: the
system may run on meanwhile. Keys and tokens are not part of it: whoever can read a backup must not be able to sign tokens.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from cli import backup_files, database
from cli.connection import Json, load_settings
from cli.terminal import say, warn, write_json
from errors import ArtefactRefused, InvalidInput, NotFound, ScorehouseError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from db.backups import Snapshot
    from db.trail import Act
    from settings import Settings

_LINE_SECONDS = 3.0
_LEFT_OUT = (
    "signing keys and tokens (jwt.key, admin.token, flower.password)",
    "settings, .env and the secrets of containers",
    "passwords of the database's users",
)
_MAX_ARTEFACT_BYTES = 1 << 50


def register(app: typer.Typer) -> None:
    app.command()(backup)
    app.command()(restore)


def backup(
    path: Annotated[Path, typer.Argument(help="A new folder, or a file that ends in .zip.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Write the database and all artefacts to a folder or a .zip; the system may run meanwhile.

    Exits 1 when an artefact is missing or damaged; the rest is saved all the same.
    """
    settings = load_settings()
    if not _is_there(settings):
        raise NotFound(f"there is no database in {settings.data_dir}, and SCOREHOUSE_DATABASE_URL names none")
    with backup_files.written(path) as files, _database(settings) as (owner_url, _):
        manifest = _saved(settings, owner_url, files)
        with files.open(backup_files.MANIFEST) as file:
            file.write(json.dumps(manifest, indent=2).encode())
        _noted(owner_url, "backup.made", path, manifest)  # it says so before anybody has it
    if as_json:
        write_json(manifest)
    else:
        say(
            f"{path}: {manifest['jobs']:,} jobs, {manifest['jobs_open']:,} of them open, and "
            f"{len(manifest['artefacts']):,} artefacts"
        )
        say(f"not in it, keep them apart: {'; '.join(_LEFT_OUT)}")
    for each in manifest["missing"]:
        warn(each)
    if manifest["missing"]:
        raise typer.Exit(1)


def restore(
    path: Annotated[Path, typer.Argument(help="What `scorehouse backup` wrote.", show_default=False)],
    as_json: Json = False,
) -> None:
    """Bring a backup into an empty database and the artefact store; open jobs go on when workers start."""
    settings = load_settings()
    with backup_files.read(path) as (manifest, files):
        _verify(manifest, files)
        with _database(settings) as (owner_url, login_url):
            requeued = _restored(settings, owner_url, login_url, manifest, files)
            _noted(owner_url, "backup.restored", path, manifest)
    if as_json:
        write_json({**manifest, "chunks_requeued": requeued})
    else:
        say(
            f"restored {manifest['jobs']:,} jobs and {len(manifest['artefacts']):,} artefacts as of {manifest['made_at']}"
        )
        say(f"{manifest['jobs_open']:,} open jobs go on as soon as workers run")
        say(f"not in the backup: {'; '.join(_LEFT_OUT)}; tokens are accepted again when jwt.key is put back")


def _saved(settings: Settings, owner_url: str, files: backup_files.Files) -> dict[str, Any]:
    from db import backups  # noqa: PLC0415  # SQLAlchemy, as below

    with _as_owner(owner_url) as connection:
        snapshot = backups.snapshot(connection)
        digest, size = _dumped(owner_url, snapshot, files)
    artefacts, missing = _copied(settings, snapshot, files)
    return {
        "format": backup_files.FORMAT,
        "made_at": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "release": settings.release,
        "schema": snapshot.schema,
        "postgres": snapshot.server,
        "jobs": snapshot.jobs,
        "jobs_open": snapshot.jobs_open,
        "database": {"file": backup_files.DUMP, "digest": digest, "bytes": size},
        "artefacts": artefacts,
        "missing": missing,
        "left_out": list(_LEFT_OUT),
    }


def _dumped(owner_url: str, snapshot: Snapshot, files: backup_files.Files) -> tuple[str, int]:
    """pg_dump's output, as it comes."""
    from db.backups import MOMENTARY  # noqa: PLC0415

    options = ["--format=custom", "--compress=1", "--no-owner", f"--snapshot={snapshot.name}"]
    options += [f"--exclude-table-data={table}" for table in MOMENTARY]
    failed = "could not dump the database"
    ends = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE}
    with (
        _client("pg_dump", options, snapshot.server, owner_url, failed=failed, **ends) as process,
        files.open(backup_files.DUMP) as target,
    ):
        return backup_files.copy(process.stdout, target, _Shown("dumped", snapshot.bytes))


def _copied(
    settings: Settings, snapshot: Snapshot, files: backup_files.Files
) -> tuple[list[dict[str, Any]], list[str]]:
    """The artefacts that are saved, and what is wrong with the others."""
    from registry.store import ArtefactStore  # noqa: PLC0415

    store = ArtefactStore(settings.resolved_artefact_url())
    saved: list[dict[str, Any]] = []
    missing: list[str] = []
    for number, digest in enumerate(snapshot.artefacts, 1):
        try:
            source = store.open(digest)
        except NotFound as exc:
            missing.append(str(exc))
            continue
        with source, files.open(backup_files.artefact(digest)) as target:
            found, size = backup_files.copy(source, target, _nothing)
        if found == digest:
            saved.append({"digest": digest, "bytes": size})
        else:
            missing.append(f"the artefact {digest} is damaged: its content is that of {found}")
        say(f"artefact {number:,} of {len(snapshot.artefacts):,}, {size / 1e6:,.1f} MB")
    return saved, missing


def _verify(manifest: dict[str, Any], files: backup_files.Files) -> None:
    """Read all of a backup, before anything is written.

    Raises:
        ArtefactRefused: a file is not what was saved.
    """
    shown = _Shown("verified", manifest["database"]["bytes"] + sum(each["bytes"] for each in manifest["artefacts"]))
    named = [(manifest["database"]["file"], manifest["database"]["digest"])]
    named += [(backup_files.artefact(each["digest"]), each["digest"]) for each in manifest["artefacts"]]
    for name, digest in named:
        try:
            with files.open(name) as file:
                found, _ = backup_files.copy(file, None, shown)
        except (OSError, ValueError) as exc:
            raise ArtefactRefused(f"{name} of the backup cannot be read: {exc}; take another backup") from exc
        except Exception as exc:  # of zipfile: what its checksum says
            raise ArtefactRefused(f"{name} of the backup is damaged: {exc}; take another backup") from exc
        if found != digest:
            raise ArtefactRefused(f"{name} of the backup is damaged: {found}, not {digest}; take another backup")


def _restored(
    settings: Settings, owner_url: str, login_url: str, manifest: dict[str, Any], files: backup_files.Files
) -> int:
    """Artefacts first: a database that is there refers to nothing that is not."""
    from db import backups  # noqa: PLC0415
    from migrations import upgrade  # noqa: PLC0415
    from migrations.roles import ensure_roles  # noqa: PLC0415
    from registry.store import ArtefactStore  # noqa: PLC0415

    with _as_owner(owner_url) as connection:
        if there := backups.relations(connection):
            raise InvalidInput(
                f"the database is not empty (it has {', '.join(there[:3])} …): restore into a new one, or remove the data "
                "folder of an embedded one that is not needed"
            )
        server = backups.server_version(connection)
        if server < manifest["postgres"]:
            raise InvalidInput(
                f"the backup is of PostgreSQL {manifest['postgres']}, this server is {server}: use a later one"
            )
        ensure_roles(connection)
    store = ArtefactStore(settings.resolved_artefact_url())
    for each in manifest["artefacts"]:
        with files.open(backup_files.artefact(each["digest"])) as file:
            store.put(backup_files.blocks(file), _MAX_ARTEFACT_BYTES)
    _loaded(owner_url, server, manifest, files)
    upgrade(owner_url, login=login_url)
    with _as_owner(owner_url) as connection:
        return backups.requeue(connection)


def _noted(owner_url: str, act: Act, path: Path, manifest: dict[str, Any]) -> None:
    """In the audit trail: who can read a backup has seen everything."""
    from db import trail  # noqa: PLC0415

    with _as_owner(owner_url) as connection:
        details = {"made_at": manifest["made_at"], "digest": manifest["database"]["digest"]}
        trail.record(connection, tenant=None, by=database.user(), act=act, target=path.name, details=details)


def _loaded(owner_url: str, server: int, manifest: dict[str, Any], files: backup_files.Files) -> None:
    """All of the dump, or nothing."""
    options = ["--no-owner", "--exit-on-error", "--single-transaction"]
    failed = "could not restore the database, which is left empty"
    ends = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    with (
        _client("pg_restore", options, server, owner_url, failed=failed, **ends) as process,
        files.open(backup_files.DUMP) as source,
        suppress(BrokenPipeError),  # it says why
        process.stdin as target,
    ):
        backup_files.copy(source, target, _Shown("restored", manifest["database"]["bytes"]))


@contextmanager
def _client(
    name: str, options: list[str], server: int, owner_url: str, *, failed: str, stdin: int, stdout: int
) -> Iterator[Any]:
    """A client program of Postgres at work on the database, until the block ends; it is killed when that raises.

    Raises:
        ScorehouseError: it did not end well; `failed`, and what it said.
    """
    from embedded.clients import client_program, connection_of  # noqa: PLC0415

    program = client_program(name, server)
    where, environment = connection_of(_url(owner_url))
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(program), *options, *where],
            env=environment,
            stdin=stdin,
            stdout=stdout,
            stderr=said,
        )
        with process:
            try:
                yield process
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise ScorehouseError(f"{name} {failed}: {_words(said)}")


@contextmanager
def _as_owner(owner_url: str) -> Iterator[Connection]:
    """A transaction of whoever owns the tables."""
    from db import backups  # noqa: PLC0415

    engine = backups.engine(owner_url)
    try:
        with _translated(), engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def _is_there(settings: Settings) -> bool:
    known = settings.database_url is not None or bool(settings.running_stack())
    return known or (settings.data_dir / "postgres").exists()


@contextmanager
def _database(settings: Settings) -> Iterator[tuple[str, str]]:
    """The URLs of the owner and of the login: of the settings, of the running stack, or of the data folder's own server, which
    is started for the purpose.
    """
    if settings.database_url is not None or settings.running_stack():
        yield settings.resolved_database_owner_url(), settings.resolved_database_url()
        return
    from embedded.postgres import Postgres  # noqa: PLC0415
    from embedded.secrets import ensure_data_dir  # noqa: PLC0415
    from embedded.stack import Stack  # noqa: PLC0415

    ensure_data_dir(settings.data_dir)
    stack = Stack(settings.model_copy(update={"data_dir": settings.data_dir.absolute()}))
    stack.take()  # no stack starts meanwhile
    try:
        postgres = Postgres(settings.data_dir.absolute() / "postgres")
        with postgres:
            yield postgres.url, postgres.app_url
    finally:
        stack.release()


@contextmanager
def _translated() -> Iterator[None]:
    """What the database says, as a sentence."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    try:
        yield
    except DBAPIError as exc:
        raise ScorehouseError(f"the database: {str(exc.orig).strip()}") from exc


class _Shown:
    """A line now and then about how far it is."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total, self._done = what, total, 0
        self._due = time.monotonic() + _LINE_SECONDS

    def __call__(self, more: int) -> None:
        self._done += more
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + _LINE_SECONDS
            say(f"{self._what} {self._done / 1e6:,.0f} MB, of at most {self._total / 1e6:,.0f}")


def _nothing(_: int) -> None:
    pass


def _url(text: str) -> Any:
    from sqlalchemy import make_url  # noqa: PLC0415

    return make_url(text)


def _words(said: IO[bytes]) -> str:
    said.seek(0)
    return said.read().decode(errors="replace").strip()[:2000]
