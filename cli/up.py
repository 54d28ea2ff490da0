"""The whole stack in one terminal: `scorehouse up`."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from cli import command_lines, database
from embedded import EmbeddedError
from embedded.console import Console
from embedded.postgres import Postgres
from embedded.program import Program
from embedded.secrets import Secrets, ensure_data_dir, ensure_secrets
from embedded.stack import Stack
from embedded.supervisor import StopRequested, Supervisor
from embedded.valkey import Valkey
from settings import Settings

LIVE_SECONDS = 90.0

# Stages of the drain: no new permits, no new work, what is in hand, the onlooker, and the servers that all of them need.
BEAT, API, WORKERS, FLOWER, BROKER, DATABASE = range(6)
WORKER_STOP_SECONDS = 30.0
TRAINING_STOP_SECONDS = 10.0  # a fit may take an hour; what is killed in it begins again at the next start
API_STOP_SECONDS = 35.0  # gunicorn gives requests 30 s


@dataclass(frozen=True)
class Plan:
    """What to start, all decided: the settings hold absolute paths and ports that were free a moment ago."""

    settings: Settings
    workers: int
    with_flower: bool

    @property
    def api_url(self) -> str:
        return f"http://{_reachable(self.settings.api_host)}:{self.settings.api_port}"

    @property
    def flower_url(self) -> str | None:
        return f"http://127.0.0.1:{self.settings.flower_port}" if self.with_flower else None


def run_stack(settings: Settings, *, workers: int, with_flower: bool) -> None:
    """Start everything and keep it running until a stop signal, then drain.

    Args:
        settings: port 0 means a free one; the data folder may be relative and is made when missing.
        workers: children of the bulk worker.

    Raises:
        EmbeddedError: a stack runs there already, a port is taken, or a process does not stay up.
    """
    settings = _with_absolute_paths(settings)
    if sys.stdout.isatty() and "log_format" not in settings.model_fields_set:
        settings = settings.model_copy(update={"log_format": "console"})  # a person reads it
    ensure_data_dir(settings.data_dir)
    console = Console()
    stack = Stack(settings)
    stack.take()
    try:
        stack.end_leftovers(console.say)
        plan = Plan(_with_ports(settings, with_flower), workers, with_flower)
        with Supervisor(console) as supervisor:
            running = _start(plan, stack, supervisor, console)
            supervisor.run(on_restart=lambda: stack.write_down({**running, "pids": supervisor.pids}))
    except StopRequested:
        pass
    finally:
        stack.release()
    console.say("all stopped")


def _start(plan: Plan, stack: Stack, supervisor: Supervisor, console: Console) -> dict[str, Any]:
    """Start everything, and return what stack.json says of it."""
    secrets = ensure_secrets(plan.settings.data_dir)
    plan = replace(plan, settings=_with_servers(plan.settings, supervisor, console))
    _prepare(plan.settings)
    _start_programs(plan, stack.mark, secrets, supervisor, console)
    supervisor.wait_until(lambda: _is_live(plan.settings), LIVE_SECONDS, "the API did not answer /health/live")
    running = {
        "database_url": plan.settings.database_url,
        "database_owner_url": plan.settings.database_owner_url,
        "broker_url": plan.settings.broker_url,
        "api_url": plan.api_url,
        "flower_url": plan.flower_url,
        "pid": os.getpid(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "pids": supervisor.pids,
    }
    stack.write_down(running)
    console.say(_welcome(plan, secrets))
    return running


def _with_servers(settings: Settings, supervisor: Supervisor, console: Console) -> Settings:
    """The settings with URLs of the database and the broker, embedded ones where none are set."""
    urls: dict[str, str] = {}
    if settings.database_url is None:
        console.say("starting Postgres")
        postgres = Postgres(settings.data_dir / "postgres")
        supervisor.start(postgres, DATABASE)
        urls["database_url"], urls["database_owner_url"] = postgres.app_url, postgres.url
    if settings.broker_url is None:
        console.say("starting Valkey")
        valkey = Valkey(settings.data_dir / "valkey")
        supervisor.start(valkey, BROKER)
        urls["broker_url"] = valkey.url
    return settings.model_copy(update=urls)


def _prepare(settings: Settings) -> None:
    """The schema and the admin's token, before anything needs them."""
    # Imported here: they bring Alembic and the API along, which the other commands do without.
    from api.issuing import ensure_admin_token  # noqa: PLC0415
    from migrations import upgrade  # noqa: PLC0415

    upgrade(settings.resolved_database_owner_url(), login=settings.resolved_database_url())
    with database.connected(settings) as connection:
        ensure_admin_token(connection, settings, by=database.user())


def _start_programs(
    plan: Plan, mark: Mapping[str, str], secrets: Secrets, supervisor: Supervisor, console: Console
) -> None:
    settings = plan.settings
    common = {**command_lines.settings_environment(settings), **mark}

    def start(name: str, argv: list[str], stage: int, env: Mapping[str, str], stop_seconds: float = 10.0) -> None:
        # From the data folder: a folder `api` or `worker` where the user stands would hide our own.
        program = Program(name, argv, {**common, **env}, console, cwd=settings.data_dir, stop_seconds=stop_seconds)
        supervisor.start(program, stage)

    console.say("starting the API, the workers and beat")
    start("api", command_lines.api(), API, {}, API_STOP_SECONDS)
    for lane, concurrency in (("interactive", 1), ("bulk", plan.workers), ("training", 1)):
        name = f"worker-{lane}"
        argv = command_lines.worker([lane], concurrency, name)
        stop_seconds = TRAINING_STOP_SECONDS if lane == command_lines.TRAINING else WORKER_STOP_SECONDS
        start(name, argv, WORKERS, command_lines.worker_environment([lane]), stop_seconds)
    start("beat", command_lines.beat(settings.data_dir / "beat-schedule"), BEAT, {})
    if plan.with_flower:
        env = command_lines.flower_environment(secrets.flower_password())
        start("flower", command_lines.flower(settings.flower_host, settings.flower_port), FLOWER, env)


def _with_absolute_paths(settings: Settings) -> Settings:
    """Paths that mean the same to the children, which work in the data folder."""
    paths: dict[str, Path | str] = {"data_dir": settings.data_dir.absolute()}
    for name in ("jwt_key_file", "jwks_file"):
        if (file := getattr(settings, name)) is not None:
            paths[name] = file.absolute()
    if settings.artefact_url is not None and "://" not in settings.artefact_url:
        paths["artefact_url"] = Path(settings.artefact_url).absolute().as_uri()
    return settings.model_copy(update=paths)


def _with_ports(settings: Settings, with_flower: bool) -> Settings:
    ports = {"api_port": _free_port(settings.api_host, settings.api_port, "--port")}
    if with_flower:
        ports["flower_port"] = _free_port("127.0.0.1", settings.flower_port, "--flower-port")
    return settings.model_copy(update=ports)


def _free_port(host: str, port: int, flag: str) -> int:
    """The port itself when it can be listened on, and for 0 one that can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: closed connections may linger
        try:
            probe.bind((host, port))
            probe.listen()
        except OSError as error:
            raise EmbeddedError(
                f"cannot listen on port {port} of {host} ({error.strerror}): choose another with {flag}, or {flag} 0 "
                "for any free one"
            ) from error
        number: int = probe.getsockname()[1]
    return number


def _is_live(settings: Settings) -> bool:
    connection = HTTPConnection(_reachable(settings.api_host).strip("[]"), settings.api_port, timeout=2)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """A host to connect to for an address to listen on, as it stands in a URL."""
    if host in ("", "0.0.0.0"):  # noqa: S104 - compared with, not bound to
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _welcome(plan: Plan, secrets: Secrets) -> str:
    data_dir = plan.settings.data_dir
    rows = [("API", f"{plan.api_url}   (its documentation: {plan.api_url}/docs)")]
    if plan.flower_url:
        rows.append(("Flower", f"{plan.flower_url}   (user admin, password in {secrets.flower_password_file})"))
    rows += [("Data", str(data_dir)), ("Token", f"{data_dir / 'admin.token'}   (the command line finds it)")]
    lines = ["", "Scorehouse is up.", *(f"  {name:8}{place}" for name, place in rows), ""]
    lines += ["Next, in another terminal:"]
    if data_dir != Path(".scorehouse").absolute():
        lines.append(f"  export SCOREHOUSE_DATA_DIR={data_dir}")
    lines += [
        "  scorehouse models register MODEL.joblib --name NAME --version 1.0.0 --reference SAMPLE.csv --trust",
        "  scorehouse models deploy NAME 1.0.0",
        "  scorehouse score FILE.csv --model NAME -o SCORED.csv",
        "Ctrl-C here drains and stops it all; a second one hurries.",
    ]
    return "\n".join(lines)
