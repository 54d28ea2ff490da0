"""The running stack as tests see it: raw HTTP, a client, the database behind it, and the workers to be paused."""

from __future__ import annotations

import csv
import io
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import psutil
import sqlalchemy as sa
import urllib3
from sqlalchemy import Engine
from toys import VERSION, Toy

from api.tokens import create_token
from cli.background import BackgroundStack
from db.engine import create_engine
from scorehouse_client import Client, Job
from settings import Settings

WAIT_SECONDS = 60.0


@dataclass(frozen=True)
class Answer:
    """What the API answered, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def pointers(self) -> list[str]:
        return [error["pointer"] for error in self.json.get("errors", [])]

    @property
    def told(self) -> str:
        """All sentences of a problem."""
        content = self.json
        return "\n".join([content["detail"], *(error["detail"] for error in content.get("errors", []))])


@dataclass
class House:
    """One stack for the whole session."""

    stack: BackgroundStack
    client: Client
    engine: Engine
    _pool: urllib3.PoolManager = field(default_factory=lambda: urllib3.PoolManager(maxsize=16, retries=False))

    @classmethod
    def of(cls, stack: BackgroundStack) -> House:
        token = (stack.data_dir / "admin.token").read_text().strip()
        engine = create_engine(str(stack.found["database_url"]), name="acceptance", pool_size=2)
        return cls(stack, Client(str(stack.found["api_url"]), token, retry_for=0), engine)

    @property
    def url(self) -> str:
        return str(self.stack.found["api_url"])

    @property
    def settings(self) -> Settings:
        return Settings(data_dir=self.stack.data_dir)

    def token(self, tenant: str = "default", *scopes: str) -> str:
        scopes = scopes or ("admin",)
        return create_token(self.settings, subject="tests", tenant=tenant, scopes=scopes, ttl=timedelta(minutes=10))

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        tenant: str = "default",
        query: Mapping[str, Any] | None = None,
    ) -> Answer:
        """One request; a dict or list is sent as JSON, an iterator chunked."""
        sent = {"Authorization": f"Bearer {self.token(tenant)}", **(headers or {})}
        if isinstance(body, dict | list):
            body = json.dumps(body).encode()
            sent.setdefault("Content-Type", "application/json")
        url = self.url + path + (f"?{urlencode(query)}" if query else "")
        answer = self._pool.request(method, url, body=body, headers=sent, timeout=60.0)
        return Answer(answer.status, {name.title(): value for name, value in answer.headers.items()}, answer.data)

    def submit(self, **request: Any) -> Answer:
        """POST /v1/jobs with a JSON body."""
        return self.call("POST", "/v1/jobs", request)

    def upload(
        self, body: Any, kind: str = "text/csv", headers: Mapping[str, str] | None = None, **query: Any
    ) -> Answer:
        """POST /v1/jobs with a raw body, of the model `toy` unless another is named."""
        sent = {"Content-Type": kind, **(headers or {})}
        return self.call("POST", "/v1/jobs", body, sent, query={"model": "toy", **query})

    def finished(self, answer: Answer) -> Job:
        """The job of a 202, when it has ended."""
        assert answer.status in {200, 202}, answer.body
        return self.client.wait(answer.json["id"], timeout=WAIT_SECONDS)

    def rows(self, job_id: str, **query: Any) -> list[dict[str, str]]:
        """The results as CSV, by column."""
        delimiter = query.pop("delimiter", ",")
        text = self.text(job_id, **query)
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))

    def text(self, job_id: str, what: str = "results", **query: Any) -> str:
        answer = self.call("GET", f"/v1/jobs/{job_id}/{what}", query=query)
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def errors(self, job_id: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text(job_id, "errors", format="ndjson").splitlines()]

    @contextmanager
    def raw_connection(self) -> Iterator[socket.socket]:
        """A socket to the API, for requests that no HTTP library would send."""
        parts = urlsplit(self.url)
        with socket.create_connection((parts.hostname or "", parts.port or 80), timeout=30) as connection:
            yield connection

    @contextmanager
    def upload_in_progress(self, **headers: str) -> Iterator[socket.socket]:
        """An upload of `toy` whose header row has been sent, and whose end the API still waits for."""
        lines = {"Authorization": f"Bearer {self.token()}", "Content-Type": "text/csv", "Content-Length": "1000000"}
        head = "".join(f"{name}: {value}\r\n" for name, value in {"Host": "scorehouse", **lines, **headers}.items())
        with self.raw_connection() as connection:
            connection.sendall(f"POST /v1/jobs?model=toy HTTP/1.1\r\n{head}\r\n".encode())
            connection.sendall(b"id,amount,visits,segment,active,note\n" + b"held,1.5,3,gold,true,fine\n" * 15_000)
            yield connection

    def until(self, condition: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        """What `condition` returns as soon as that is true."""
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it did not come true in time"
            time.sleep(0.05)
        return found

    def query(self, statement: str, **parameters: Any) -> list[Any]:
        with self.engine.begin() as connection:
            result = connection.execute(sa.text(statement), parameters)
            return list(result.all()) if result.returns_rows else []

    def upload_held(self, body: bytes, *held: int, **query: Any) -> str:
        """Upload a file and keep the workers from these of its chunks (from all, if none is named); the job's id."""
        with self.paused_workers():
            job_id = str(self.upload(body, **query).json["id"])
            chunks = self.query("SELECT number FROM chunk WHERE job_id = :job", job=job_id)
            self.query(
                "UPDATE chunk SET not_before = now() + interval '1 hour' WHERE job_id = :job AND number = ANY (:held)",
                job=job_id,
                held=list(held) or [row.number for row in chunks],
            )
        return job_id

    def let_go(self, job_id: str) -> None:
        self.query("UPDATE chunk SET not_before = now() WHERE job_id = :job", job=job_id)

    @contextmanager
    def paused_workers(self) -> Iterator[None]:
        """Every worker child is stopped in its tracks until the block ends."""
        parents = [pid for name, pid in self.stack.found["pids"].items() if name.startswith("worker-")]
        children = [child for pid in parents for child in psutil.Process(int(pid)).children()]
        try:
            for child in children:
                child.send_signal(signal.SIGSTOP)
            yield
        finally:
            for child in children:
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGCONT)


def register(house: House, toy: Toy, version: str = VERSION, artefact: Path | None = None) -> None:
    """Have a toy as it is, or another artefact, as a version of the toy's model."""
    house.client.register_version(
        toy.name, version, artefact or toy.artefact, toy.reference, key=toy.key, target=toy.target, trust=True
    )


def multipart(*parts: tuple[str, str | None, bytes], boundary: str = "b0undary") -> tuple[bytes, dict[str, str]]:
    """A form of (name, file name or None, content) in this very order, and its headers."""
    body = b""
    for name, filename, content in parts:
        named = f'; filename="{filename}"' if filename is not None else ""
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    body += f"--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
