"""Downloads: the order, the columns, the types, and the caller's own text."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
from house import House
from toys import COLUMNS, SHADES, Toy, csv_bytes, customers, to_csv

HEADER = ["id", *COLUMNS]


def test_three_classes_in_each_format(house: House, toys: dict[str, Toy]) -> None:
    toy = toys["shades"]
    frame = customers(60, seed=5)[["amount", "visits"]]
    job = house.finished(house.upload(to_csv(frame), model="shades"))
    labels, probabilities = toy.predict(frame)
    names = [f"probability_{label}" for label in SHADES]

    rows = house.rows(job.id, formulas="keep")
    assert list(rows[0]) == ["row", "prediction", *names, "model_version"]
    assert [row["row"] for row in rows] == [str(number) for number in range(1, 61)]
    assert [row["prediction"] for row in rows] == labels
    assert set(labels) == set(SHADES)
    for row, expected in zip(rows, probabilities, strict=True):
        assert [float(row[name]) for name in names] == pytest.approx(expected.tolist(), abs=1e-12)
        assert row["model_version"] == "1.0.0"

    assert {row["prediction"] for row in house.rows(job.id)} == {"'=1+1", "calm, low", "mid"}

    lines = [json.loads(line) for line in house.text(job.id, format="ndjson").splitlines()]
    assert [line["prediction"] for line in lines] == labels
    assert lines[0]["row"] == 1
    assert lines[0][names[0]] == pytest.approx(probabilities[0][0], abs=1e-12)

    table = pq.read_table(io.BytesIO(house.call("GET", f"/v1/jobs/{job.id}/results?format=parquet").body))
    assert table.column_names == ["row", "prediction", *names, "model_version"]
    assert table["row"].to_pylist() == list(range(1, 61))
    assert table["prediction"].to_pylist() == labels
    assert [str(table.schema.field(name).type) for name in table.column_names] == [
        "int64", "string", "double", "double", "double", "string",
    ]  # fmt: skip


def test_results_come_as_batches_and_as_a_frame(house: House, toys: dict[str, Toy]) -> None:
    sent = customers(1_000, seed=8)
    job = house.finished(house.upload(to_csv(sent), key_column="id"))
    labels, probabilities = toys["toy"].predict(sent)
    batches = list(house.client.batches(job.id, batch_rows=300))
    assert [batch.num_rows for batch in batches] == [300, 300, 300, 100]
    assert [key for batch in batches for key in batch["id"].to_pylist()] == sent["id"].tolist()
    frame = house.client.frame(job.id, include_inputs=True)
    assert frame["id"].tolist() == sent["id"].tolist()
    assert frame["prediction"].tolist() == labels
    assert frame["probability"].tolist() == pytest.approx([row[1] for row in probabilities], abs=1e-12)
    assert "amount" in frame.columns


def test_a_regression_has_no_probability_and_negative_numbers_stay(house: House, toys: dict[str, Toy]) -> None:
    frame = customers(50, seed=6)[["id", "amount", "visits"]]
    job = house.finished(house.upload(to_csv(frame), model="prices"))
    expected, _ = toys["prices"].predict(frame)
    rows = house.rows(job.id)
    assert list(rows[0]) == ["id", "prediction", "model_version"]
    assert [float(row["prediction"]) for row in rows] == pytest.approx(expected, rel=1e-12)
    assert any(row["prediction"].startswith("-") for row in rows)
    table = pq.read_table(io.BytesIO(house.call("GET", f"/v1/jobs/{job.id}/results?format=parquet").body))
    assert table["prediction"].to_pylist() == pytest.approx(expected, rel=1e-12)


def test_inputs_pass_through_untouched(house: House) -> None:
    """A BOM and CRLF around records; quoted line ends, quotes and delimiters, spaces and other spellings inside."""
    records = [
        'a;1.50;3;gold;true;"two\r\nlines; and ""quotes"""; kept ;007',
        'b; 2.5 ;4;;False;"plain";"";1e3',
        "c;2.5e0;+4;gold;1;ünï;\t;0x10",
    ]
    header = "id;amount;visits;segment;active;note;extra;code"
    body = "\r\n".join([header, *records, ""]).encode("utf-8-sig")
    job = house.finished(house.upload(body, delimiter=";"))
    assert job.rows.succeeded == 3
    text = house.text(job.id, include="inputs", formulas="keep")
    assert text.startswith(header + ";prediction;probability;model_version\n")
    for record in records:
        assert f"\n{record};" in text
    rows = house.rows(job.id, delimiter=";", include="inputs", formulas="keep")
    assert [row["code"] for row in rows] == ["007", "1e3", "0x10"]
    assert rows[0]["note"] == 'two\r\nlines; and "quotes"'

    lines = [json.loads(line) for line in house.text(job.id, format="ndjson", include="inputs").splitlines()]
    assert [line["amount"] for line in lines] == ["1.50", " 2.5 ", "2.5e0"]
    table = pq.read_table(
        io.BytesIO(house.call("GET", f"/v1/jobs/{job.id}/results?format=parquet&include=inputs").body)
    )
    assert table["code"].to_pylist() == ["007", "1e3", "0x10"]
    assert table["prediction"].to_pylist() == [line["prediction"] for line in lines]


def test_records_that_came_as_json_keep_their_text(house: House) -> None:
    record = (
        '{"id": "a", "amount": 1.50, "visits": 3, "segment": null, "active": true, "note": "x", '
        '"big": 12345678901234567890.125, "huge": 1e999, "odd": "\\ud800", "more": [1.0, {"b": 2.50}]}'
    )
    job = house.finished(house.upload(record.encode(), "application/x-ndjson"))
    assert job.state == "succeeded"
    line = house.text(job.id, format="ndjson", include="inputs")
    assert line.startswith(record[:-1] + ',"prediction":')
    (row,) = house.rows(job.id, include="inputs")
    assert (row["amount"], row["big"], row["huge"], row["segment"]) == ("1.50", "12345678901234567890.125", "1e999", "")
    assert (row["active"], row["odd"], row["more"]) == ("true", "?", '[1.0, {"b": 2.50}]')


def test_names_that_the_caller_uses_too(house: House) -> None:
    names = [*HEADER, "prediction", "model_version"]
    job = house.finished(house.upload(csv_bytes(names, ["a", "1", "2", "gold", "true", "x", "mine", "too"])))
    expected = [*names, "scorehouse_prediction", "probability", "scorehouse_model_version"]
    (row,) = house.rows(job.id, include="inputs")
    assert list(row) == expected
    assert (row["prediction"], row["scorehouse_model_version"]) == ("mine", "1.0.0")
    (line,) = (json.loads(text) for text in house.text(job.id, format="ndjson", include="inputs").splitlines())
    assert list(line) == expected
    answer = house.call("GET", f"/v1/jobs/{job.id}/results?format=parquet&include=inputs")
    assert pq.read_table(io.BytesIO(answer.body)).column_names == expected


@pytest.mark.parametrize("delimiter", [",", ";", ":"])
def test_formulas_are_neutralised_and_numbers_are_not(house: House, delimiter: str) -> None:
    extras = ["=1+1", "+x", "@SUM(A1)", "-5", "+1.5e3", "-cmd", "plain", '"quoted"', "=a" + delimiter + "b"]
    lines = [["k", "-1", "2", "gold", "true", "x", extra] for extra in extras]
    lines[0][0] = "=key"
    body = csv_bytes([*HEADER, "=extra"], *lines, delimiter=delimiter)
    job = house.finished(house.upload(body, delimiter=delimiter))
    rows = house.rows(job.id, delimiter=delimiter, include="inputs")
    safe = ["'=1+1", "'+x", "'@SUM(A1)", "-5", "+1.5e3", "'-cmd", "plain", '"quoted"', "'=a" + delimiter + "b"]
    assert [row["'=extra"] for row in rows] == safe
    assert {row["amount"] for row in rows} == {"-1"}
    assert rows[0]["id"] == "'=key"
    kept = house.rows(job.id, delimiter=delimiter, include="inputs", formulas="keep")
    assert [row["=extra"] for row in kept] == extras
    assert house.rows(job.id)[0]["id"] == "'=key"


def test_errors_are_neutralised_too(house: House) -> None:
    job = house.finished(house.upload(csv_bytes(HEADER, ["=k", "=2+2", "2", "gold", "true", "x"])))
    assert job.state == "failed"
    (error,) = house.errors(job.id)
    assert (error["key"], error["raw"]) == ("=k", "=k,=2+2,2,gold,true,x")
    text = house.text(job.id, "errors")
    assert text.startswith("row,line,key,code,column,message,raw\n1,2,'=k,wrong_type,amount,")
    assert '"\'=k,=2+2,2,gold,true,x"' in text


def test_a_long_cell_that_is_passed_through(house: House) -> None:
    long = "=" + "x" * 300_000
    job = house.finished(house.upload(csv_bytes([*HEADER, "extra"], ["a", "1", "2", "gold", "true", "x", long])))
    assert job.state == "succeeded"
    (line,) = house.text(job.id, format="ndjson", include="inputs").splitlines()
    assert json.loads(line)["extra"] == long
    assert f",'{long}," in house.text(job.id, include="inputs")


def test_a_running_job_shows_its_results_up_to_the_first_gap(house: House) -> None:
    frame = customers(8_000, seed=12)
    job_id = house.upload_held(to_csv(frame), 1, 3)
    spans = house.query("SELECT number, rows FROM chunk WHERE job_id = :job ORDER BY number", job=job_id)
    assert len(spans) > 4
    open_rows = spans[1].rows + spans[3].rows
    running = house.until(lambda: (job := house.client.job(job_id)).rows.pending == open_rows and job)
    assert running.state == "running"
    assert running.rows.total == running.rows.succeeded + running.rows.pending == 8_000
    assert 0 < running.progress < 1
    assert [row["id"] for row in house.rows(job_id)] == frame["id"].tolist()[: spans[0].rows]
    house.let_go(job_id)
    assert house.client.wait(job_id, timeout=60).state == "succeeded"
    assert [row["id"] for row in house.rows(job_id)] == frame["id"].tolist()
