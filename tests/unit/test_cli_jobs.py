"""`scorehouse jobs …`, `models …`, `token create` and `doctor`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from command_line import ESCAPE, PATIENCE_SECONDS, CommandLine
from scripted_api import JOB_ID, JOB_PATH, Answer, ScriptedApi, job

ERRORS = [
    {"row": 2, "line": 3, "key": "k2", "code": "not_a_number", "column": "x", "message": "x is no number", "raw": raw}
    for raw in ("[red]boo[/red]", "\x1b]0;owned\x07", "[/]")
]
VERSION = {
    "model": "flights",
    "version": "1.2.0",
    "state": "registered",
    "digest": "sha256:ab",
    "format": "skops",
    "runtime": "sklearn",
    "size": 1234,
    "signature": {"columns": [{"name": "x", "type": "number", "min": 0.5}]},
    "metrics": {"accuracy": 0.91234567},
    "lineage": {},
    "created_at": "2025-01-31T10:00:00Z",
}
DEPLOYMENT = {"id": "d1", "model": "flights", "version": "1.2.0", "from": "1.1.0", "to": "1.2.0", "reasons": []}


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi().running() as running:
        running.on("GET", JOB_PATH, job("completed_with_errors", errored=3, metadata={"run": "[red]7"}))
        running.on("GET", "/v1/jobs", {"jobs": [job(), job("failed")], "next": None})
        running.on("GET", f"{JOB_PATH}/results", Answer(content=b'{"prediction":1}\n{"prediction":0}\n'))
        running.on("GET", f"{JOB_PATH}/errors", Answer(content="\n".join(map(json.dumps, ERRORS)).encode()))
        running.on("POST", f"{JOB_PATH}/cancel", job("canceled"))
        running.on("POST", f"{JOB_PATH}/retry", Answer(202, job("queued", parent=JOB_ID)))
        running.on("GET", "/v1/models", {"models": [{"name": "flights", "production": "1.2.0", "versions": 2}]})
        running.on("GET", "/v1/models/flights", {"name": "flights", "aliases": {}, "versions": [VERSION]})
        running.on("GET", "/v1/models/flights/versions/1.2.0", VERSION)
        running.on("GET", "/v1/models/flights/deployments", {"deployments": [{**DEPLOYMENT, "state": "live"}]})
        yield running


READING = [
    ("jobs", "list"),
    ("jobs", "show", JOB_ID),
    ("jobs", "watch", JOB_ID),
    ("jobs", "results", JOB_ID),
    ("jobs", "errors", JOB_ID),
    ("models", "list"),
    ("models", "show", "flights"),
    ("models", "show", "flights@1.2.0"),
    ("models", "history", "flights"),
    ("doctor",),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_json_is_all_that_is_on_standard_output(scorehouse: CommandLine, command: tuple[str, ...]) -> None:
    done = scorehouse(*command, "--json")
    assert done.json
    assert ESCAPE not in done.out
    assert done.code == (1 if command == ("doctor",) else 0)


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_for_people_there_are_no_colours_in_a_pipe(scorehouse: CommandLine, command: tuple[str, ...]) -> None:
    done = scorehouse(*command)
    assert ESCAPE not in done.out + done.err
    assert b"Traceback" not in done.err
    assert done.out or command[1] == "watch"


def test_json_holds_what_the_api_said(scorehouse: CommandLine) -> None:
    assert scorehouse("jobs", "list", "--json").json["jobs"][1]["state"] == "failed"
    assert scorehouse("jobs", "errors", JOB_ID, "--json").json == ERRORS
    assert scorehouse("jobs", "results", JOB_ID, "--json").json == [{"prediction": 1}, {"prediction": 0}]


def test_a_list_is_cut_at_its_limit_and_ids_are_not(scorehouse: CommandLine) -> None:
    lines = scorehouse("jobs", "list", "--limit", "1").out.decode().splitlines()
    assert len(lines) == 2
    assert JOB_ID in lines[1]


def test_cells_are_shown_as_they_are_and_never_run(scorehouse: CommandLine) -> None:
    shown = scorehouse("jobs", "errors", JOB_ID).out
    for text in (b"[red]boo[/red]", b"\\x1b]0;owned\\x07", b"[/]", b"not_a_number"):
        assert text in shown
    assert b"run=[red]7" in scorehouse("jobs", "show", JOB_ID).out


def test_errors_are_written_to_a_file_as_they_come(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    api.on("GET", f"{JOB_PATH}/errors", Answer(content=b"row,code\n2,x\n"))
    assert scorehouse("jobs", "errors", JOB_ID, "-o", "errors.csv").code == 0
    assert (tmp_path / "errors.csv").read_bytes() == b"row,code\n2,x\n"
    assert scorehouse("jobs", "errors", JOB_ID, "--format", "csv").out == b"row,code\n2,x\n"


def test_no_errors_are_an_empty_list(api: ScriptedApi, scorehouse: CommandLine) -> None:
    api.on("GET", f"{JOB_PATH}/errors", Answer(content=b""))
    assert scorehouse("jobs", "errors", JOB_ID, "--json").json == []


def test_watching_a_job_that_fails_exits_1(api: ScriptedApi, scorehouse: CommandLine) -> None:
    api.on("GET", JOB_PATH, job("running"), job("failed", error="boom"))
    done = scorehouse("jobs", "watch", JOB_ID)
    assert done.code == 1
    assert b"failed: boom" in done.err


def test_submit_prints_the_id_and_nothing_else(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    (tmp_path / "in.csv").write_bytes(b"x\n1\n")
    done = scorehouse("jobs", "submit", "in.csv", "-m", "flights", "--metadata", "run=7", "--priority", "low")
    assert (done.code, done.out) == (0, f"{JOB_ID}\n".encode())
    expected = {"model": "flights", "metadata": '{"run": "7"}', "priority": "low"}
    assert api.received[0].query == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--json", '{"x": 1}', "-m", "flights", "--key", "k"], {"inputs": {"x": 1}, "key": "k"}),
        (["--json", '[{"x": 1}]', "-m", "flights", "--key", "x"], {"inputs": [{"x": 1}], "key_column": "x"}),
        (["--json", '{"model": "flights", "inputs": {"x": 1}}'], {"inputs": {"x": 1}}),
    ],
)
def test_records_are_submitted_as_json(
    api: ScriptedApi, scorehouse: CommandLine, arguments: list[str], expected: dict[str, object]
) -> None:
    api.on("POST", "/v1/jobs", job(result={"prediction": 1}))
    done = scorehouse("jobs", "submit", *arguments, "--wait", "5")
    assert api.received[0].json() == {"model": "flights", **expected}
    assert done.json["result"] == {"prediction": 1}


@pytest.mark.parametrize("arguments", [[], ["in.csv", "--json", "{}"], ["--json", "{x}", "-m", "a"], ["--json", "{}"]])
def test_a_submission_that_cannot_be_meant_is_wrong_usage(
    api: ScriptedApi, scorehouse: CommandLine, arguments: list[str]
) -> None:
    assert scorehouse("jobs", "submit", *arguments).code == 2
    assert api.received == []


def test_cancel_and_retry(scorehouse: CommandLine) -> None:
    assert b"is canceled" in scorehouse("jobs", "cancel", JOB_ID).err
    assert scorehouse("jobs", "retry", JOB_ID).out == f"{JOB_ID}\n".encode()


def test_another_tenants_job_is_not_found(scorehouse: CommandLine) -> None:
    done = scorehouse("jobs", "show", "other")
    assert done.code == 1
    assert b"Not Found (404)" in done.err


def test_a_version_is_registered_and_deployed(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "m.skops").write_bytes(b"artefact")
    (tmp_path / "ref.csv").write_bytes(b"x\n1\n")
    api.on("POST", "/v1/models/flights/versions", Answer(202, {**VERSION, "state": "registering"}))
    arguments = ["m.skops", "--name", "flights", "--version", "1.2.0", "--reference", "ref.csv", "--target", "late"]
    done = scorehouse("models", "register", *arguments)
    assert done.code == 0
    assert b"scorehouse models deploy flights 1.2.0" in done.err

    api.on("POST", "/v1/models/flights/deployments", Answer(202, {**DEPLOYMENT, "state": "warming"}))
    api.on("GET", "/v1/models/flights/deployments/d1", {**DEPLOYMENT, "state": "live"})
    done = scorehouse("models", "deploy", "flights", "1.2.0", "--why", "better")
    assert done.code == 0
    assert done.err.splitlines() == [b"flights 1.2.0 is warming", b"flights 1.2.0 is live"]

    failed = {**DEPLOYMENT, "state": "failed", "reasons": ["golden row 3 differs"]}
    api.on("POST", "/v1/models/flights/rollback", Answer(202, failed))
    done = scorehouse("models", "rollback", "flights")
    assert done.code == 1
    assert b"golden row 3 differs" in done.err


def test_a_deployment_tells_each_step_once_and_what_the_replay_found(api: ScriptedApi, scorehouse: CommandLine) -> None:
    def standing(state: str, **checks: Any) -> dict[str, Any]:
        return {**DEPLOYMENT, "state": state, "slot": "green", "checks": checks}

    warm, half = {"workers": 3, "warm": 2}, {"rows": 4000, "wanted": 10000}
    figures = {"compared": 9000, "against": "1.1.0", "flipped": 0.012, "psi": 0.0314, "slowdown": 1.5, "not_taken": 0}
    path = "/v1/models/flights/deployments"
    api.on("POST", path, Answer(202, standing("warming")))
    api.on(
        "GET",
        f"{path}/d1",
        standing("warming", warm_up=warm),
        standing("warming", warm_up=warm),
        standing("validating", warm_up=warm, validation={"rows": 50}),
        standing("validating", warm_up=warm, validation={"rows": 50}, replay=half),
        standing("live", warm_up=warm, validation={"rows": 50}, replay={**half, "rows": 9000, **figures}),
    )
    done = scorehouse("models", "deploy", "flights", "1.2.0", "--replay", "10000", "--max-psi", "0.3")
    assert done.code == 0
    assert done.err.decode().splitlines() == [
        "flights 1.2.0 is warming",
        "flights 1.2.0 is warming: 2 of 3 workers hold it",
        "flights 1.2.0 is validating: 50 golden rows go through the queue",
        "flights 1.2.0 is validating: 4,000 of 10,000 rows replayed",
        "flights 1.2.0 is live in the green slot",
        "9,000 rows of the 10,000 wanted replayed against 1.1.0: 1.20% flipped, PSI 0.031, 1.50 times as long",
    ]
    sent = next(each for each in api.received if each.method == "POST")
    assert sent.json() == {"version": "1.2.0", "gate": {"replay_rows": 10000, "max_psi": 0.3}}
    wrong = scorehouse("models", "deploy", "flights", "1.2.0", "--max-psi", "0.3")
    assert (wrong.code, b"--replay 10000" in wrong.err) == (2, True)


def test_a_deployment_that_fails_is_json_all_the_same(api: ScriptedApi, scorehouse: CommandLine) -> None:
    failed = {**DEPLOYMENT, "state": "failed", "reasons": ["worker w refuses: golden row 3 differs"]}
    api.on("POST", "/v1/models/flights/deployments", Answer(202, failed))
    done = scorehouse("models", "deploy", "flights", "1.2.0", "--json")
    assert (done.code, done.json["reasons"]) == (1, failed["reasons"])
    assert b"1.1.0 stays live" in done.err


def test_the_deployment_that_is_under_way_is_canceled(api: ScriptedApi, scorehouse: CommandLine) -> None:
    done = scorehouse("models", "cancel", "flights")
    assert (done.code, b"No deployment of flights is under way" in done.err) == (1, True)
    api.on("GET", "/v1/models/flights/deployments", {"deployments": [{**DEPLOYMENT, "state": "warming"}]})
    api.on("POST", "/v1/models/flights/deployments/d1/cancel", {**DEPLOYMENT, "state": "failed"})
    done = scorehouse("models", "cancel", "flights")
    assert (done.code, b"1.2.0 is canceled" in done.err) == (0, True)


def test_a_model_is_shown_with_what_a_newcomer_looks_for(scorehouse: CommandLine) -> None:
    shown = scorehouse("models", "show", "flights@1.2.0").out
    for text in (b"flights 1.2.0", b"sha256:ab", b"accuracy 0.9123", b"number", b"min 0.5"):
        assert text in shown


def test_a_token_is_all_that_token_create_prints(scorehouse: CommandLine, tmp_path: Path) -> None:
    arguments = ["--tenant", "acme", "--scope", "jobs:read,jobs:write", "--ttl", "2h"]
    missing = scorehouse("token", "create", *arguments)
    assert missing.code == 1
    assert b"no signing key" in missing.err
    (tmp_path / "key").write_text("k" * 64)
    scorehouse.variables["SCOREHOUSE_JWT_KEY_FILE"] = str(tmp_path / "key")
    done = scorehouse("token", "create", *arguments)
    claims = jwt.decode(done.out.decode().strip(), options={"verify_signature": False})
    assert (claims["tenant"], claims["sub"], claims["scope"]) == ("acme", "acme", "jobs:read jobs:write")
    assert claims["exp"] - claims["iat"] == 7200
    assert scorehouse("token", "create", "--tenant", "acme", "--scope", "jobs:read", "--ttl", "soon").code == 2
    unknown = scorehouse("token", "create", "--tenant", "acme", "--scope", "everything")
    assert unknown.code == 1
    assert b"everything" in unknown.err


def test_doctor_works_when_nothing_runs_and_says_what_to_do(scorehouse: CommandLine) -> None:
    scorehouse.variables.clear()
    done = scorehouse("doctor", "--json")
    states = {check["name"]: check["state"] for check in done.json["checks"]}
    assert done.code == 1
    assert not done.json["ok"]
    assert states["python"] == states["packages"] == states["disk"] == "ok"
    assert states["database"] == states["broker"] == states["api"] == "failed"
    assert all("scorehouse up" in check["advice"] for check in done.json["checks"] if check["state"] == "failed")


def test_doctor_asks_no_more_than_the_api_where_only_that_is_known(api: ScriptedApi, scorehouse: CommandLine) -> None:
    api.on("GET", "/health", {"status": "ok", "workers": 3})
    done = scorehouse("doctor")
    assert done.code == 0
    assert f"{api.url} says ok (workers: 3)".encode() in done.out


def test_wrong_settings_are_named(scorehouse: CommandLine) -> None:
    scorehouse.variables["SCOREHOUSE_API_PORT"] = "eighty"
    assert scorehouse("jobs", "list").code == 0, "it is of no concern to who asks an API that runs"
    done = scorehouse("token", "keys")
    assert done.code == 1
    assert b"SCOREHOUSE_API_PORT: " in done.err


def test_help_comes_at_once(scorehouse: CommandLine) -> None:
    """What is slow to import is imported by the commands that need it."""
    out, imported = imports_of(scorehouse, "--help")
    for name in (b"score", b"jobs", b"models", b"doctor", b"token", b"up", b"demo"):
        assert name in out
    assert b"typer" in imported
    assert not imported & {b"sqlalchemy", b"celery", b"pandas", b"numpy", b"sklearn", b"flask", b"alembic"}


def test_a_command_that_asks_the_api_is_light(scorehouse: CommandLine) -> None:
    """`models rollback` is typed in a hurry."""
    _, imported = imports_of(scorehouse, "models", "list")
    assert b"scorehouse_client" in imported
    assert not imported & {b"sqlalchemy", b"celery", b"numpy", b"flask", b"pydantic_settings"}


def imports_of(scorehouse: CommandLine, *arguments: str) -> tuple[bytes, set[bytes]]:
    """What a command prints, and the packages that it imports."""
    process = scorehouse.start(*arguments, interpreter=("-X", "importtime"))
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    return out, {line.rsplit(b"|", 1)[-1].strip().split(b".")[0] for line in err.splitlines()}
