"""What a worker takes from a message: which task it names, and until when it is good. Never more."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from typing import Any
from uuid import uuid4

import pytest

from worker.broker import as_permit, is_expired
from worker.control import READING

ID = str(uuid4())


def message(body: Any = None, kind: str = "application/json", **headers: Any) -> dict[str, Any]:
    content = json.dumps([[], {}, {}] if body is None else body).encode()
    return {
        "body": base64.b64encode(content).decode(),
        "content-type": kind,
        "content-encoding": "utf-8",
        "headers": {"task": "score.bulk", "id": ID, "lang": "py", **headers},
        "properties": {
            "delivery_tag": "t",
            "delivery_info": {"exchange": "", "routing_key": "bulk"},
            "body_encoding": "base64",
        },
    }


PLAIN = as_permit(message())


@pytest.mark.parametrize(
    "sent",
    [
        message([["all", {"job": "x"}], {"lane": "x" * 10_000}, {}]),
        message([[], {}, {"callbacks": [{"task": "tick.sweep"}], "errbacks": [{"task": "os.system", "args": ["id"]}]}]),
        message([[], {}, {"chain": [{"task": "model.register"}], "chord": {"task": "tick.kick"}}]),
        message("not even a body"),
        message(eta="2999-01-01T00:00:00+00:00", retries=99, timelimit=[0.001, 0.001]),
        message(
            group=ID, chord=ID, shadow="<script>", argsrepr="\x1b[31m", stamped_headers=["x"], replaced_task_nesting=9
        ),
        message(root_id="other", parent_id=["?"], origin="nobody@nowhere", ignore_result=False),
    ],
)
def test_only_the_name_of_the_task_is_taken(sent: dict[str, Any]) -> None:
    assert as_permit(sent) == PLAIN


def test_a_permit_expires_when_it_says() -> None:
    moment = "2026-01-01T00:00:00+00:00"
    assert as_permit(message(expires=moment))["headers"]["expires"] == moment


@pytest.mark.parametrize(
    ("expires", "expired"),
    [
        ("2026-01-01T00:00:00+00:00", True),
        ("2026-01-01T00:00:00", True),
        ("2999-01-01T00:00:00+01:00", False),
        ("2999-01-01T00:00:00", False),
        (None, False),
    ],
)
def test_a_permit_whose_time_is_over_is_told(expires: str | None, expired: bool) -> None:
    assert is_expired(as_permit(message(expires=expires))) is expired


@pytest.mark.parametrize(
    "sent",
    [
        message(kind="application/x-python-serialize"),
        message(kind="application/x-yaml"),
        message(task=["score.bulk"]),
        message(id="../../etc/passwd"),
        message(id=7),
        message(expires="soon"),
        message(expires=[1]),
        {**message(), "headers": None},
        {**message(), "properties": []},
        {"body": "e30="},
        {},
    ],
)
def test_what_is_no_message_of_ours_is_dropped(sent: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        as_permit(sent)


def test_a_worker_can_be_looked_at_and_not_be_commanded() -> None:
    """In a process of its own, because the registry of commands is Celery's and global."""
    program = (
        "from worker import app; from celery.worker.control import Panel; "
        "import json; print(json.dumps(sorted(Panel.data)))"
    )
    environment = {"SCOREHOUSE_BROKER_URL": "redis://127.0.0.1:1/0", "PATH": ""}
    for read_only, commands in (("true", READING), ("false", {*READING, "shutdown", "pool_grow", "rate_limit"})):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**environment, "SCOREHOUSE_FLOWER_READ_ONLY": read_only},
            check=True,
            capture_output=True,
            text=True,
        )
        found = set(json.loads(done.stdout))
        assert commands <= found
        assert found == READING or read_only == "false"
