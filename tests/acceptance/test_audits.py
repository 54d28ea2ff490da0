"""Labels, audits, alerts, history and metrics, over HTTP against the whole stack."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from house import House
from prometheus_client.parser import text_string_to_metric_families
from sklearn.metrics import accuracy_score, f1_score, precision_score, roc_auc_score
from toys import Toy, customers, to_csv


def named(frame: pd.DataFrame, prefix: str) -> pd.DataFrame:
    return frame.assign(id=[f"{prefix}{number:05}" for number in range(len(frame))])


def score(house: House, frame: pd.DataFrame, as_of: str) -> str:
    job = house.finished(house.upload(to_csv(frame.drop(columns="left")), as_of=as_of))
    assert job.rows.succeeded == len(frame), job
    return job.id


def label(house: House, frame: pd.DataFrame, model: str = "toy") -> Any:
    body = to_csv(frame[["id", "left"]].rename(columns={"id": "key", "left": "label"}))
    answer = house.call("POST", "/v1/labels", body, {"Content-Type": "text/csv"}, query={"model": model})
    assert answer.status == 200, answer.body
    return answer.json


def column(document: dict[str, Any], name: str, statistic: str) -> dict[str, Any]:
    return next(each for each in document["columns"] if (each["name"], each["statistic"]) == (name, statistic))


def test_what_is_like_the_reference_does_not_drift_and_what_is_not_does(house: House, toy: Toy) -> None:
    same = named(toy.frame.sample(1500, replace=True, random_state=11), "d-same-")
    score(house, same, "2020-02-01T12:00:00Z")
    calm = house.client.audit("toy", "drift", window="1d", end="2020-02-02T00:00:00Z")
    assert (calm["status"], calm["rows"]) == ("ok", 1500)
    assert column(calm, "amount", "ks")["value"] < 0.1
    moved = same.assign(amount=same["amount"] + 30, segment="platinum", id=[f"x{key}" for key in same["id"]])
    score(house, moved, "2020-02-02T12:00:00Z")
    found = house.client.audit("toy", "drift", window="1d", end="2020-02-03T00:00:00Z")
    assert found["status"] == "critical"
    assert column(found, "amount", "ks")["status"] == "critical"
    assert column(found, "segment", "unseen_share")["status"] == "critical"
    assert column(found, "visits", "ks")["status"] == "ok"
    assert house.client.latest_audit("toy", "drift", "1d")["window"] == found["window"]


def test_nulls_where_there_were_none_are_told_of(house: House) -> None:
    """Rows without a value that must be there are row errors; the audit counts them too."""
    frame = named(customers(1000, seed=12), "n-")
    frame["visits"] = frame["visits"].astype(object)
    frame.loc[::5, "visits"] = None
    house.finished(house.upload(to_csv(frame.drop(columns="left")), as_of="2020-03-01T12:00:00Z"))
    found = house.client.audit("toy", "drift", window="1d", end="2020-03-02T00:00:00Z")
    assert found["status"] == "critical"
    assert column(found, "visits", "null_rate_difference")["value"] == pytest.approx(0.2)


def test_a_window_with_too_few_rows_says_so(house: House) -> None:
    score(house, named(customers(50, seed=13), "few-"), "2019-05-01T12:00:00Z")
    found = house.client.audit("toy", "drift", window="1h", end="2019-05-01T13:00:00Z")
    assert (found["status"], found["rows"]) == ("insufficient_data", 50)


def test_accuracy_is_that_of_scikit_learn_on_the_same_rows(house: House, toy: Toy) -> None:
    frame = named(customers(1200, seed=14), "a-")
    job_id = score(house, frame, "2020-04-01T12:00:00Z")
    before = house.client.audit("toy", "accuracy", window="1d", end="2020-04-02T00:00:00Z")
    assert (before["scored"], before["labelled"], before["status"]) == (1200, 0, "insufficient_data")
    assert before["estimated"]["accuracy"]["low"] <= before["estimated"]["accuracy"]["value"]
    assert label(house, frame)["matched"] == 1200
    found = house.client.audit("toy", "accuracy", window="1d", end="2020-04-02T00:00:00Z")
    scored = house.rows(job_id)
    guess = np.array([int(row["prediction"]) for row in scored])
    probability = np.array([float(row["probability"]) for row in scored])
    truth = frame["left"].to_numpy()
    metrics = {name: metric["value"] for name, metric in found["metrics"].items()}
    assert found["coverage"] == 1.0
    assert metrics["accuracy"] == pytest.approx(accuracy_score(truth, guess))
    assert metrics["precision"] == pytest.approx(precision_score(truth, guess, average="weighted"))
    assert metrics["f1"] == pytest.approx(f1_score(truth, guess, average="weighted"))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(truth, probability), abs=1e-4)
    assert found["status"] in {"ok", "warn", "critical"}
    assert found["reference"]["accuracy"] == pytest.approx(accuracy_score(toy.frame["left"], toy.predict(toy.frame)[0]))


def test_labels_may_come_twice_out_of_order_early_and_for_nobody(house: House) -> None:
    frame = named(customers(300, seed=15), "l-")
    early = label(house, frame)
    assert (early["received"], early["matched"], early["unmatched"]) == (300, 0, 300)
    score(house, frame, "2020-05-01T12:00:00Z")
    found = house.client.audit("toy", "accuracy", window="1d", end="2020-05-02T00:00:00Z")
    assert found["labelled"] == 300, "they waited for their predictions"
    again = label(house, frame)
    assert (again["matched"], again["unmatched"], again["replaced"]) == (300, 0, 300)
    labels = [
        {"key": "l-00000", "label": 1, "observed_at": "2031-01-02T00:00:00Z"},
        {"key": "l-00000", "label": 0, "observed_at": "2031-01-01T00:00:00Z"},
        {"key": "nobody", "label": 0},
        {"key": "l-00001", "label": "maybe"},
        {"label": 1},
    ]
    counts = house.client.put_labels("toy", labels)
    assert {name: counts[name] for name in ("received", "matched", "unmatched", "stale", "rejected")} == {
        "received": 5, "matched": 1, "unmatched": 1, "stale": 1, "rejected": 2,
    }  # fmt: skip
    assert [each["line"] for each in counts["rejections"]] == [4, 5]
    assert house.client.history("toy", "l-00000")["predictions"][0]["label"] == "1"
    assert house.client.audit("toy", "accuracy", window="1d", end="2020-05-02T00:00:00Z")["labelled"] == 300


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (b"", 422, "empty"),
        (b"key,label\n", 200, ""),
        (b"key,truth\nx,1\n", 422, "truth"),
        (b"key,label\nx,abc\n", 422, "not a number"),
        (b"key,label\nx\n", 422, "1 fields"),
        (b"\xff\xfek\0e\0y\0", 422, "UTF-16"),
    ],
)
def test_labels_that_cannot_be_read_are_refused_with_the_place(
    house: House, body: bytes, status: int, told: str
) -> None:
    answer = house.call("POST", "/v1/labels", body, {"Content-Type": "text/csv"}, query={"model": "toy"})
    assert answer.status == status, answer.body
    assert told in answer.body.decode()


def test_a_label_of_one_prediction_is_for_it_alone(house: House) -> None:
    record = {"amount": 50.0, "visits": 3, "segment": "gold", "active": True, "note": "fine"}
    first, second = (
        house.client.submit("toy", record, key="p-1", wait=30, as_of="2020-06-01T12:00:00Z") for _ in range(2)
    )
    assert first.result is not None
    house.client.put_labels("toy", [{"prediction_id": first.result["prediction_id"], "label": 1}])
    found = house.client.history("toy", "p-1")["predictions"]
    assert {each["job"]: each["label"] for each in found} == {first.id: "1", second.id: None}
    assert found[0]["inputs"]["amount"] == 50.0
    unknown = {"prediction_id": f"{first.id}:99", "label": 1}
    assert house.client.put_labels("toy", [unknown])["unmatched"] == 1


def test_an_alert_fires_on_the_second_bad_window_and_is_acknowledged(house: House, toys: dict[str, Toy]) -> None:
    data = toys["strict"].frame
    for day in range(1, 4):
        frame = pd.concat([data] * 3, ignore_index=True)
        frame = frame.assign(amount=frame["amount"] * 1000, id=[f"al-{day}-{place}" for place in range(len(frame))])
        body = to_csv(frame[["id", "amount", "segment"]])
        house.finished(house.upload(body, model="strict", as_of=f"2020-07-{day:02}T12:00:00Z"))

    def audited(day: int) -> list[dict[str, Any]]:
        house.client.audit("strict", "drift", window="1d", end=f"2020-07-{day + 1:02}T00:00:00Z", alert=True)
        return [each for each in house.client.alerts("strict") if each["check"] == "ks" and each["column"] == "amount"]

    assert [each["state"] for each in audited(1)] == ["pending"]
    assert [each["state"] for each in audited(1)] == ["pending"], "the same window counts once"
    (firing,) = audited(2)
    assert (firing["state"], firing["severity"]) == ("firing", "critical")
    assert house.client.acknowledge(firing["id"])["state"] == "acknowledged"
    assert house.call("POST", f"/v1/alerts/{firing['id']}/ack").status == 409
    assert [each["state"] for each in audited(3)] == ["acknowledged"]
    events = house.call("GET", f"/v1/alerts/{firing['id']}").json["events"]
    assert [each["to"] for each in events] == ["acknowledged", "firing", "pending"]
    path = f"/v1/alerts/{firing['id']}"
    told = house.until(lambda: house.call("GET", path).json["events"][1]["deliveries"])
    assert [each["channel"] for each in told] == ["log"]


def test_the_domain_classifier_sees_what_no_column_shows(house: House) -> None:
    frame = named(customers(2000, seed=16), "m-")
    together = frame.assign(amount=np.sort(frame["amount"]), visits=np.sort(frame["visits"]))
    score(house, together, "2020-08-01T12:00:00Z")
    assert house.client.audit("toy", "drift", window="1d", end="2020-08-02T00:00:00Z")["status"] == "ok"
    found = house.client.audit("toy", "domain", window="1d", end="2020-08-02T00:00:00Z")
    # The toys' reference has 400 rows, too few to judge.
    assert found["status"] == "insufficient_data"


def test_metrics_count_each_durable_row_once(house: House) -> None:
    def samples() -> dict[tuple[str, ...], float]:
        answer = house.call("GET", "/metrics", headers={"Authorization": ""})
        assert answer.status == 200
        return {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(answer.body.decode())
            for sample in family.samples
        }

    counter = ("ml_predictions_total", "1.0.0", "jobs", "toy")
    before = samples()
    frame = named(customers(321, seed=17), "c-")
    score(house, frame, "2020-09-01T12:00:00Z")
    after = samples()
    assert after[counter] - before.get(counter, 0.0) == 321
    assert after["scorehouse_up",] == 1
    assert after["scorehouse_workers", "bulk"] == 2
    house.until(lambda: not house.query("SELECT 1 FROM chunk_profile LIMIT 1"))  # rolled up
    assert samples()[counter] == after[counter]
    assert ("ml_prediction_duration_seconds_count", "1.0.0", "jobs", "toy") in after
    assert any(name == "scorehouse_http_requests_total" for name, *_ in after)


def test_a_schedule_is_kept_and_what_cannot_be_is_refused(house: House) -> None:
    assert house.client.audit_policy("shades")["every_hours"] == 1
    assert house.client.set_audit_policy("shades", every_hours=6, horizon_days=30, negative_label="mid") == {
        "every_hours": 6, "window_hours": 24, "enabled": True, "tolerance": 0.05, "horizon_days": 30,
        "negative_label": "mid",
    }  # fmt: skip
    answer = house.call("PUT", "/v1/models/shades/audit-policy", {"horizon_days": 30})
    assert answer.status == 422
    assert "go together" in answer.told


def test_another_tenant_sees_none_of_it(house: House) -> None:
    for path in ("drift", "accuracy", "audits", "audit-policy"):
        assert house.call("GET", f"/v1/models/toy/{path}", tenant="other").status == 404
    assert house.call("GET", "/v1/predictions", tenant="other", query={"model": "toy", "key": "a-00001"}).status == 404
    assert house.call("GET", "/v1/alerts", tenant="other").json == {"alerts": []}
    answer = house.call("POST", "/v1/labels", [{"key": "a-00001", "label": 1}], tenant="other", query={"model": "toy"})
    assert answer.status == 404
