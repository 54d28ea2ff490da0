"""Two stacks on one database and one broker, each an API and workers of its own, and a real nginx before them.

The schema is that of a release to come: what is shown here holds for an old stack on a schema that was migrated for the
new one.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import yaml
from debian_programs import find
from toys import VERSION, Toy

from api.tokens import create_token
from cli.background import SCOREHOUSE, free_port
from db.engine import create_engine
from embedded.console import Console
from embedded.postgres import Postgres
from embedded.program import Program
from embedded.secrets import ensure_data_dir, ensure_secrets
from embedded.valkey import Valkey
from migrations import upgrade
from scorehouse_client import Client
from settings import Settings

TEMPLATE = Path(__file__).parents[2] / "deployment" / "nginx" / "scorehouse.conf"
WAIT_SECONDS = 120.0
LANES = ("interactive", "bulk")
# What a later release's migration might add, and a revision that this release does not know.
LATER = (
    "ALTER TABLE job ADD COLUMN later text",
    "ALTER TABLE chunk ADD COLUMN later integer NOT NULL DEFAULT 0",
    "ALTER TABLE prediction_block ADD COLUMN later text",
    "ALTER TABLE worker_heartbeat ADD COLUMN later jsonb",
    "CREATE TABLE later (id integer PRIMARY KEY)",
    "UPDATE alembic_version SET version_num = 'later'",
)


class TwoStacks:
    """Use it as a context manager, in the main thread; blue answers at the start."""

    def __init__(self, folder: Path, toy: Toy) -> None:
        self.folder = folder
        self.toy = toy
        self.nginx = find("nginx", "nginx-light")
        self.ports = {"blue": free_port(0), "green": free_port(0), "front": free_port(0)}
        self.front = f"http://127.0.0.1:{self.ports['front']}"
        self.include = folder / "nginx" / "scorehouse" / "upstream.conf"
        self.history = self.include.with_name("history.jsonl")
        self.programs: dict[str, Program] = {}
        self.postgres = Postgres(folder / "postgres", durable=False)
        self.valkey = Valkey(folder / "valkey")
        self.settings = Settings(data_dir=folder / "data")
        self._stopping = ExitStack()
        self._numbers = itertools.count()

    def __enter__(self) -> TwoStacks:
        with self._stopping:
            self.postgres.start()
            self._stopping.callback(self.postgres.discard)
            self.valkey.start()
            self._stopping.callback(self.valkey.stop)
            upgrade(self.postgres.url, login=self.postgres.app_url)
            self.engine = create_engine(self.postgres.url, name="acceptance", role=None, pool_size=2)
            self._stopping.callback(self.engine.dispose)
            for statement in LATER:
                self.query(statement)
            ensure_data_dir(self.settings.data_dir)
            ensure_secrets(self.settings.data_dir)
            self._log = self._stopping.enter_context((self.folder / "processes.log").open("a"))
            self._stopping.callback(self._stop_all)
            for name in ("blue", "green"):
                self.start_api(name)
                self.start_workers(name)
            self._start("beat", ["beat"], "blue")
            self._start_nginx()
            self._deploy_toy()
            self._stopping = self._stopping.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.close()

    def start_api(self, stack: str) -> None:
        self._start(f"api-{stack}", ["api"], stack)

    def start_workers(self, stack: str) -> None:
        for lane in LANES:
            self._start(f"worker-{lane}-{stack}", ["worker", "--lane", lane], stack)

    def stop_workers(self, stack: str) -> None:
        for lane in LANES:
            self.stop(f"worker-{lane}-{stack}")

    def _start(self, name: str, arguments: list[str], stack: str) -> None:
        environment = {
            **os.environ,
            "SCOREHOUSE_DATA_DIR": str(self.settings.data_dir),
            "SCOREHOUSE_DATABASE_URL": self.postgres.app_url,
            "SCOREHOUSE_BROKER_URL": self.valkey.url,
            "SCOREHOUSE_STACK_NAME": stack,
            "SCOREHOUSE_API_PORT": str(self.ports[stack]),
            "SCOREHOUSE_API_WORKERS": "1",
            "SCOREHOUSE_WORKER_CONCURRENCY": "1",
        }
        self._run(name, [str(SCOREHOUSE), *arguments], environment)

    def stop(self, name: str) -> None:
        """SIGTERM, and wait until it has ended by itself."""
        program = self.programs.pop(name)
        program.send(signal.SIGTERM)
        try:
            self.until(lambda: program.poll() is not None)
        finally:
            program.stop()

    def configure(self, **changes: Any) -> Path:
        """A stacks file of its own."""
        content = {
            "stacks": {name: f"http://127.0.0.1:{self.ports[name]}" for name in ("blue", "green")},
            "front": self.front,
            "include": str(self.include),
            "nginx": f"{self.nginx} -e {self.folder}/nginx/error.log -c {self.folder}/nginx/nginx.conf",
            "pid_file": str(self.folder / "nginx" / "pid"),
            "ready_seconds": 30,
            **changes,
        }
        file = self.folder / f"stacks-{next(self._numbers)}.yml"
        file.write_text(yaml.safe_dump(content))
        return file

    def begin(self, *arguments: str, file: Path | None = None) -> subprocess.Popen[str]:
        """`scorehouse stacks …` as a process."""
        environment = {
            **os.environ,
            "SCOREHOUSE_DATA_DIR": str(self.settings.data_dir),
            "SCOREHOUSE_STACKS_FILE": str(file or self.configure()),
            "SCOREHOUSE_TOKEN": self.token(),
        }
        return subprocess.Popen(
            [str(SCOREHOUSE), "stacks", *arguments],
            env=environment,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def stacks(self, *arguments: str, file: Path | None = None) -> tuple[int, Any, str]:
        """The exit code of `scorehouse stacks … --json`, its JSON, and what it told."""
        process = self.begin(*arguments, "--json", file=file)
        out, err = process.communicate(timeout=WAIT_SECONDS * 2)
        return process.returncode, json.loads(out) if out else None, err

    def token(self) -> str:
        return create_token(
            self.settings, subject="tests", tenant="default", scopes=("admin",), ttl=timedelta(minutes=30)
        )

    def client(self, at: str = "front") -> Client:
        return Client(f"http://127.0.0.1:{self.ports[at]}", self.token(), retry_for=0)

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result.all()) if result.returns_rows else []

    def until(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """What `condition` returns as soon as that is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not come true in time; see {self.folder}/processes.log"
            time.sleep(0.05)
        return found

    def _run(self, name: str, argv: list[str], environment: Mapping[str, str]) -> None:
        program = Program(name, argv, environment, Console(self._log), cwd=self.folder)
        program.start()
        self.programs[name] = program

    def _stop_all(self) -> None:
        for name in reversed(list(self.programs)):
            self.stop(name)

    def _start_nginx(self) -> None:
        """With the configuration that is in the repository, as whoever runs the tests, within a folder."""
        folder = self.include.parents[1]
        self.include.parent.mkdir(parents=True)
        self.include.write_text(f"server 127.0.0.1:{self.ports['blue']};\n")
        text = TEMPLATE.read_text()
        assert text.count("listen 127.0.0.1:8080;") == 1
        ours = text.replace("listen 127.0.0.1:8080;", f"listen 127.0.0.1:{self.ports['front']};")
        (folder / "scorehouse.conf").write_text(ours)
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        paths = "".join(f"    {kind}_temp_path {folder}/{kind};\n" for kind in kinds)
        user = "user root;\n" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(
            f"{user}daemon off;\npid {folder}/pid;\nerror_log {folder}/error.log;\nworker_processes 2;\n"
            "events { worker_connections 512; }\n"
            f"http {{\n    access_log off;\n{paths}    include scorehouse.conf;\n}}\n"
        )
        argv = [self.nginx, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf"]
        self._run("nginx", argv, os.environ)
        self.until(self._nginx_listens)

    def _nginx_listens(self) -> bool:
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.ports["front"])) == 0

    def _deploy_toy(self) -> None:
        """The model that all requests are of, through nginx as everything else."""
        with Client(self.front, self.token(), retry_for=WAIT_SECONDS) as client:
            toy = self.toy
            client.register_version(
                toy.name, VERSION, toy.artefact, toy.reference, key=toy.key, target=toy.target, trust=True
            )
            client.deploy(toy.name, VERSION)
