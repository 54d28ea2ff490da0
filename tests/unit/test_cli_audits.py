"""`scorehouse audit …`, `labels upload`, `alerts …` and `history`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import ESCAPE, CommandLine
from scripted_api import Answer, ScriptedApi

WINDOW = {"start": "2013-07-01T00:00:00Z", "end": "2013-07-02T00:00:00Z"}
AUDIT_ID = "019a0000-0000-7000-8000-00000000000a"
ALERT_ID = "019a0000-0000-7000-8000-00000000000b"
POLICY = {
    "every_hours": 1, "window_hours": 24, "enabled": True, "tolerance": 0.05, "horizon_days": None, "negative_label": None,
}  # fmt: skip
PAGE = b"<!doctype html><title>Drift</title>"


def column(name: str, status: str, value: float | None = 0.31) -> dict[str, Any]:
    return {
        "name": name, "type": "number", "statistic": "ks", "value": value, "warn": 0.1, "critical": 0.2,
        "p_value": 0.0, "significant": True, "status": status, "details": {},
    }  # fmt: skip


def drift(status: str = "ok") -> dict[str, Any]:
    columns = [column("calm", "ok", 0.01), column("[red]hour[/]\x1b]0;owned\x07", status), column("gone", "ok", None)]
    told = {"model": "flights", "model_version": "1.2.0", "window": WINDOW, "rows": 28330, "status": status}
    return {**told, "audited_at": "2013-07-02T00:01:00Z", "columns": columns}


def accuracy(status: str = "ok", **more: Any) -> dict[str, Any]:
    metric = {"value": 0.8125, "low": 0.8, "high": 0.825}
    return {
        "model": "flights", "model_version": "1.2.0", "window": WINDOW, "scored": 28330, "labelled": 25000, "unknown": 0,
        "coverage": 0.88, "status": status, "metrics": {"accuracy": metric}, "reference": {"accuracy": 0.83},
        "estimated": {"accuracy": {**metric, "value": 0.8011}}, "estimate_retired": False, "worse": {}, "by_version": [],
        "audited_at": "2013-07-02T00:01:00Z", **more,
    }  # fmt: skip


def run(document: dict[str, Any] | None = None, state: str = "done", **more: Any) -> dict[str, Any]:
    """An audit as the API answers it."""
    path = f"/v1/audits/{AUDIT_ID}"
    return {
        "id": AUDIT_ID, "kind": "drift", "model": "flights", "model_version": "1.2.0", "state": state,
        "status": document and document["status"], "window": WINDOW, "created_at": "2013-07-02T00:00:59Z",
        "finished_at": "2013-07-02T00:01:00Z", "error": None, "document": document,
        "links": {"self": path, "report": f"{path}/report"}, **more,
    }  # fmt: skip


ALERT = {
    "id": ALERT_ID, "model": "flights", "model_version": "1.2.0", "column": "hour", "check": "ks", "state": "firing",
    "severity": "critical", "value": 0.31, "changed_at": "2013-07-02T00:01:00Z",
}  # fmt: skip
PREDICTION = {
    "prediction_id": "019a0000-0000-7000-8000-000000000001:7", "prediction": 1, "probability": [0.2, 0.8],
    "model_version": "1.2.0", "scored_at": "2013-07-02T00:00:00Z", "as_of": None, "label": "0",
    "inputs": {"hour": 5, "dest": "[red]LAX"},
}  # fmt: skip
COUNTS: dict[str, Any] = {
    "received": 3, "matched": 1, "unmatched": 1, "replaced": 1, "stale": 0, "rejected": 0, "rejections": [],
}  # fmt: skip


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi().running() as running:
        running.on("POST", "/v1/models/flights/audits", Answer(202, run(state="queued")))
        running.on("GET", f"/v1/audits/{AUDIT_ID}", run(drift()))
        running.on("GET", f"/v1/audits/{AUDIT_ID}/report", Answer(content=PAGE, headers={"Content-Type": "text/html"}))
        running.on("GET", "/v1/models/flights/audits", {"audits": [run(drift()), run(drift("warn"))]})
        running.on("GET", "/v1/models/flights/audit-policy", POLICY)
        running.on("GET", "/v1/alerts", {"alerts": [ALERT, {**ALERT, "column": "", "value": None}]})
        running.on("POST", f"/v1/alerts/{ALERT_ID}/ack", {**ALERT, "state": "acknowledged"})
        running.on("POST", f"/v1/alerts/{ALERT_ID}/suppress", {**ALERT, "state": "suppressed"})
        running.on("GET", "/v1/predictions", {"model": "flights", "key": "k", "predictions": [PREDICTION]})
        running.on("POST", "/v1/labels", COUNTS)
        yield running


def found(api: ScriptedApi, document: dict[str, Any]) -> None:
    api.on("GET", f"/v1/audits/{AUDIT_ID}", run(None, "running"), run(document))


READING = [
    ("audit", "drift", "flights"),
    ("audit", "list", "flights"),
    ("audit", "schedule", "flights"),
    ("alerts", "list"),
    ("history", "flights", "k"),
]


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_json_is_all_that_is_on_standard_output(scorehouse: CommandLine, command: tuple[str, ...]) -> None:
    done = scorehouse(*command, "--json")
    assert done.json
    assert ESCAPE not in done.out
    assert (done.code, done.err) == (0, b"")


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_for_people_there_are_no_colours_in_a_pipe(scorehouse: CommandLine, command: tuple[str, ...]) -> None:
    done = scorehouse(*command)
    assert done.code == 0
    assert done.out
    assert ESCAPE not in done.out + done.err


@pytest.mark.parametrize(
    ("kind", "status", "options", "code"),
    [
        ("drift", "ok", [], 0),
        ("drift", "warn", [], 0),
        ("drift", "critical", [], 1),
        ("drift", "warn", ["--fail-on", "warn"], 1),
        ("drift", "critical", ["--fail-on", "warn"], 1),
        ("drift", "critical", ["--fail-on", "never"], 0),
        ("drift", "critical", ["--json"], 1),
        ("drift", "insufficient_data", ["--fail-on", "warn"], 0),
        ("accuracy", "critical", [], 1),
        ("accuracy", "provisional", ["--fail-on", "warn"], 0),
        ("domain", "critical", [], 1),
    ],
)
def test_the_exit_code_is_the_verdict(
    api: ScriptedApi, scorehouse: CommandLine, *, kind: str, status: str, options: list[str], code: int
) -> None:
    document = accuracy(status) if kind == "accuracy" else drift(status)
    found(api, document)
    done = scorehouse("audit", kind, "flights", *options)
    assert done.code == code
    assert api.received[0].json() == {"kind": kind, "window": "24h", "alert": False}
    if "--json" in options:
        assert done.json == document
    else:
        assert status.replace("_", " ").encode() in done.err


def test_a_window_is_asked_for_as_it_is_meant(api: ScriptedApi, scorehouse: CommandLine) -> None:
    options = ["--window", "7d", "--end", "2013-07-08", "--version", "1.1.0", "--alert"]
    assert scorehouse("audit", "drift", "flights", *options).code == 0
    expected = {"window": "7d", "end": "2013-07-08T00:00:00+00:00", "version": "1.1.0", "alert": True}
    assert api.received[0].json() == {"kind": "drift", **expected}
    assert scorehouse("audit", "drift", "flights", "--end", "soon").code == 2
    assert scorehouse("audit", "drift", "flights", "--fail-on", "ok").code == 2


def test_an_audit_that_failed_says_why(api: ScriptedApi, scorehouse: CommandLine) -> None:
    api.on("GET", f"/v1/audits/{AUDIT_ID}", run(None, "failed", error="there is no reference profile"))
    done = scorehouse("audit", "drift", "flights")
    assert done.code == 1
    assert b"there is no reference profile" in done.err


def test_the_worst_columns_come_first_and_names_are_shown_as_they_are(
    api: ScriptedApi, scorehouse: CommandLine
) -> None:
    found(api, drift("critical"))
    lines = scorehouse("audit", "drift", "flights").out.decode().splitlines()
    assert lines[1].startswith("[red]hour[/]\\x1b]0;owned\\x07")
    assert [line.split()[0] for line in lines[2:]] == ["calm", "gone"]


def test_accuracy_shows_its_interval_and_the_versions_when_there_are_several(
    api: ScriptedApi, scorehouse: CommandLine
) -> None:
    one = {"version": "1.2.0", "scored": 28000, "labelled": 24990, "metrics": {"accuracy": 0.8125, "f1": 0.75}}
    found(api, accuracy(by_version=[one]))
    done = scorehouse("audit", "accuracy", "flights")
    for told in (b"0.8125", b"0.825", b"0.83", b"0.8011"):
        assert told in done.out
    assert b"25,000 of 28,330 predictions labelled" in done.err
    assert b"24,990" not in done.out
    found(api, accuracy(by_version=[one, {**one, "version": "1.1.0", "labelled": 1234, "metrics": {"accuracy": 0.6}}]))
    lines = scorehouse("audit", "accuracy", "flights").out.decode().splitlines()
    assert lines[-3].split() == ["version", "scored", "labelled", "accuracy", "f1"]
    assert lines[-1].split() == ["1.1.0", "28,000", "1,234", "0.6"]


def test_a_report_is_written_and_where_is_said(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    done = scorehouse("audit", "report", "flights", "--kind", "accuracy", "--window", "7d", "-o", "july.html")
    assert (done.code, done.out) == (0, b"")
    assert (tmp_path / "july.html").read_bytes() == PAGE
    assert str(tmp_path / "july.html").encode() in done.err
    assert api.received[0].query == {"kind": "accuracy", "limit": "1", "window": "7d"}
    assert scorehouse("audit", "report", "flights").code == 0
    assert (tmp_path / "report.html").read_bytes() == PAGE
    assert api.received[2].query == {"kind": "drift", "limit": "1"}
    assert scorehouse("audit", "report", "flights", "-o", "-").out == PAGE


def test_a_report_that_is_not_there_leaves_no_file(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    api.on("GET", "/v1/models/flights/audits", {"audits": []})
    done = scorehouse("audit", "report", "flights", "--window", "7d")
    assert done.code == 1
    assert b"scorehouse audit drift flights --window 7d" in done.err
    api.on("GET", "/v1/models/flights/audits", {"audits": [run(drift())]})
    problem = {"title": "Conflict", "status": 409, "detail": "the audit is queued"}
    api.on("GET", f"/v1/audits/{AUDIT_ID}/report", Answer(409, problem))
    done = scorehouse("audit", "report", "flights")
    assert done.code == 1
    assert b"the audit is queued" in done.err
    assert list(tmp_path.iterdir()) == []
    assert scorehouse("audit", "report", "flights", "-o", "no/such/folder.html").code == 1


def test_a_schedule_changes_what_is_named_and_nothing_else(api: ScriptedApi, scorehouse: CommandLine) -> None:
    assert b"every hours" in scorehouse("audit", "schedule", "flights").out
    assert api.paths("PUT") == []
    changed = {**POLICY, "every_hours": 6, "horizon_days": 90, "negative_label": "0", "enabled": False}
    api.on("PUT", "/v1/models/flights/audit-policy", changed)
    options = ["--every-hours", "6", "--horizon-days", "90", "--negative-label", "0", "--off"]
    done = scorehouse("audit", "schedule", "flights", *options, "--json")
    assert done.json == changed
    assert api.received[-1].json() == changed
    assert scorehouse("audit", "schedule", "flights", "--every-hours", "0").code == 2


def test_labels_are_uploaded_and_counted(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"key;label\na;1\n")
    done = scorehouse("labels", "upload", "labels.csv", "-m", "flights", "--delimiter", ";")
    assert (done.code, done.out) == (0, b"")
    assert b"3 labels: 1 matched, 1 wait for their prediction, 1 replaced" in done.err
    assert b"stale" not in done.err
    (received,) = api.received
    assert (received.query, received.body) == ({"model": "flights", "delimiter": ";"}, b"key;label\na;1\n")
    done = scorehouse("labels", "upload", "-", "-m", "flights", "--json", stdin=b"key,label\nb,0\n")
    assert done.json == COUNTS
    assert api.received[1].body == b"key,label\nb,0\n"
    assert scorehouse("labels", "upload", "nowhere.csv", "-m", "flights").code == 2


@pytest.mark.parametrize("options", [[], ["--json"], ["--quiet"]])
def test_labels_that_cannot_be_read_exit_1_with_their_lines(
    api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path, options: list[str]
) -> None:
    (tmp_path / "labels.csv").write_bytes(b"key,label\na,maybe\n")
    counts = {**COUNTS, "rejected": 1, "rejections": [{"line": 2, "detail": "[b]'maybe' is not a number"}]}
    api.on("POST", "/v1/labels", counts)
    done = scorehouse("labels", "upload", "labels.csv", "-m", "flights", *options)
    assert done.code == 1
    assert b"line 2: [b]'maybe' is not a number" in done.err
    assert not done.out or done.json == counts


def test_alerts_are_listed_with_ids_to_copy(api: ScriptedApi, scorehouse: CommandLine) -> None:
    lines = scorehouse("alerts", "list", "--model", "flights", "--state", "firing").out.decode().splitlines()
    assert lines[1].split()[0] == ALERT_ID
    assert "(all)" in lines[2]
    assert api.received[0].query == {"model": "flights", "state": "firing"}
    api.on("GET", "/v1/alerts", {"alerts": []})
    done = scorehouse("alerts", "list")
    assert (done.code, done.out) == (0, b"")
    assert b"No alert is open" in done.err


def test_an_alert_is_acknowledged_and_suppressed(api: ScriptedApi, scorehouse: CommandLine) -> None:
    assert b"ks of hour (flights) is acknowledged." in scorehouse("alerts", "ack", ALERT_ID).err
    done = scorehouse("alerts", "suppress", ALERT_ID, "--until", "2026-12-01")
    assert b"ks of hour (flights) is suppressed." in done.err
    assert api.received[1].json() == {"until": "2026-12-01T00:00:00+00:00"}
    assert scorehouse("alerts", "suppress", ALERT_ID, "--until", "later").code == 2
    assert scorehouse("alerts", "ack", "unknown").code == 1


def test_the_history_of_a_record_tells_inputs_score_and_label(api: ScriptedApi, scorehouse: CommandLine) -> None:
    shown = scorehouse("history", "flights", "k").out
    for told in (b"0.2000, 0.8000", b"1.2.0", b"hour=5, dest=[red]LAX", PREDICTION["prediction_id"].encode()):
        assert told in shown
    api.on("GET", "/v1/predictions", {"model": "flights", "key": "k", "predictions": []})
    done = scorehouse("history", "flights", "k")
    assert (done.code, done.out) == (0, b"")
    assert b"No prediction of 'k' is stored." in done.err
