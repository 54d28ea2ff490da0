"""Jobs after their submission: listed, watched, canceled, retried."""

from __future__ import annotations

import json
from typing import Any

from house import Answer, House
from toys import COLUMNS, csv_bytes, customers, to_csv

RECORD = {"amount": 12.5, "visits": 3, "segment": "gold", "active": True, "note": "late again"}
STRICT = ["id", "amount", "segment"]


def cancel(house: House, job_id: str) -> Answer:
    return house.call("POST", f"/v1/jobs/{job_id}/cancel")


def events(house: House, job_id: str, **headers: str) -> list[dict[str, Any]]:
    """The server-sent events of a job, up to the end of the stream."""
    answer = house.call("GET", f"/v1/jobs/{job_id}/events", headers=headers)
    assert answer.headers["Content-Type"].startswith("text/event-stream")
    blocks = [block for block in answer.body.decode().split("\n\n") if block.startswith("id: ")]
    found = [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]
    return [{**event, "data": json.loads(event["data"])} for event in found]


def test_jobs_are_listed_newest_first_page_by_page(house: House) -> None:
    ids = [house.submit(model="prices", inputs={"amount": 1.0, "visits": n}).json["id"] for n in range(5)]
    first = house.call("GET", "/v1/jobs", query={"model": "prices", "limit": 2}).json
    second = house.call("GET", "/v1/jobs", query={"model": "prices", "limit": 2, "after": first["next"]}).json
    assert [job["id"] for page in (first, second) for job in page["jobs"]] == ids[:0:-1]
    for job_id in ids:
        house.client.wait(job_id, timeout=30)
    succeeded = [job.id for job in house.client.jobs(state="succeeded", model="prices", page_size=3)]
    assert succeeded[:5] == ids[::-1]
    assert list(house.client.jobs(state="canceled", model="prices")) == []
    assert house.call("GET", "/v1/jobs", query={"model": "prices", "limit": 500}).json["next"] is None


def test_cancel_keeps_what_is_scored_and_may_be_repeated(house: House) -> None:
    job_id = house.upload_held(to_csv(customers(8_000, seed=21)), 1)
    spans = house.query("SELECT number, rows FROM chunk WHERE job_id = :job ORDER BY number", job=job_id)
    house.until(lambda: house.client.job(job_id).rows.pending == spans[1].rows)
    first = cancel(house, job_id)
    assert (first.status, first.json["state"]) == (200, "canceled")
    rows = first.json["rows"]
    assert (rows["canceled"], rows["succeeded"], rows["pending"]) == (spans[1].rows, 8_000 - spans[1].rows, 0)
    again = cancel(house, job_id)
    assert (again.status, again.json["rows"]) == (200, rows)
    assert len(house.rows(job_id)) == rows["succeeded"]
    house.let_go(job_id)
    assert house.client.job(job_id).state == "canceled"


def test_a_job_that_is_over_cannot_be_canceled(house: House) -> None:
    job = house.finished(house.submit(model="toy", inputs=RECORD))
    answer = cancel(house, job.id)
    assert answer.status == 409
    assert "is over already (succeeded)" in answer.told


def test_cancel_works_while_no_worker_does(house: House) -> None:
    with house.paused_workers():
        file = house.upload(to_csv(customers(8_000, seed=22))).json["id"]
        single = house.submit(model="toy", inputs=RECORD).json["id"]
        queued = house.client.job(single)
        assert queued.state == "queued"
        assert queued.queue_position is not None
        for job_id in (file, single):
            assert cancel(house, job_id).json["state"] == "canceled"
        assert house.client.job(file).rows.canceled == 8_000
    for job_id in (file, single):
        assert house.client.job(job_id).state == "canceled"
    assert house.finished(house.submit(model="toy", inputs=RECORD)).state == "succeeded"


def test_only_the_failed_rows_are_retried(house: House) -> None:
    lines = [[f"k{n}", str(n), "platinum" if n % 7 == 0 else "gold"] for n in range(1, 101)]
    job = house.finished(house.upload(csv_bytes(STRICT, *lines), model="strict", metadata='{"run": "1"}'))
    failed = [line[0] for line in lines if line[2] == "platinum"]
    assert (job.state, job.rows.errored) == ("completed_with_errors", len(failed))
    errors = house.errors(job.id)
    assert [(error["key"], error["code"]) for error in errors] == [(key, "model_error") for key in failed]
    assert "platinum" in errors[0]["message"]
    assert [row["id"] for row in house.rows(job.id)] == [line[0] for line in lines if line[2] == "gold"]

    answer = house.call("POST", f"/v1/jobs/{job.id}/retry")
    assert answer.status == 202
    child = house.finished(answer)
    assert (child.parent, child.kind, child.metadata) == (job.id, "batch", {"run": "1"})
    assert (child.state, child.rows.total, child.rows.errored) == ("failed", len(failed), len(failed))
    assert [(error["row"], error["key"]) for error in house.errors(child.id)] == list(enumerate(failed, 1))
    assert [error["raw"] for error in house.errors(child.id)] == [error["raw"] for error in errors]


def test_there_must_be_something_to_retry(house: House) -> None:
    job = house.finished(house.submit(model="toy", inputs=RECORD))
    nothing = house.call("POST", f"/v1/jobs/{job.id}/retry")
    assert (nothing.status, "no failed rows" in nothing.told) == (409, True)
    running = house.upload_held(to_csv(customers(5)))
    early = house.call("POST", f"/v1/jobs/{running}/retry")
    assert (early.status, "wait for its end" in early.told) == (409, True)
    assert cancel(house, running).status == 200


def test_a_single_is_retried_with_another_version_of_the_caller_s_choice(house: House) -> None:
    job = house.finished(house.submit(model="strict", inputs={"amount": 1.0, "segment": "platinum"}, key="p"))
    assert job.state == "failed"
    unknown = house.call("POST", f"/v1/jobs/{job.id}/retry", {"version": "7.0.0"})
    assert (unknown.status, "there are: 1.0.0" in unknown.told) == (404, True)
    child = house.finished(house.call("POST", f"/v1/jobs/{job.id}/retry", {"version": "1.0.0"}))
    assert (child.kind, child.state, child.parent) == ("single", "failed", job.id)


def test_events_reach_the_end(house: House) -> None:
    job_id = house.upload_held(to_csv(customers(8_000, seed=23)), 2)
    house.until(lambda: house.client.job(job_id).rows.succeeded > 0)
    house.let_go(job_id)
    told = events(house, job_id)
    assert [event["event"] for event in told[:-1]] == ["progress"] * (len(told) - 1)
    assert told[-1]["event"] == "end"
    assert told[-1]["data"] == house.call("GET", f"/v1/jobs/{job_id}").json
    done = [event["data"]["rows"]["succeeded"] for event in told]
    assert done == sorted(done)
    missed = events(house, job_id, **{"Last-Event-ID": told[0]["id"]})
    assert [event["event"] for event in missed] == ["end"]
    assert [event["event"] for event in events(house, job_id, **{"Last-Event-ID": told[-1]["id"]})] == ["end"]


def test_counts_balance_at_every_moment(house: House) -> None:
    frame = customers(8_000, seed=24)
    frame.loc[::100, "segment"] = "gold"
    body = to_csv(frame[["id", *COLUMNS]]).replace(b",gold,", b",gold,odd,", 30)  # a field too many
    answer = house.upload(body)
    seen = [answer.json["rows"]]
    house.client.wait(answer.json["id"], timeout=60, progress=lambda job: seen.append(job.raw["rows"]))
    for rows in seen:
        assert rows["total"] == 8_000
        assert rows["total"] == rows["succeeded"] + rows["errored"] + rows["canceled"] + rows["pending"]
    assert (seen[-1]["errored"], seen[-1]["succeeded"]) == (30, 7_970)


def test_a_job_from_before_the_horizon_is_gone(house: House) -> None:
    old = "01700000-0000-7000-8000-000000000000"  # of 2020
    for path in (f"/v1/jobs/{old}", f"/v1/jobs/{old}/results", f"/v1/jobs/{old}/events"):
        answer = house.call("GET", path)
        assert (answer.status, "90 days" in answer.told) == (410, True)
    assert house.call("GET", "/v1/jobs/01700000-0000-4000-8000-000000000000").status == 404
