"""`scorehouse train`, `retrain`, `trainings …` and `models validate`: what they say, send and exit with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import ESCAPE, CommandLine
from labelled_files import people, written
from scripted_api import Answer, ScriptedApi

from cli.stages import Lines

RUN_ID = "019a0000-0000-7000-8000-00000000000c"
METRICS = {"log_loss": {"value": 0.33, "low": 0.31, "high": 0.35}}
DOCUMENT: dict[str, Any] = {
    "rows": {"reference": 400, "stored": 1200, "hold_out": 300},
    "split": {"by": "time", "trained_through": None, "hold_out_from": "2024-06-29T00:00:00Z", "hold_out_to": "2024-07-06T00:00:00Z"},
    "recipe": "default",
    "champion": {"version": "1.0.0", "metrics": METRICS},
    "challenger": {"version": "1.1.0", "metrics": METRICS},
    "comparison": {"verdict": "better", "reason": "its log loss is lower by 0.02, between 0.01 and 0.03"},
    "decision": {"promoted": False, "reason": "the policy is manual: a person decides"},
}  # fmt: skip
POLICY = {
    "promotion": "manual", "every_days": 7, "on_alert": True, "min_labelled_rows": 1000, "max_rows": 200000,
    "max_age_days": 365, "recipe": "linear",
}  # fmt: skip


def run(state: str = "succeeded", **more: Any) -> dict[str, Any]:
    return {
        "id": RUN_ID, "model": "flights", "state": state, "trigger": {"kind": "hand", "key": "[red]x\x1b]0;owned\x07"},
        "champion": "1.0.0", "challenger": "1.1.0", "promoted": False, "reason": "the policy is manual: a person decides",
        "document": DOCUMENT if state == "succeeded" else None, "attempts": 1, "by": "admin",
        "created_at": "2024-07-07T00:00:00Z", "started_at": None, "finished_at": None, **more,
    }  # fmt: skip


VERSION = {
    "model": "flights", "version": "1.2.0", "state": "registered", "metrics": {"accuracy": 0.81, "rows": 500.0},
    "signature": {
        "columns": [
            {"name": "x", "type": "number", "minimum": 1, "maximum": 3}, {"name": "n", "type": "integer"},
            {"name": "word", "type": "category", "categories": ["b", "c"]}, {"name": "on", "type": "boolean"},
            {"name": "day", "type": "timestamp"}, {"name": "note", "type": "text"},
        ]
    },
}  # fmt: skip


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi().running() as running:
        running.on("POST", "/v1/models/flights/trainings", Answer(202, run("queued")))
        running.on("GET", f"/v1/models/flights/trainings/{RUN_ID}", run("running"), run())
        running.on("GET", "/v1/models/flights/trainings", {"trainings": [run(), run("failed")]})
        running.on("GET", "/v1/models/flights/training-policy", POLICY)
        running.on("PUT", "/v1/models/flights/training-policy", POLICY)
        running.on("GET", "/v1/models/flights/versions/1.2.0", VERSION)
        yield running


READING = [
    ("trainings", "list", "flights"),
    ("trainings", "show", "flights", RUN_ID),
    ("trainings", "policy", "flights"),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_json_and_text_of_reading_commands(scorehouse: CommandLine, command: tuple[str, ...]) -> None:
    done = scorehouse(*command, "--json")
    assert done.json
    assert (done.code, done.err) == (0, b"")
    told = scorehouse(*command)
    assert told.code == 0
    assert told.out
    assert ESCAPE not in done.out + told.out + told.err


def test_a_training_is_shown_with_its_figures_and_its_decision(scorehouse: CommandLine) -> None:
    scorehouse("trainings", "show", "flights", RUN_ID)  # the first answer says that it runs
    done = scorehouse("trainings", "show", "flights", RUN_ID)
    for expected in (b"stored 1,200", b"by time, from 2024-06-29", b"the policy is manual", b"0.33 (0.31 to 0.35)"):
        assert expected in done.out
    assert b"The challenger is better: its log loss is lower by 0.02" in done.err


@pytest.mark.parametrize(("state", "code"), [("succeeded", 0), ("skipped", 0), ("failed", 1)])
def test_waiting_for_a_training_exits_with_how_it_ended(
    api: ScriptedApi, scorehouse: CommandLine, state: str, code: int
) -> None:
    api.on("GET", f"/v1/models/flights/trainings/{RUN_ID}", run("running"), run(state))
    done = scorehouse("retrain", "flights", "--wait", "--trigger", "nightly-7", "--json")
    assert (done.code, done.json["state"]) == (code, state)
    assert api.received[0].headers["Idempotency-Key"] == "nightly-7"


def test_without_waiting_it_is_told_where_to_look(api: ScriptedApi, scorehouse: CommandLine) -> None:
    done = scorehouse("retrain", "flights")
    assert done.code == 0
    assert f"scorehouse trainings show flights {RUN_ID}".encode() in done.err
    assert api.paths("GET") == []


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        (["--promotion", "auto-if-better"], {"promotion": "auto-if-better"}),
        (["--every-days", "30", "--not-on-alert"], {"every_days": 30, "on_alert": False}),
        (["--every-days", "0", "--recipe", ""], {"every_days": None, "recipe": None}),
        (["--max-rows", "5", "--max-age-days", "9", "--min-labelled-rows", "3"],
         {"max_rows": 5, "max_age_days": 9, "min_labelled_rows": 3}),
    ],
)  # fmt: skip
def test_a_policy_is_changed_where_it_is_said(
    api: ScriptedApi, scorehouse: CommandLine, options: list[str], changed: dict[str, Any]
) -> None:
    done = scorehouse("trainings", "policy", "flights", *options, "--json")
    assert (done.code, done.json) == (0, POLICY)
    sent = next(received for received in api.received if received.method == "PUT")
    assert sent.json() == {**POLICY, **changed}


def test_a_training_from_a_file_shows_its_stages_and_writes_its_files(scorehouse: CommandLine, tmp_path: Path) -> None:
    data = written(people(300).drop(columns=["shade", "price"]), tmp_path / "people.csv")
    options = [
        "--data",
        str(data),
        "--target",
        "left",
        "--key",
        "id",
        "--recipe",
        "linear",
        "--out",
        str(tmp_path / "out"),
    ]
    done = scorehouse("train", "people", *options)
    assert done.code == 0, done.err
    assert b"trying linear: 4 of 4" in done.err
    assert b"accuracy" in done.out
    assert ESCAPE not in done.out + done.err
    assert {"card.json", "card.md", "reference.csv"} < {path.name for path in (tmp_path / "out").iterdir()}
    silent = scorehouse("train", "people", *options, "--json", "--quiet")
    assert silent.json["registered"] is None
    assert silent.err == b""
    wrong = scorehouse("train", "people", "--data", str(data), "--target", "lost")
    assert (wrong.code, b"--target names 'lost'" in wrong.err) == (1, True)
    assert scorehouse("train", "people", "--data", "nowhere.csv", "--target", "left").code == 2


def test_lines_tell_what_is_left(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([10.0, 10.0, 13.0, 16.0, 19.0])
    monkeypatch.setattr("cli.stages.time.monotonic", lambda: next(clock))
    lines = Lines(interval=5.0)
    for done in range(5):
        lines.show("trying linear", done, 4)
    assert capfd.readouterr().err.splitlines() == [
        "trying linear: 0 of 4",
        "trying linear: 3 of 4, 2 s left",
        "trying linear: 4 of 4",
    ]


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--min", "accuracy=0.8"], 0, b"all checks passed"),
        (["--min", "accuracy=0.9"], 1, b"failed: accuracy"),
        (["--max", "accuracy=0.9", "--min", "rows=500"], 0, b"all checks passed"),
        (["--min", "roc_auc=0.1"], 1, b"failed: roc_auc"),
        (["--min", "acuracy=0.8"], 2, b"did you mean accuracy?"),
        (["--min", "accuracy"], 2, b"not of the form METRIC=NUMBER"),
        ([], 2, b"say what is to be checked"),
    ],
)
def test_a_validation_exits_with_its_verdict(
    scorehouse: CommandLine, options: list[str], code: int, told: bytes
) -> None:
    done = scorehouse("models", "validate", "flights", "1.2.0", *options)
    assert (done.code, told in done.err) == (code, True), done.err


def test_latency_is_that_of_single_records_the_first_of_which_is_not_timed(
    api: ScriptedApi, scorehouse: CommandLine
) -> None:
    api.on("POST", "/v1/jobs", {"id": RUN_ID, "state": "succeeded"})
    done = scorehouse("models", "validate", "flights", "1.2.0", "--max-latency", "30", "--singles", "5", "--json")
    assert (done.code, done.json["checks"][0]["name"]) == (0, "latency_p95")
    sent = [received.json() for received in api.received if received.path == "/v1/jobs"]
    assert len(sent) == 6
    assert sent[0]["version"] == "1.2.0"
    assert {each["as_of"] for each in sent} == {"2000-01-01T00:00:00Z"}, "audits would take them for customers"
    assert sent[0]["inputs"] == {
        "x": 2.0, "n": 0, "word": "b", "on": False, "day": "2020-01-01T00:00:00Z", "note": "a",
    }  # fmt: skip
    api.on("POST", "/v1/jobs", {"id": RUN_ID, "state": "failed", "error": "no"})
    assert scorehouse("models", "validate", "flights", "1.2.0", "--max-latency", "30").code == 1
