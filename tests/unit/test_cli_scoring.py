"""`scorehouse score`: exit codes, what goes to which stream, and what a person is told."""

from __future__ import annotations

import json
import os
import pty
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import ESCAPE, PATIENCE_SECONDS, CommandLine
from scripted_api import JOB_ID, JOB_PATH, Answer, Received, ScriptedApi, job

RESULTS = b"id,prediction\n1,0\n2,1\n"
INPUT = b"id,x\n1,2\n"


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ScriptedApi]:
    (tmp_path / "in.csv").write_bytes(INPUT)
    with ScriptedApi().running() as running:
        running.on("POST", "/v1/jobs", Answer(202, job("queued")))
        running.on("GET", JOB_PATH, job("running", progress=0.3), job())
        running.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS))
        yield running


def with_errors(api: ScriptedApi) -> None:
    errors = [{"row": n, "code": "missing_value" if n % 3 else "not_a_number", "raw": "[red]x"} for n in range(1, 6)]
    api.on("GET", JOB_PATH, job("completed_with_errors", total=10, errored=5))
    content = "\n".join(map(json.dumps, errors)).encode()
    api.on("GET", f"{JOB_PATH}/errors", Answer(content=content))


def test_a_file_is_scored(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    done = scorehouse("score", "in.csv", "--model", "flights", "-o", "out.csv", "--key", "id", "--include-inputs")
    assert done.code == 0
    assert (tmp_path / "out.csv").read_bytes() == RESULTS
    assert done.out == b""
    assert b"3 rows in" in done.err
    assert b"3 succeeded, 0 errored. Job " + JOB_ID.encode() in done.err
    assert ESCAPE not in done.err
    assert api.received[0].query == {"model": "flights", "key_column": "id"}
    assert api.received[-1].query == {"format": "csv", "include": "inputs"}


def test_a_dash_is_standard_input_and_standard_output(api: ScriptedApi, scorehouse: CommandLine) -> None:
    done = scorehouse("score", "-", "-m", "flights", "-o", "-", "--delimiter", "tab", stdin=b"id\tx\n1\t2\n")
    assert done.code == 0
    assert done.out == RESULTS
    assert api.received[0].body == b"id\tx\n1\t2\n"
    assert api.received[0].query["delimiter"] == "\t"


def test_quiet_says_nothing(scorehouse: CommandLine) -> None:
    done = scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv", "--quiet")
    assert (done.code, done.out, done.err) == (0, b"", b"")


def test_errored_rows_are_counted_by_code_and_only_strict_makes_them_a_failure(
    api: ScriptedApi, scorehouse: CommandLine
) -> None:
    with_errors(api)
    done = scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv")
    assert done.code == 0
    assert b"5 rows were not scored: missing_value 4, not_a_number 1" in done.err
    assert f"scorehouse jobs errors {JOB_ID}".encode() in done.err
    assert scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv", "--strict").code == 1


@pytest.mark.parametrize(
    ("state", "told"),
    [("failed", b"failed: [bold]out of memory."), ("canceled", b"was canceled: [bold]out of memory.")],
)
def test_a_job_that_did_not_end_well_exits_1(
    api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path, state: str, told: bytes
) -> None:
    api.on("GET", JOB_PATH, job(state, error="[bold]out of memory"))
    done = scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv", "--quiet")
    assert done.code == 1
    assert told in done.err
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["missing.csv", "-m", "flights", "-o", "out.csv"], b"there is no file missing.csv"),
        (["in.csv", "-o", "out.csv"], b"--model"),
        (["in.csv", "-m", "flights", "-o", "out.csv", "--metadata", "x"], b"NAME=VALUE"),
        (["in.csv", "-m", "flights", "-o", "out.csv", "--format", "xlsx"], b"parquet"),
    ],
)
def test_wrong_usage_exits_2_and_sends_nothing(
    api: ScriptedApi, scorehouse: CommandLine, arguments: list[str], told: bytes
) -> None:
    done = scorehouse("score", *arguments)
    assert done.code == 2
    assert told in done.err
    assert api.received == []


def test_a_refusal_is_told_line_by_line(api: ScriptedApi, scorehouse: CommandLine) -> None:
    problem = {
        "title": "Invalid input",
        "status": 422,
        "detail": "1 column is wrong",
        "errors": [{"detail": "column '\x1b[31mx' is not known", "pointer": "#/columns/x"}],
    }
    api.on("POST", "/v1/jobs", Answer(422, problem))
    done = scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv", "--quiet")
    assert done.code == 1
    assert done.err.decode().splitlines() == [
        "Invalid input (422): 1 column is wrong",
        "  - column '\\x1b[31mx' is not known (#/columns/x)",
    ]


def test_without_an_api_one_is_told_how_to_get_one(scorehouse: CommandLine) -> None:
    del scorehouse.variables["SCOREHOUSE_API_URL"]
    done = scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv")
    assert done.code == 1
    assert b"scorehouse up" in done.err
    assert b"Traceback" not in done.err


def test_the_running_stack_and_its_admin_token_are_found(
    api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path
) -> None:
    scorehouse.variables.clear()
    (tmp_path / ".scorehouse").mkdir()
    (tmp_path / ".scorehouse" / "stack.json").write_text(json.dumps({"api_url": api.url}))
    (tmp_path / ".scorehouse" / "admin.token").write_text("of the admin\n")
    assert scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv").code == 0
    assert {request.headers["Authorization"] for request in api.received} == {"Bearer of the admin"}


def test_ctrl_c_while_scoring_says_how_to_go_on(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    asked = threading.Event()

    def running(_: Received) -> Answer:
        asked.set()
        return Answer(content=job("running"))

    api.on("GET", JOB_PATH, running)
    process = scorehouse.start("score", "in.csv", "-m", "flights", "-o", "out.csv")
    assert asked.wait(PATIENCE_SECONDS)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert f"Job {JOB_ID} goes on without you".encode() in err
    assert f"scorehouse jobs cancel {JOB_ID}".encode() in err
    assert b"Traceback" not in err
    assert out == b""
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_results_that_cannot_be_fetched_are_not_lost(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    api.on("GET", f"{JOB_PATH}/results", Answer(500, b"<html><h1>Internal Server Error</h1></html>"))
    done = scorehouse("score", "in.csv", "-m", "flights", "-o", "out.csv", "--quiet")
    assert done.code == 1
    assert f"has finished; fetch its results with `scorehouse jobs results {JOB_ID} -o FILE`".encode() in done.err
    assert b"Internal Server Error (500)" in done.err
    assert b"<h1>" not in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_a_reader_that_goes_away_is_no_error_to_talk_about(api: ScriptedApi, scorehouse: CommandLine) -> None:
    api.on("GET", JOB_PATH, job())
    api.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS * 100_000))
    with scorehouse.start("jobs", "results", JOB_ID) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_reader_that_is_gone_before_a_short_answer_is_none_either(scorehouse: CommandLine) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with scorehouse.start("jobs", "show", JOB_ID, "--json", stdout=writing) as process:
        os.close(writing)
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_a_terminal_gets_bars_and_a_pipe_only_results(scorehouse: CommandLine) -> None:
    ours, theirs = pty.openpty()
    process = scorehouse.start("score", "in.csv", "-m", "flights", "-o", "-", stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while block := os.read(ours, 65536):
            shown += block
    except OSError:
        # That is how the other end of a terminal is closed on Linux.
        pass
    os.close(ours)
    out, _ = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 0
    assert out == RESULTS
    assert ESCAPE in shown
    for text in (b"uploading", b"scoring", b"3 of 3 rows", b"downloading", b"succeeded"):
        assert text in shown
