"""`scorehouse healthcheck ROLE`: whether the process of this container does its work, for container engines."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cli.connection import load_settings
from cli.terminal import say
from errors import ScorehouseError

if TYPE_CHECKING:
    from settings import Settings

SECONDS = 5.0
# Beat writes its schedule to the disk every three minutes.
BEAT_SECONDS = 600.0


class Role(StrEnum):
    api = "api"
    worker = "worker"
    beat = "beat"
    flower = "flower"


def register(app: typer.Typer) -> None:
    app.command()(healthcheck)


def healthcheck(role: Annotated[Role, typer.Argument(help="What runs here.", show_default=False)]) -> None:
    """Exit 0 when the process of this role, on this host, does its work; else say what is wrong and exit 1."""
    settings = load_settings()
    wrong = {Role.api: _api, Role.worker: _worker, Role.beat: _beat, Role.flower: _flower}[role](settings)
    if wrong:
        say(wrong)
        raise typer.Exit(1)


def _api(settings: Settings) -> str | None:
    return _answer(f"http://127.0.0.1:{settings.api_port}/health/ready")


def _flower(settings: Settings) -> str | None:
    return _answer(f"http://127.0.0.1:{settings.flower_port}/healthcheck")


def _worker(settings: Settings) -> str | None:
    """A child writes its heartbeat only while it has the database, and is ended when it is deaf."""
    from db import workers  # noqa: PLC0415 - of no use to the others
    from db.engine import create_engine, transaction  # noqa: PLC0415
    from worker.host import place  # noqa: PLC0415

    engine = create_engine(settings.resolved_database_url(), name="healthcheck", pool_size=1)
    try:
        with transaction(engine) as connection:
            alive = [row.owner for row in workers.live(connection) if row.owner.startswith(f"{place()}:")]
    except ScorehouseError as exc:
        return f"the database does not answer: {exc}"
    finally:
        engine.dispose()
    return None if alive else f"no worker child of {place()} has a heartbeat"


def _beat(settings: Settings) -> str | None:
    times = [file.stat().st_mtime for file in settings.data_dir.glob("beat-schedule*")]
    if not times:
        return f"beat has no schedule in {settings.data_dir}"
    age = time.time() - max(times)
    return None if age < BEAT_SECONDS else f"beat has not written its schedule for {age:.0f} s"


def _answer(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=SECONDS):  # noqa: S310 - loopback, by http
            return None
    except urllib.error.HTTPError as exc:
        with exc:
            return f"{url} answers {exc.code}"
    except OSError as exc:
        return f"{url} does not answer: {exc}"
