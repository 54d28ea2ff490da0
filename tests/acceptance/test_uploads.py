"""Uploads of files, in every way that HTTP knows of sending them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator

import pytest
from house import House, multipart, register
from toys import COLUMNS, Toy, csv_bytes, customers, to_csv

HEADER = ["id", *COLUMNS]
ROWS = [["a", "1.5", "3", "gold", "true", "fine"], ["b", "2.5", "4", "", "false", "late again"]]
FILE = csv_bytes(HEADER, *ROWS)


def keys_of(house: House, job_id: str) -> list[str]:
    return [row["id"] for row in house.rows(job_id)]


def test_a_file_of_several_chunks(house: House, toy: Toy) -> None:
    frame = customers(8_000, seed=11)
    job = house.finished(house.upload(to_csv(frame)))
    assert (job.kind, job.lane, job.state, job.rows.succeeded) == ("batch", "bulk", "succeeded", 8_000)
    assert house.query("SELECT chunks_total FROM job WHERE id = :job", job=job.id)[0].chunks_total > 4
    rows = house.rows(job.id)
    labels, probabilities = toy.predict(frame)
    assert [row["id"] for row in rows] == frame["id"].tolist()
    assert [int(row["prediction"]) for row in rows] == labels
    assert max(abs(float(row["probability"]) - p) for row, p in zip(rows, probabilities[:, 1], strict=True)) <= 1e-12


def test_ndjson(house: House) -> None:
    lines = [json.dumps({"id": "a", "amount": 1.5, "visits": 3, "segment": None, "active": True, "note": "x"})] * 2
    body = "\r\n".join([*lines, "", '{"id": "b"', lines[0]]).encode()
    job = house.finished(house.upload(body, "application/x-ndjson"))
    assert (job.rows.succeeded, job.rows.errored) == (3, 1)
    assert [(error["row"], error["line"], error["code"]) for error in house.errors(job.id)] == [(3, 4, "invalid_json")]
    assert keys_of(house, job.id) == ["a", "a", "a"]


@pytest.mark.parametrize("encoding", ["gzip", None])
def test_gzip_raw(house: House, encoding: str | None) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    job = house.finished(house.upload(gzip.compress(FILE), headers=headers))
    assert keys_of(house, job.id) == ["a", "b"]


def test_a_gzipped_file_in_a_form(house: House) -> None:
    body, headers = multipart(("model", None, b"toy"), ("file", "rows.csv.gz", gzip.compress(FILE)))
    job = house.finished(house.call("POST", "/v1/jobs", body, headers))
    assert keys_of(house, job.id) == ["a", "b"]


def test_a_form_takes_its_fields_before_and_after_the_file(house: House) -> None:
    fields = [
        ("model", None, b"toy"),
        ("key_column", None, b"note"),
        ("metadata", None, b'{"run": "7"}'),
        ("priority", None, b"low"),
    ]
    file = ("file", "rows.csv", FILE)
    for parts in ([*fields, file], [file, *fields], [*fields[:2], file, *fields[2:]]):
        body, headers = multipart(*parts)
        job = house.finished(house.call("POST", "/v1/jobs", body, headers))
        assert job.metadata == {"run": "7"}
        assert [row["note"] for row in house.rows(job.id)] == ["fine", "late again"]


def test_after_a_large_file_a_field_is_refused_and_nothing_is_left(house: House) -> None:
    large = FILE + csv_bytes(*([ROWS[0]] * 250_000))
    model, late = ("model", None, b"toy"), ("metadata", None, b"{}")
    body, headers = multipart(model, ("file", "rows.csv", large), late)
    answer = house.call("POST", "/v1/jobs", body, {**headers, "Idempotency-Key": "late-field"})
    assert (answer.status, answer.pointers) == (422, ["#/metadata"])
    assert "put the fields of the form before the file" in answer.told
    assert house.query("SELECT 1 FROM job WHERE idempotency_key = 'late-field'") == []


@pytest.mark.parametrize(
    ("parts", "told"),
    [
        ([("model", None, b"toy"), ("fil", "rows.csv", FILE)], "no file named `file`"),
        ([("model", None, b"toy"), ("file", None, FILE)], "a part is a file when it has a filename"),
        ([("model", None, b"toy"), ("file", "a.csv", FILE), ("file", "b.csv", FILE)], "more than one file"),
        ([("file", "a.csv", FILE)], "name the model"),
    ],
)
def test_a_form_that_is_wrong_makes_no_job(house: House, parts: list[tuple[str, str | None, bytes]], told: str) -> None:
    before = house.query("SELECT count(*) FROM job")
    body, headers = multipart(*parts)
    answer = house.call("POST", "/v1/jobs", body, headers)
    assert answer.status == 422
    assert told in answer.told
    assert house.query("SELECT count(*) FROM job") == before


def test_chunked_transfer_encoding(house: House) -> None:
    def blocks() -> Iterator[bytes]:
        yield FILE[:10]
        yield FILE[10:60]
        yield FILE[60:]

    job = house.finished(house.upload(blocks()))
    assert keys_of(house, job.id) == ["a", "b"]


def test_expect_100_continue(house: House) -> None:
    with house.raw_connection() as connection:
        connection.sendall(
            f"POST /v1/jobs?model=toy HTTP/1.1\r\nHost: scorehouse\r\nAuthorization: Bearer {house.token()}\r\n"
            f"Content-Type: text/csv\r\nContent-Length: {len(FILE)}\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        answers = connection.makefile("rb")
        assert answers.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answers.readline() == b"\r\n"
        connection.sendall(FILE)
        assert answers.readline().startswith(b"HTTP/1.1 202 ")


def test_a_key_in_flight_is_a_conflict_and_free_again_when_the_client_is_gone(house: House) -> None:
    held = {"Idempotency-Key": "held"}
    chunks = (
        "SELECT 1 FROM chunk JOIN job ON job.id = job_id WHERE idempotency_key = 'held' AND job.state = 'receiving'"
    )
    with house.upload_in_progress(**held):
        house.until(lambda: house.query(chunks))
        again = house.upload(FILE, headers=held)
        assert again.status == 409
        assert "still in flight" in again.told
        assert again.headers["Retry-After"] == "1"
        assert "held" not in {row["id"] for row in house.call("GET", "/v1/jobs").json["jobs"]}
    house.until(lambda: not house.query("SELECT 1 FROM job WHERE idempotency_key = 'held'"))
    assert house.query("SELECT 1 FROM chunk WHERE NOT EXISTS (SELECT 1 FROM job WHERE id = job_id)") == []
    orphans = "SELECT job_id, row FROM prediction WHERE NOT EXISTS (SELECT 1 FROM job WHERE id = job_id)"
    assert house.query(orphans) == []
    assert house.upload(FILE, headers=held).status == 202


def test_the_same_file_with_the_same_key_is_the_same_job(house: House) -> None:
    key = {"Idempotency-Key": "file"}
    first, again = house.upload(FILE, headers=key), house.upload(FILE, headers=key)
    assert first.json["id"] == again.json["id"]
    compressed = house.upload(gzip.compress(FILE), headers=key)
    assert compressed.json["id"] == first.json["id"]
    for other in (house.upload(FILE + b"\n", headers=key), house.upload(FILE, headers=key, priority="low")):
        assert other.status == 422
        assert other.pointers == ["#/header/Idempotency-Key"]


def test_what_an_upload_states_wrongly(house: House) -> None:
    answers = {
        "model": house.call("POST", "/v1/jobs", FILE, {"Content-Type": "text/csv"}),
        "key_column": house.upload(FILE, key_column="identity"),
        "metadata": house.upload(FILE, metadata="[1]"),
        "metadata/a": house.upload(FILE, metadata='{"a": "\\u0000"}'),
        "delimiter": house.upload(FILE, delimiter="ab"),
        "priority": house.upload(FILE, priority="urgent"),
    }
    for name, answer in answers.items():
        assert (answer.status, answer.pointers) == (422, [f"#/query/{name}"])
    assert "; its columns are: id, amount" in answers["key_column"].told
    media = house.upload(FILE, "application/vnd.ms-excel")
    assert (media.status, "text/csv" in media.told) == (415, True)
    encoding = house.upload(FILE, headers={"Content-Encoding": "br"})
    assert (encoding.status, "gzip" in encoding.told) == (415, True)


def test_a_wrong_delimiter_is_recognised(house: House) -> None:
    body = csv_bytes(HEADER, *ROWS, delimiter=";")
    answer = house.upload(body)
    assert answer.status == 422
    assert answer.pointers[0] == "#/query/delimiter"
    assert "if ';' separates the columns" in answer.told
    job = house.finished(house.upload(body, delimiter=";"))
    assert keys_of(house, job.id) == ["a", "b"]


def test_chunks_of_a_slow_version_are_small(house: House, toy: Toy) -> None:
    """By what its registration measured, which stands in here for a model that takes 50 ms a row."""
    register(house, toy, "9.9.0")
    assert house.call("GET", "/v1/models/toy/versions/9.9.0").json["seconds_per_row"] >= 0
    house.query("UPDATE model_version SET seconds_per_row = 0.05 WHERE version = '9.9.0'")
    frame = customers(250, seed=77)
    file = house.upload(to_csv(frame), version="9.9.0")
    records = house.submit(model="toy", version="9.9.0", inputs=json.loads(frame.to_json(orient="records")))
    for answer in (file, records):
        job = house.finished(answer)
        assert (job.state, job.rows.succeeded) == ("succeeded", 250)
        assert [row["id"] for row in house.rows(job.id)] == frame["id"].tolist()
        chunks = house.query("SELECT rows FROM chunk WHERE job_id = :job ORDER BY number", job=job.id)
        assert [chunk.rows for chunk in chunks] == [100, 100, 50]  # a fifth of 25 s
