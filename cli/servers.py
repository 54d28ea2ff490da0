"""What `scorehouse doctor` finds out about the servers: database, workers, broker and API."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import client_settings
from cli import connection
from errors import ScorehouseError

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from settings import Settings

State = Literal["ok", "warning", "failed", "skipped"]

QUICK_SECONDS = 3.0
UP = "start a stack with `scorehouse up`"
_MEANWHILE = "jobs wait meanwhile, except for workers that poll (`scorehouse worker --poll`)"


@dataclass(frozen=True)
class Check:
    """One line of the report; `advice` says what to do when it is not ok."""

    name: str
    state: State
    detail: str
    advice: str = ""


def database(settings: Settings) -> list[Check]:
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
                found += [_login(session), _workers(session), _production(session)]
        return found
    finally:
        engine.dispose()


def _schema(settings: Settings) -> Check:
    import migrations  # noqa: PLC0415  # Alembic

    try:
        schema = migrations.check(settings.resolved_database_url())
    except ScorehouseError as exc:
        return Check("schema", "failed", str(exc), UP)
    if not schema.fits:
        return Check(
            "schema",
            "failed",
            f"revision {schema.current}, this release needs {schema.wanted}",
            "run `scorehouse db upgrade`",
        )
    return Check("schema", "ok", schema.told if schema.ahead else f"revision {schema.current}")


def _login(session: Connection) -> Check:
    user, owner = session.exec_driver_sql(
        "SELECT session_user, (SELECT relowner::regrole::text FROM pg_class WHERE oid = 'job'::regclass)"
    ).one()
    if user == owner:
        advice = (
            "set SCOREHOUSE_DATABASE_URL to a user of its own, SCOREHOUSE_DATABASE_OWNER_URL to this one, and run "
            "`scorehouse db upgrade`, which makes it"
        )
        return Check("database user", "warning", f"{user} owns the tables", advice)
    return Check("database user", "ok", f"{user}, who owns nothing")


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


def broker(settings: Settings) -> Check:
    try:
        settings.resolved_broker_url()
    except LookupError as exc:
        if settings.database_url is not None:
            return Check(
                "broker", "warning", "none is set", "that is enough if all workers are `scorehouse worker --poll`"
            )
        return Check("broker", "failed", str(exc), UP)
    from permits import celery_app  # noqa: PLC0415  # Celery

    try:
        with celery_app().connection_for_read() as broker:
            broker.ensure_connection(max_retries=0, timeout=QUICK_SECONDS, reraise_as_library_errors=False)
            return Check("broker", "ok", _broker_name(broker))
    except Exception as exc:  # each transport has its own errors
        return Check("broker", "failed", _first_line(exc), UP + " or mend SCOREHOUSE_BROKER_URL; " + _MEANWHILE)


def _broker_name(broker: Any) -> str:
    """What a connection of kombu leads to, with its version."""
    if broker.transport.driver_type == "amqp":
        told = broker.connection.server_properties
        return f"{told.get('product')} {told.get('version')}"
    info = broker.default_channel.client.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return f"{name} {info.get('valkey_version') or info.get('redis_version')}"


def api(url: str | None) -> Iterator[Check]:
    from scorehouse_client import Client, ScorehouseClientError  # noqa: PLC0415  # urllib3

    try:
        address = connection.api_url(client_settings.read(), url)
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
        token = connection.token(client_settings.read())
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
