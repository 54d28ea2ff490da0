"""The synchronous shape, health, and the documentation that the API gives of itself."""

from __future__ import annotations

import pytest
from house import House
from toys import Toy, customers

RECORD = {"amount": 12.5, "visits": 3, "segment": "gold", "active": True, "note": "late again"}


def test_predict_answers_with_the_score(house: House, toy: Toy) -> None:
    answer = house.call("POST", "/predict", {**RECORD, "id": "c-9"}, query={"model": "toy"})
    assert answer.status == 200
    labels, probabilities = toy.predict(customers(1).assign(**RECORD))
    body = answer.json
    assert set(body) == {
        "prediction_id",
        "key",
        "prediction",
        "probability",
        "confidence",
        "model_version",
        "timestamp",
    }
    assert (body["key"], body["prediction"], body["model_version"]) == ("c-9", labels[0], "1.0.0")
    assert body["probability"] == pytest.approx(probabilities[0].tolist(), abs=1e-12)


def test_predict_takes_customer_id_for_the_key(house: House) -> None:
    answer = house.call(
        "POST", "/predict", {"amount": 50.0, "visits": 3, "customer_id": "C-1017"}, query={"model": "shades"}
    )
    assert answer.json["customer_id"] == "C-1017"
    assert "key" not in answer.json
    assert answer.json["prediction"] == "calm, low"


def test_predict_batch_keeps_the_place_of_a_bad_record(house: House) -> None:
    records = [{**RECORD, "id": "a"}, {**RECORD, "id": "b", "amount": "much"}, {**RECORD, "id": "c"}]
    answer = house.call("POST", "/predict/batch", records, query={"model": "toy"})
    assert answer.status == 200
    assert answer.json["batch_size"] == 3
    first, second, third = answer.json["predictions"]
    assert [first["key"], second["key"], third["key"]] == ["a", "b", "c"]
    assert "wrong_type" in second["error"]
    assert "prediction" not in second
    assert first["prediction"] == third["prediction"]
    assert house.call("POST", "/predict/batch", [], query={"model": "toy"}).json == {"predictions": [], "batch_size": 0}


def test_predict_refuses_what_it_cannot_score(house: House) -> None:
    bad = house.call("POST", "/predict", {**RECORD, "amount": "much"}, query={"model": "toy"})
    assert bad.status == 422
    assert "wrong_type: column 'amount'" in bad.told
    columns = house.call("POST", "/predict", {"amount": 1}, query={"model": "toy"})
    assert (columns.status, "#/inputs/visits" in columns.pointers) == (422, True)
    for path, body in (("/predict", [RECORD]), ("/predict/batch", RECORD), ("/predict/batch", [1])):
        assert house.call("POST", path, body, query={"model": "toy"}).status == 422
    unnamed = house.call("POST", "/predict", RECORD)
    assert (unnamed.status, "name the model, for example ?model=" in unnamed.told) == (422, True)
    long_key = house.call("POST", "/predict", RECORD, {"Idempotency-Key": "x" * 300}, query={"model": "toy"})
    assert (long_key.status, long_key.pointers) == (422, ["#/header/Idempotency-Key"])


def test_health_says_what_is_there(house: House, toys: dict[str, Toy]) -> None:
    for path in ("/health/live", "/health/ready"):
        answer = house.call("GET", path, headers={"Authorization": ""})
        assert (answer.status, answer.json["status"]) == (200, "ok")
    house.until(lambda: house.call("GET", "/health").status == 200)
    whole = house.call("GET", "/health", headers={"Authorization": ""}).json
    assert (whole["status"], whole["database"], whole["workers"]) == ("ok", "ok", 3)
    assert {f"{name}@1.0.0" for name in toys} <= {name for name, state in whole["models"].items() if state == "ready"}


def test_the_documentation_loads_with_all_its_assets(house: House) -> None:
    page = house.call("GET", "/docs", headers={"Authorization": ""})
    assert page.status == 200
    assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
    for name, kind in (
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("start.js", "text/javascript"),
    ):
        assert f'"docs/{name}"' in page.body.decode()
        asset = house.call("GET", f"/docs/{name}")
        assert (asset.status, asset.headers["Content-Type"].split(";")[0]) == (200, kind)
        assert asset.body
    assert house.call("GET", "/docs/other.js").status == 404
    assert house.call("GET", "/openapi.json").json["info"]["title"] == "Scorehouse"
