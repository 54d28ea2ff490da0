"""Texts that attack a database, a page, a log, a terminal or a spreadsheet come out as they went in, and do nothing."""

from __future__ import annotations

import csv
import io
import json
import time

import jwt
import pytest
from csv_inputs import HEADER, Trickle
from hostile_texts import TEXTS
from in_process import MODEL, InProcess

import logs
from api.tokens import AUDIENCE, ISSUER
from cli.terminal import write_table
from settings import Settings

NAMES, VALUES = list(TEXTS), list(TEXTS.values())
GOOD = {"amount": "1", "visits": "2", "segment": "gold", "active": "true", "note": "fine", "seen": ""}
RUNS = ("=", "+", "-", "@", "\t", "\r")


def written(*rows: list[str]) -> Trickle:
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL).writerows(rows)
    return Trickle(out.getvalue().encode(), 1 << 18)


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def neutral(text: str) -> str:
    return "'" + text if text.startswith(RUNS) else text


def submitted(inside: InProcess, body: Trickle, **query: str) -> str:
    answer = inside.upload(body, {"Content-Type": "text/csv"}, **query)
    assert answer.status_code == 202, answer.text
    inside.score()
    return str(answer.get_json()["id"])


def test_as_keys_and_cells(inside: InProcess) -> None:
    rows = [[text, *{**GOOD, "segment": text, "note": text}.values()] for text in VALUES]
    job_id = submitted(inside, written(HEADER, *rows))
    kept = read(inside.get(f"/v1/jobs/{job_id}/results", include="inputs", formulas="keep").text)
    assert [cells[: len(HEADER)] for cells in kept[1:]] == rows
    safe = read(inside.get(f"/v1/jobs/{job_id}/results", include="inputs").text)
    assert [cells[: len(HEADER)] for cells in safe[1:]] == [[neutral(cell) for cell in row] for row in rows]
    assert [cells[0] for cells in read(inside.get(f"/v1/jobs/{job_id}/results").text)[1:]] == list(map(neutral, VALUES))
    lines = inside.get(f"/v1/jobs/{job_id}/results", format="ndjson").text.split("\n")
    assert [json.loads(line)["id"] for line in lines if line] == VALUES


def test_as_cells_of_row_errors(inside: InProcess) -> None:
    rows = [[text, *{**GOOD, "amount": text}.values()] for text in VALUES]
    job_id = submitted(inside, written(HEADER, *rows))
    told = read(inside.get(f"/v1/jobs/{job_id}/errors").text)
    assert [cells[2] for cells in told[1:]] == [neutral(text) for text in VALUES]
    assert not [cell for cells in told for cell in cells if cell.startswith(RUNS)]
    lines = inside.get(f"/v1/jobs/{job_id}/errors", format="ndjson").text.split("\n")
    assert [json.loads(line)["key"] for line in lines if line] == VALUES


def test_as_column_names(inside: InProcess) -> None:
    extra = VALUES[: 20 - len(HEADER)]
    for names in (extra, VALUES[len(extra) : 2 * len(extra)], VALUES[2 * len(extra) :]):
        job_id = submitted(inside, written([*HEADER, *names], ["k", *GOOD.values(), *names]))
        kept = read(inside.get(f"/v1/jobs/{job_id}/results", include="inputs", formulas="keep").text)
        assert kept[0][: len(HEADER) + len(names)] == [*HEADER, *names]
        assert kept[1][len(HEADER) : len(HEADER) + len(names)] == names
        safe = read(inside.get(f"/v1/jobs/{job_id}/results", include="inputs").text)
        assert not [cell for cells in safe for cell in cells if cell.startswith(RUNS)]
        answer = inside.get(f"/v1/jobs/{job_id}/results", include="inputs", format="parquet")
        assert answer.data.startswith(b"PAR1")


@pytest.mark.parametrize("name", NAMES)
def test_as_metadata_labels_and_keys_of_requests(inside: InProcess, name: str) -> None:
    text = TEXTS[name]
    body = {"model": MODEL, "inputs": {**GOOD, "amount": 1, "visits": 2, "active": True, "seen": None}, "key": text}
    sent = inside.http.post(
        "/v1/jobs", json={**body, "metadata": {text: text}}, headers={**inside.bearer_of_all, "Idempotency-Key": name}
    )
    assert sent.status_code == 202, sent.text
    inside.score()
    job = inside.get(sent.headers["Location"]).get_json()
    assert (job["metadata"], job["state"]) == ({text: text}, "succeeded")
    assert job["result"]["key"] == text
    label = inside.http.post(
        "/v1/labels", query_string={"model": MODEL}, json=[{"key": text, "label": 3}], headers=inside.bearer_of_all
    )
    assert label.get_json()["matched"] >= 1, label.text
    history = inside.get("/v1/predictions", model=MODEL, key=text).get_json()
    assert {each["key"] for each in history["predictions"]} == {text}
    refused = inside.http.post(
        "/v1/labels", query_string={"model": MODEL}, json=[{"key": "k", "label": text}], headers=inside.bearer_of_all
    )
    assert refused.status_code == 422
    assert refused.mimetype == "application/problem+json"


@pytest.mark.parametrize("name", NAMES)
def test_as_names_in_requests(inside: InProcess, name: str) -> None:
    """Refused or not found; what is told is JSON, in a body that no browser takes for a page, and in no header."""
    text = TEXTS[name]
    for answer in (
        inside.get(f"/v1/models/{text.replace('/', '%2F')}"),
        inside.get("/v1/jobs", model=text),
        inside.get("/v1/jobs", state=text),
        inside.upload(written(HEADER), {"Content-Type": "text/csv"}, key_column=text),
        inside.upload(written(HEADER), {"Content-Type": "text/csv"}, delimiter=text),
        inside.upload(written(HEADER), {"Content-Type": "text/csv"}, version=text),
        inside.http.get("/v1/jobs", headers={"Authorization": f"Bearer {text!r}"}),
    ):
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.mimetype == "application/problem+json"
        assert "Set-Cookie" not in answer.headers


@pytest.mark.parametrize("name", NAMES)
def test_as_tenant_and_subject(inside: InProcess, name: str) -> None:
    """No token is made for such a tenant, and one that somebody signed all the same is refused; a subject may be odd."""
    text = TEXTS[name]
    with pytest.raises(ValueError, match="no tenant's name"):
        inside.bearer(tenant=text)
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "scope": "admin", "iat": now, "exp": now + 60, "jti": "1", "sub": "fuzz"}
    for changed, status in (({"tenant": text}, {401}), ({"tenant": "other", "sub": text}, {200, 401})):
        key = inside.settings.resolved_jwt_key_file().read_text()
        signed = jwt.encode({**claims, **changed}, key, algorithm="HS256", headers={"kid": "local"})
        answer = inside.http.get("/v1/jobs", headers={"Authorization": f"Bearer {signed}"})
        assert answer.status_code in status, answer.text
        assert answer.status_code == 401 or answer.get_json()["jobs"] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_log_event_is_one_line(capfd: pytest.CaptureFixture[str], name: str) -> None:
    logs.configure(Settings(_env_file=None, log_format="json"))  # type: ignore[call-arg]  # of pydantic-settings
    logs.get("hostile").warning("happened", tenant=TEXTS[name], reason=TEXTS[name])
    lines = capfd.readouterr().err.splitlines()  # other threads write here too
    (found,) = [json.loads(line) for line in lines if '"happened"' in line]
    assert not [line for line in lines if line.startswith('{"event": "forged"')]
    assert (found["event"], found["tenant"], found["reason"]) == ("happened", TEXTS[name], TEXTS[name])


def test_a_table_of_the_command_line_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    write_table(["text"], [[text] for text in VALUES])
    out = capsys.readouterr().out
    assert not [char for char in out if not char.isprintable() and char != "\n"]
    assert "[bold red]x[/]" in out
