"""Registering, deploying and rolling back versions on the running stack."""

from __future__ import annotations

from pathlib import Path

import joblib
import pytest
from house import House, multipart
from sklearn.linear_model import LinearRegression
from toys import Toy, customers, to_csv

from scorehouse_client import DeploymentFailed, RegistrationFailed, ScorehouseApiError


@pytest.fixture
def prices(toys: dict[str, Toy]) -> Toy:
    return toys["prices"]


@pytest.fixture
def dearer(prices: Toy, tmp_path: Path) -> Path:
    """An artefact whose every price is 1000 more."""
    model = joblib.load(prices.artefact)
    model.intercept_ += 1000.0
    joblib.dump(model, tmp_path / "dearer.joblib")
    return tmp_path / "dearer.joblib"


def register(house: House, name: str, version: str, artefact: Path, prices: Toy) -> None:
    house.client.register_version(name, version, artefact, prices.reference, key="id", target="price", trust=True)


def test_a_deployment_in_mid_job_leaves_the_job_with_its_version(house: House, prices: Toy, dearer: Path) -> None:
    register(house, "moving", "1.0.0", prices.artefact, prices)
    register(house, "moving", "2.0.0", dearer, prices)
    house.client.deploy("moving", "1.0.0")
    frame = customers(12_000, seed=31)
    job_id = house.upload_held(to_csv(frame[["id", "amount", "visits"]]), 1, 2, model="moving")
    house.until(lambda: house.client.job(job_id).rows.succeeded > 0)
    assert house.client.deploy("moving", "2.0.0", why="dearer").from_version == "1.0.0"
    later = house.finished(house.submit(model="moving", inputs={"amount": 1.0, "visits": 1}))
    house.let_go(job_id)
    job = house.client.wait(job_id, timeout=60)
    assert (job.state, job.model_version, later.model_version) == ("succeeded", "1.0.0", "2.0.0")
    rows = house.rows(job_id)
    assert {row["model_version"] for row in rows} == {"1.0.0"}
    expected, _ = prices.predict(frame)
    assert [float(row["prediction"]) for row in rows] == pytest.approx(expected, rel=1e-12)
    assert later.result is not None
    assert later.result["prediction"] == pytest.approx(3.0 - 1.7 + 1 + 1000)

    back = house.client.rollback("moving", why="too dear")
    assert (back.from_version, back.to_version, back.why) == ("2.0.0", "1.0.0", "too dear")
    assert house.client.model("moving").aliases["production"] == "1.0.0"
    assert [found.raw["kind"] for found in house.client.deployments("moving")] == ["rollback", "deploy", "deploy"]


def test_a_pickle_needs_trust(house: House, prices: Toy) -> None:
    with pytest.raises(ScorehouseApiError) as caught:
        house.client.register_version("untrusted", "1.0.0", prices.artefact, prices.reference, key="id")
    assert caught.value.status == 422
    assert caught.value.errors[0]["pointer"] == "#/trust"
    assert house.call("GET", "/v1/models/untrusted").status == 404


def test_a_reference_that_does_not_suit_fails_with_the_reason(house: House, prices: Toy, tmp_path: Path) -> None:
    reference = tmp_path / "reference.csv"
    reference.write_bytes(to_csv(prices.frame.rename(columns={"visits": "vists"})))
    with pytest.raises(RegistrationFailed) as caught:
        house.client.register_version("unsuited", "1.0.0", prices.artefact, reference, key="id", trust=True)
    assert "'visits' is missing; did you mean 'vists'" in str(caught.value)
    version = house.call("GET", "/v1/models/unsuited/versions/1.0.0").json
    assert (version["state"], version["signature"]) == ("failed", None)
    refused = house.call("POST", "/v1/models/unsuited/deployments", {"version": "1.0.0"})
    assert (refused.status, "is failed, it cannot score" in refused.told) == (409, True)


def test_a_version_is_immutable(house: House, prices: Toy, dearer: Path) -> None:
    register(house, "fixed", "1.0.0", prices.artefact, prices)
    before = house.client.version("fixed", "1.0.0")
    register(house, "fixed", "1.0.0", prices.artefact, prices)
    with pytest.raises(ScorehouseApiError) as caught:
        register(house, "fixed", "1.0.0", dearer, prices)
    assert caught.value.status == 409
    assert "versions are immutable" in caught.value.detail
    assert house.client.version("fixed", "1.0.0").digest == before.digest


def test_an_artefact_that_was_changed_is_not_loaded(house: House, prices: Toy, tmp_path: Path) -> None:
    joblib.dump(
        LinearRegression().fit(prices.frame[["amount", "visits"]], -prices.frame["price"]), tmp_path / "m.joblib"
    )
    register(house, "damaged", "1.0.0", prices.artefact, prices)
    register(house, "damaged", "2.0.0", tmp_path / "m.joblib", prices)
    house.client.deploy("damaged", "1.0.0")
    house.until(lambda: house.call("GET", "/health").status == 200)
    digest = house.client.version("damaged", "2.0.0").digest.removeprefix("sha256:")
    stored = house.stack.data_dir / "artefacts" / "sha256" / digest[:2] / digest
    content = bytearray(stored.read_bytes())
    content[100] ^= 1
    stored.write_bytes(content)

    job_id = house.submit(model="damaged", inputs={"amount": 1.0, "visits": 1}, version="2.0.0").json["id"]
    refusals = "SELECT refused FROM worker_heartbeat WHERE refused ? :digest"
    reason = house.until(lambda: house.query(refusals, digest=f"sha256:{digest}"))[0].refused[f"sha256:{digest}"]
    assert "was changed or damaged" in reason
    assert house.client.job(job_id).rows.pending == 1
    house.client.cancel(job_id)

    with pytest.raises(DeploymentFailed) as caught:
        house.client.deploy("damaged", "2.0.0")
    assert any(told.endswith(f"refuses: {reason}") for told in caught.value.deployment.reasons)
    assert house.client.model("damaged").aliases["production"] == "1.0.0"
    assert house.call("GET", "/health").status == 200

    # As if the file had been damaged when it was in production already.
    point = "UPDATE model_alias SET version_id = (SELECT id FROM model_version WHERE digest = :digest AND version = '2.0.0')"
    of_model = " WHERE model_id = (SELECT id FROM model WHERE name = 'damaged')"
    house.query(point + of_model, digest=f"sha256:{digest}")
    told = house.until(lambda: (answer := house.call("GET", "/health")).status == 503 and answer)
    assert (told.json["status"], told.json["models"]["damaged@2.0.0"]) == ("unavailable", reason)
    assert house.call("GET", "/health/ready").status == 200

    # Restored from a backup, it is deployed without anybody restarting a worker.
    content[100] ^= 1
    stored.write_bytes(content)
    assert house.client.deploy("damaged", "2.0.0").state == "live"
    house.until(lambda: house.call("GET", "/health").status == 200)


@pytest.mark.parametrize(
    ("parts", "pointer", "told"),
    [
        ([("version", None, b"1")], "#/version", "match pattern"),
        ([("version", None, b"1.0.0"), ("trsut", None, b"true")], "#/trsut", "not known here"),
        ([("version", None, b"1.0.0"), ("reference", "r.csv", b"a\n1\n")], "#/artefact", "is required"),
        ([("version", None, b"1.0.0"), ("model", "m.skops", b"x")], "#/model", "unexpected file"),
        ([("version", None, b"1.0.0"), ("artefact", "m.exe", b"x")], "#/artefact", "no known format"),
    ],
)
def test_a_registration_that_is_wrong_is_told_where(
    house: House, parts: list[tuple[str, str | None, bytes]], pointer: str, told: str
) -> None:
    files = [part for part in parts if part[1] is not None] or [("reference", "r.csv", b"a\n1\n")]
    body, headers = multipart(*[part for part in parts if part[1] is None], *files)
    answer = house.call("POST", "/v1/models/wrong/versions", body, headers)
    assert (answer.status, answer.pointers) == (422, [pointer])
    assert told in answer.told


def test_a_field_after_the_files_is_not_lost_in_silence(house: House, prices: Toy) -> None:
    files = [("reference", "r.csv", prices.reference.read_bytes()), ("artefact", "m.skops", b"x")]
    body, headers = multipart(("version", None, b"1.0.0"), *files, ("key", None, b"id"))
    answer = house.call("POST", "/v1/models/late/versions", body, headers)
    assert (answer.status, answer.pointers) == (422, ["#/key"])
    assert house.call("POST", "/v1/models/late/versions", {"version": "1.0.0"}).status == 415
    assert house.call("GET", "/v1/models/late").status == 404
