"""What a registration may declare, and what becomes of it: lineage, stages, edited signatures, other versions of libraries."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
import yaml
from house import Answer, House, multipart
from skl2onnx import to_onnx
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from toys import Toy

from registry import signature_file
from scorehouse_client import RegistrationFailed, ScorehouseApiError

DIGEST = "sha256:" + "5" * 64


@pytest.fixture
def prices(toys: dict[str, Toy]) -> Toy:
    return toys["prices"]


def register(house: House, name: str, version: str, toy: Toy, artefact: Path | None = None, **more: Any) -> Any:
    return house.client.register_version(
        name, version, artefact or toy.artefact, toy.reference, key="id", target=toy.target, trust=True, **more
    )


def post(house: House, fields: dict[str, str], filename: str = "m.onnx", content: bytes = b"x") -> Answer:
    """A registration that is refused."""
    told = [(name, None, value.encode()) for name, value in {"version": "1.0.0", **fields}.items()]
    files = [("reference", "r.csv", b"a\n1\n"), ("artefact", filename, content)]
    body, headers = multipart(*told, *files)
    return house.call("POST", "/v1/models/refused/versions", body, headers)


def test_lineage_stages_and_order(house: House, prices: Toy) -> None:
    name = "staged"
    lineage = {"training_data": DIGEST, "training_rows": 400, "code_revision": "abc-dirty", "seed": {"value": 7}}
    first = register(house, name, "1.9.0", prices, lineage=lineage)
    assert first.stage == "registered"
    assert {key: first.lineage[key] for key in lineage} == lineage
    assert first.lineage["fitted_with"] == {"scikit-learn": sklearn.__version__}
    assert first.lineage["examined_with"]["scikit-learn"] == sklearn.__version__
    house.client.deploy(name, "1.9.0")
    second = register(house, name, "1.10.0", prices, lineage={"parent": "1.9.0"}, candidate=True)
    assert (second.stage, second.lineage["parent"]) == ("candidate", "1.9.0")
    register(house, name, "1.10.0-rc.1", prices)
    house.client.deploy(name, "1.10.0")
    assert [house.client.version(name, each).stage for each in ("1.9.0", "1.10.0")] == ["previous", "production"]
    house.client.deploy(name, "1.10.0-rc.1")
    model = house.client.model(name)
    assert [(found.version, found.stage) for found in model.versions] == [
        ("1.10.0", "candidate" if model.aliases["candidate"] else "previous"),
        ("1.10.0-rc.1", "production"),
        ("1.9.0", "retired"),
    ]
    assert register(house, name, "1.9.0", prices, lineage={"code_revision": "later"}).lineage == first.lineage
    missing = "there are: 1.10.0, 1.10.0-rc.1, 1.9.0"
    assert missing in house.call("POST", f"/v1/models/{name}/deployments", {"version": "7.0.0"}).told


def test_a_parent_must_exist(house: House, prices: Toy) -> None:
    with pytest.raises(ScorehouseApiError) as caught:
        register(house, "orphan", "1.0.0", prices, lineage={"parent": "0.9.0"})
    assert caught.value.errors[0]["pointer"] == "#/lineage/parent"
    assert house.call("GET", "/v1/models/orphan").status == 404


def test_an_edited_signature_is_that_of_a_new_version(house: House, toy: Toy) -> None:
    name = "edited"
    strict = register(house, name, "1.0.0", toy)
    text = signature_file.dump(strict.signature, "as it was inferred")
    content = yaml.safe_load(text)
    next(column for column in content["columns"] if column["name"] == "amount")["nullable"] = True
    lenient = register(house, name, "1.1.0", toy, signature=yaml.safe_dump(content))
    assert (strict.digest, strict.signature["output"]) == (lenient.digest, lenient.signature["output"])
    record = json.loads(toy.frame.drop(columns=["id", "left"]).iloc[:1].to_json(orient="records"))[0] | {"amount": None}
    jobs = [house.finished(house.submit(model=name, inputs=record, version=version)) for version in ("1.0.0", "1.1.0")]
    assert [(job.rows.errored, job.rows.succeeded) for job in jobs] == [(1, 0), (0, 1)]
    with pytest.raises(ScorehouseApiError, match="immutable"):
        register(house, name, "1.1.0", toy)
    content["columns"][0]["type"] = "integer"
    with pytest.raises(RegistrationFailed, match=r"#/columns/amount: \d+ rows of the reference do not parse"):
        register(house, name, "1.2.0", toy, signature=yaml.safe_dump(content))


def test_another_scikit_learn_needs_to_be_allowed(
    house: House, prices: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, model = tmp_path / "older.joblib", joblib.load(prices.artefact)
    with monkeypatch.context() as patched:
        patched.setattr("sklearn.base.__version__", "1.0.9")
        joblib.dump(model, older)
    with pytest.raises(RegistrationFailed, match=r"scikit-learn 1\.0\.9.*--allow-version-mismatch"):
        register(house, "older", "1.0.0", prices, older)
    found = register(house, "older", "1.0.0", prices, older, allow_version_mismatch=True)
    assert found.lineage["fitted_with"] == {"scikit-learn": "1.0.9"}
    assert found.lineage["examined_with"]["scikit-learn"] == sklearn.__version__
    assert found.raw["mismatch_allowed"] is True
    job = house.finished(house.submit(model="older", inputs={"amount": 10.0, "visits": 1}, version="1.0.0"))
    assert job.result is not None
    assert job.result["prediction"] == pytest.approx(3.0 - 17 + 1)


@pytest.mark.parametrize(
    ("fields", "filename", "pointer", "told"),
    [
        ({"runtime": "sklearn"}, "m.onnx", "#/runtime", "is run by onnx, not by sklearn"),
        ({"runtime": "sklearn", "quantise_within": "0.01"}, "m.skops", "#", "leave `runtime` at auto"),
        ({"quantise_within": "1.5"}, "m.onnx", "#/quantise_within", "less than 1"),
        ({"quantise_within": "nan"}, "m.onnx", "#/quantise_within", "less than 1"),
        ({"version": "1.0.0+build"}, "m.onnx", "#/version", "match pattern"),
        ({"lineage": "{"}, "m.onnx", "#/lineage", "JSON"),
        ({"lineage": '{"training_rows": -1}'}, "m.onnx", "#/lineage/training_rows", "greater than or equal to 0"),
        ({"lineage": '{"fitted_with": {}}'}, "m.onnx", "#/lineage", "leave it out"),
        ({"lineage": '{"note": "a\\u0000"}'}, "m.onnx", "#/lineage", "NUL"),
        ({"lineage": '{"parent": "1.0.0"}'}, "m.onnx", "#", "its own parent"),
        ({"signature": "columns: [{name: a, type: float}]"}, "m.onnx", "#/signature/columns/0/type", "number"),
        ({"signature": "{key: a, columns: [{name: a, type: text}]}", "key": "b"}, "m.onnx", "#/key", "leave one"),
    ],
)
def test_what_is_wrong_in_a_registration_is_told_where(
    house: House, fields: dict[str, str], filename: str, pointer: str, told: str
) -> None:
    answer = post(house, fields, filename)
    assert (answer.status, answer.pointers) == (422, [pointer])
    assert told in answer.told
    assert house.call("GET", "/v1/models/refused").status == 404


def test_an_empty_file_is_no_artefact(house: House) -> None:
    answer = post(house, {}, content=b"")
    assert (answer.status, answer.pointers) == (422, ["#/artefact"])
    assert "is empty" in answer.told


def test_what_is_no_model_fails_with_the_reason(house: House, prices: Toy, tmp_path: Path) -> None:
    for ending in ("onnx", "skops", "joblib"):
        artefact = tmp_path / f"picture.{ending}"
        artefact.write_bytes(b"\x89PNG\r\n\x1a\n" * 100)
        with pytest.raises(RegistrationFailed, match="the artefact cannot be loaded"):
            register(house, f"picture-{ending}", "1.0.0", prices, artefact)


def test_an_onnx_file_needs_no_trust(house: House, prices: Toy, tmp_path: Path) -> None:
    inputs = prices.frame[["amount", "visits"]].to_numpy()
    model = LinearRegression().fit(inputs, prices.frame["price"])
    (tmp_path / "prices.onnx").write_bytes(to_onnx(model, inputs[:1]).SerializeToString())
    found = house.client.register_version(
        "prices-onnx", "1.0.0", tmp_path / "prices.onnx", prices.reference, key="id", target="price", runtime="onnx"
    )
    assert (found.runtime, found.format, found.state) == ("onnx", "onnx", "registered")


def test_a_model_is_compiled_and_answers_alike_in_both_lanes(house: House, prices: Toy) -> None:
    plain = register(house, "compiled", "1.0.0", prices, runtime="sklearn")
    assert (plain.compiled["lanes"], plain.compiled["reason"]) == ([], "it is not wanted")
    compiled = register(house, "compiled", "1.1.0", prices, runtime="onnx")
    assert compiled.compiled["lanes"] == ["interactive", "bulk"], compiled.compiled
    assert compiled.compiled["max_difference"] < 1e-10
    assert compiled.compiled["seconds"]["interactive"]["rows"] == 1
    records = json.loads(prices.frame[["id", "amount", "visits"]].dropna().to_json(orient="records"))
    for inputs, lane in ((records[:20], "interactive"), (records[:150], "bulk")):
        answers = []
        for version in ("1.0.0", "1.1.0"):
            job = house.finished(house.submit(model="compiled", inputs=inputs, version=version, key_column="id"))
            assert (job.lane, job.rows.succeeded) == (lane, len(inputs))
            lines = b"".join(house.client.results(job.id, format="ndjson")).splitlines()
            answers.append([json.loads(line)["prediction"] for line in lines])
        assert answers[0] == pytest.approx(answers[1], rel=1e-10)


def test_what_has_no_compiled_form_is_told(house: House, toy: Toy, tmp_path: Path) -> None:
    frame = toy.frame[["amount", "visits"]].fillna(0)
    joblib.dump(KNeighborsClassifier().fit(frame, toy.frame["left"]), tmp_path / "near.joblib")
    with pytest.raises(RegistrationFailed, match=r"no exact conversion of KNeighborsClassifier; .*--runtime auto"):
        register(house, "near", "1.0.0", toy, tmp_path / "near.joblib", runtime="onnx")
    found = register(house, "near", "1.0.1", toy, tmp_path / "near.joblib")
    assert (found.compiled["lanes"], found.compiled["reason"]) == (
        [],
        "there is no exact conversion of KNeighborsClassifier",
    )


def test_a_network_is_quantised_within_what_whoever_registers_it_states(house: House, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    columns = [f"c{place}" for place in range(20)]
    frame = pd.DataFrame(random.normal(size=(3_000, 20)).round(4), columns=columns)
    frame["left"] = (frame["c0"] * frame["c1"] + frame["c2"] > 0).astype(int)
    frame.to_csv(tmp_path / "sample.csv", index=False)
    model = make_pipeline(
        StandardScaler(), MLPClassifier((512, 512), tol=100.0, n_iter_no_change=3, random_state=0)
    ).fit(frame[columns], frame["left"])
    joblib.dump(model, tmp_path / "network.joblib")
    told = ("network.joblib", "--reference", "sample.csv", "--target", "left", "--trust", "--name", "network")
    command(house, tmp_path, "models", "register", *told, "--version", "1.0.0")
    command(house, tmp_path, "models", "register", *told, "--version", "1.1.0", "--quantise-within", "0.02")
    assert "quantised" not in house.client.version("network", "1.0.0").compiled
    found = house.client.version("network", "1.1.0").compiled["quantised"]
    assert "bulk" in found["lanes"], found
    kept = found["tried"][found["precision"]]
    assert 0 < kept["max_difference"] <= found["permitted"] == found["within"] == 0.02
    assert kept["flips"] <= 0.02 * found["rows"]
    shown = " ".join(command(house, tmp_path, "models", "show", "network@1.1.0").split())
    assert f"quantised {found['precision']}, bulk " in shown
    assert "0.02 permitted" in shown
    house.client.deploy("network", "1.1.0")  # its golden rows go through the queue
    fresh = pd.DataFrame(random.normal(size=(200, 20)).round(4), columns=columns)
    job = house.finished(house.submit(model="network", inputs=json.loads(fresh.to_json(orient="records"))))
    assert (job.lane, job.rows.succeeded) == ("bulk", 200)
    lines = b"".join(house.client.results(job.id, format="ndjson")).splitlines()
    answers = np.array([json.loads(line)["probability"] for line in lines])
    off = np.abs(answers - model.predict_proba(fresh)[:, 1])
    assert 1e-10 < off.max() <= 0.04  # other rows than those that were compared


def command(house: House, folder: Path, *arguments: str) -> str:
    """What a command prints."""
    environment = {**os.environ, "SCOREHOUSE_DATA_DIR": str(house.stack.data_dir), "COLUMNS": "400"}
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
