"""Submitting records as JSON, and polling for what becomes of them."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from house import Answer, House
from toys import COLUMNS, Toy, customers

_WAITING_FOR_A_LOCK = "SELECT count(*) FROM pg_locks WHERE NOT granted"
RECORD = {"amount": 12.5, "visits": 3, "segment": "gold", "active": True, "note": "late again"}


def records_of(frame: Any) -> list[dict[str, Any]]:
    """A frame as JSON records; nulls are null."""
    return [
        {name: None if value != value else value for name, value in record.items()}  # noqa: PLR0124 - NaN is not itself
        for record in json.loads(frame.to_json(orient="records"))
    ]


def test_one_record_is_accepted_and_polled(house: House, toy: Toy) -> None:
    submitted = house.submit(model="toy", inputs=RECORD, key="c-1", metadata={"run": "nightly"}, priority="high")
    assert submitted.status == 202
    assert submitted.headers["Location"] == submitted.json["links"]["self"] == f"/v1/jobs/{submitted.json['id']}"
    assert submitted.headers["Retry-After"] == "1"
    assert "Preference-Applied" not in submitted.headers
    polled = house.call("GET", submitted.headers["Location"], query={"wait": 20})
    job = polled.json
    assert polled.status == 200
    assert "Retry-After" not in polled.headers
    assert (job["kind"], job["state"], job["lane"]) == ("single", "succeeded", "interactive")
    assert (job["model"], job["model_version"], job["metadata"]) == ("toy", "1.0.0", {"run": "nightly"})
    assert job["digest"].startswith("sha256:")
    assert job["rows"] == {"total": 1, "succeeded": 1, "errored": 0, "canceled": 0, "pending": 0}
    assert job["progress"] == 1.0
    frame = customers(1).assign(**RECORD)
    labels, probabilities = toy.predict(frame)
    result = job["result"]
    assert (result["key"], result["prediction"], result["model_version"]) == ("c-1", labels[0], "1.0.0")
    assert result["probability"] == pytest.approx(probabilities[0].tolist(), abs=1e-12)
    assert result["confidence"] == max(result["probability"])
    assert result["timestamp"].endswith("Z")


def test_prefer_wait_answers_with_the_finished_job(house: House) -> None:
    answer = house.call("POST", "/v1/jobs", {"model": "toy", "inputs": RECORD}, {"Prefer": "respond-async, wait=10"})
    assert answer.status == 200
    assert answer.headers["Preference-Applied"] == "wait=10"
    assert answer.json["state"] == "succeeded"
    assert answer.json["result"]["prediction"] in {0, 1}


def test_many_records_come_back_in_order_as_the_model_scores_them(house: House, toy: Toy) -> None:
    frame = customers(500, seed=3)
    job = house.finished(house.submit(model="toy", inputs=records_of(frame[["id", *COLUMNS]])))
    assert (job.kind, job.lane, job.state, job.rows.succeeded) == ("batch", "bulk", "succeeded", 500)
    rows = house.rows(job.id)
    labels, probabilities = toy.predict(frame)
    assert [row["id"] for row in rows] == frame["id"].tolist()
    assert [int(row["prediction"]) for row in rows] == labels
    assert [float(row["probability"]) for row in rows] == pytest.approx(probabilities[:, 1].tolist(), abs=1e-12)


def test_keys_of_each_kind_come_back(house: House) -> None:
    with_keys = house.finished(house.submit(model="toy", inputs=[RECORD, RECORD], keys=["a", "b"]))
    assert [row["key"] for row in house.rows(with_keys.id)] == ["a", "b"]
    named = [{**RECORD, "code": "x"}, {**RECORD, "code": 7}, RECORD]
    by_column = house.finished(house.submit(model="toy", inputs=named, key_column="code"))
    assert [row["code"] for row in house.rows(by_column.id)] == ["x", "7", ""]
    without = house.finished(house.submit(model="toy", inputs=[RECORD, RECORD]))
    assert [row["row"] for row in house.rows(without.id)] == ["1", "2"]


def test_a_list_without_records_is_a_job_that_has_succeeded(house: House) -> None:
    answer = house.submit(model="toy", inputs=[])
    assert (answer.status, answer.json["state"], answer.json["rows"]["total"]) == (202, "succeeded", 0)


def test_a_record_that_cannot_be_scored_costs_itself_only(house: House) -> None:
    body = json.dumps({"model": "toy", "inputs": [RECORD, RECORD, {**RECORD, "visits": "3"}, RECORD]}).encode()
    body = body.replace(b"12.5", b"1e999", 1)
    job = house.finished(house.call("POST", "/v1/jobs", body, {"Content-Type": "application/json"}))
    assert (job.state, job.rows.succeeded, job.rows.errored) == ("completed_with_errors", 2, 2)
    told = [(error["row"], error["code"], error["column"]) for error in house.errors(job.id)]
    assert told == [(1, "non_finite", "amount"), (3, "wrong_type", "visits")]
    assert [row["row"] for row in house.rows(job.id)] == ["2", "4"]


def test_a_single_that_fails_says_why(house: House) -> None:
    job = house.finished(house.submit(model="toy", inputs={**RECORD, "amount": None}))
    assert job.state == "failed"
    assert job.error is not None
    assert "missing_value" in job.error
    assert "amount" in job.error
    assert job.result is None


def test_wrong_columns_are_all_named_with_the_nearest_match(house: House) -> None:
    wrong = {"Amount ": 1.5, "vists": 3, "segment": "gold", "active": True, "comment": "x"}
    answer = house.submit(model="toy", inputs=wrong)
    assert answer.status == 422
    assert answer.pointers == ["#/inputs/amount", "#/inputs/visits", "#/inputs/note"]
    told = answer.told
    assert "'amount' is missing; did you mean 'Amount '" in told
    assert "'visits' is missing; did you mean 'vists'" in told
    assert "column 'note' is missing\n" in told + "\n"


def test_a_model_that_is_not_there_or_not_deployed(house: House, toys: dict[str, Toy]) -> None:
    unknown = house.submit(model="toys", inputs=RECORD)
    assert unknown.status == 404
    assert "there is no model 'toys'; there are: " in unknown.told
    assert all(name in unknown.told for name in toys)
    version = house.submit(model="toy", inputs=RECORD, version="9.9.9")
    assert version.status == 404
    assert "there are: 1.0.0" in version.told
    idle = toys["prices"]
    house.client.register_version("idle", "1.0.0", idle.artefact, idle.reference, key="id", target="price", trust=True)
    undeployed = house.submit(model="idle", inputs={"amount": 1.0, "visits": 2})
    assert undeployed.status == 409
    assert "no production version; deploy one of: 1.0.0" in undeployed.told
    explicit = house.finished(house.submit(model="idle", inputs={"amount": 1.0, "visits": 2}, version="1.0.0"))
    assert explicit.state == "succeeded"


@pytest.mark.parametrize(
    ("change", "pointer", "told"),
    [
        ({"inputs": 5}, "#/inputs", "must be a record (a JSON object) or a list of records"),
        ({"inputs": [RECORD, 5]}, "#/inputs", "entry 2 of the list is none"),
        ({"inputs": {**RECORD, "a\0": 1}}, "#/inputs", "NUL"),
        ({"inputs": {**RECORD, "a\ud800": 1}}, "#/inputs", "lone surrogate"),
        ({"inputs": {**RECORD, "note": "\ud800"}}, "#/inputs/0", "lone surrogate"),
        ({"metadata": {"a": "\0"}}, "#/metadata/a", "NUL"),
        ({"metadata": {"a": 1}}, "#/metadata/a", "valid string"),
        ({"metadata": {str(number): "" for number in range(17)}}, "#/metadata", "at most 16"),
        ({"priority": "urgent"}, "#/priority", "'low', 'normal' or 'high'"),
        ({"kye": "a"}, "#/kye", "not known here"),
        ({"key_column": "nowhere"}, "#/key_column", "in no record"),
        ({"key": "a", "key_column": "note"}, "#", "only one of"),
        ({"inputs": [RECORD], "keys": ["a", "b"]}, "#", "must match"),
        ({"version": "1"}, "#/version", "match pattern"),
    ],
)
def test_a_request_that_is_wrong_is_told_where(house: House, change: dict[str, Any], pointer: str, told: str) -> None:
    answer = house.submit(**{"model": "toy", "inputs": RECORD, **change})
    assert (answer.status, answer.headers["Content-Type"]) == (422, "application/problem+json")
    assert pointer in answer.pointers
    assert told in answer.told


def test_more_than_fits_is_refused(house: House) -> None:
    long = house.submit(model="toy", inputs={**RECORD, "more": "x" * 1_100_000})
    assert (long.status, "record 1 is longer than the 1,048,576 bytes" in long.told) == (413, True)
    many = house.submit(model="toy", inputs=[{"amount": 1}] * 10_001)
    assert (many.status, "10,001 records" in many.told) == (413, True)
    body = house.call("POST", "/v1/jobs", b"[" + b" " * 17_000_000, {"Content-Type": "application/json"})
    assert (body.status, "upload a file" in body.told) == (413, True)
    wide = house.submit(model="toy", inputs={**RECORD, **{f"c{number}": 0 for number in range(2_000)}})
    assert (wide.status, "2,005 different members" in wide.told) == (422, True)


def test_the_same_request_with_the_same_key_is_the_same_job(house: House) -> None:
    key = {"Idempotency-Key": "again"}
    first = house.call("POST", "/v1/jobs", {"model": "toy", "inputs": RECORD}, key)
    second = house.call("POST", "/v1/jobs", {"inputs": RECORD, "model": "toy"}, key)
    assert (first.status, second.status) == (202, 202)
    assert first.json["id"] == second.json["id"]
    other = house.call("POST", "/v1/jobs", {"model": "toy", "inputs": {**RECORD, "visits": 4}}, key)
    assert other.status == 422
    assert other.pointers == ["#/header/Idempotency-Key"]
    assert "was used for another request" in other.told
    theirs = house.call("POST", "/v1/jobs", {"model": "toy", "inputs": RECORD}, key, tenant="other")
    assert theirs.status == 404  # the model; the key of another tenant is nobody's business


def test_submissions_at_the_same_time_are_stored_together_and_answered_apart(house: House) -> None:
    def submit(number: int) -> Answer:
        """Of four: a record of its own, one that has its key in common with others, no such model, and a column too few."""
        wanted = {
            "model": "nobody" if number % 4 == 2 else "toy",
            "metadata": {"number": str(number)},
            "inputs": RECORD,
        }
        if number % 4 == 1:
            return house.call("POST", "/v1/jobs", {**wanted, "metadata": {}}, {"Idempotency-Key": "together"})
        return house.submit(**wanted if number % 4 != 3 else {**wanted, "inputs": {"visits": 1}})

    # The first one in each process of the API waits for this lock, and the others for them.
    with ThreadPoolExecutor(24) as threads, house.engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1 FROM tenant_usage WHERE tenant = 'default' FOR UPDATE")
        answers = [threads.submit(submit, number) for number in range(24)]
        house.until(lambda: house.query(_WAITING_FOR_A_LOCK)[0].count >= 2)
        connection.rollback()
    found = [answer.result() for answer in answers]
    assert [answer.status for answer in found] == 6 * [202, 202, 404, 422]
    assert [answer.json["metadata"]["number"] for answer in found[::4]] == [str(number) for number in range(0, 24, 4)]
    assert len({answer.json["id"] for answer in found[1::4]}) == 1
    assert {house.finished(answer).state for answer in found if answer.status == 202} == {"succeeded"}
    began = {answer.json["created_at"] for answer in found[::4]}
    assert len(began) < len(found[::4]), "each of them had a transaction of its own"


def test_a_hundred_submits_at_once_with_one_key_make_one_job(house: House) -> None:
    def submit(_: int) -> tuple[int, str]:
        answer = house.call("POST", "/v1/jobs", {"model": "toy", "inputs": RECORD}, {"Idempotency-Key": "crowd"})
        return answer.status, answer.json["id"]

    with ThreadPoolExecutor(100) as threads:
        answers = set(threads.map(submit, range(100)))
    assert len(answers) == 1
    assert house.query("SELECT count(*) FROM job WHERE idempotency_key = 'crowd'")[0].count == 1
    house.client.wait(answers.pop()[1], timeout=30)
