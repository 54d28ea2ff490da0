"""From a labelled file to a model that scores, and from late labels to its successor, on the running stack."""

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
from house import House
from sklearn.metrics import accuracy_score, log_loss
from toys import Toy, to_csv
from toys import customers as customers_of_toy

from examples.churn.data import customers

KEY, TARGET = "customer_id", "churn"


def scorehouse(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SCOREHOUSE_DATA_DIR": str(house.stack.data_dir)}
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


def wave(rows: int, seed: int, start: str, changed: bool = False) -> pd.DataFrame:
    """Customers of some weeks, with the day of each; in a changed world it is the new ones with few calls that leave."""
    frame = customers(rows, seed)
    frame[KEY] = [f"w{seed}-{number:06}" for number in range(rows)]
    if changed:
        random = np.random.default_rng(seed)
        score = 2.0 * (frame["contract_type"] == "two year") - 0.8 * frame["support_calls"] + 0.5
        frame[TARGET] = (random.random(rows) < 1 / (1 + np.exp(-score))).astype(int)
    days = pd.Timestamp(start) + pd.to_timedelta(np.arange(rows) * 30 / rows, unit="D")
    return frame.assign(day=days.strftime("%Y-%m-%dT%H:%M:%SZ"))


def score_and_label(house: House, model: str, frame: pd.DataFrame, as_of: str) -> None:
    body = frame.drop(columns=[TARGET, "day"]).to_csv(index=False).encode()
    job = house.finished(house.upload(body, model=model, as_of=as_of))
    assert job.rows.succeeded == len(frame), job
    labels = frame[[KEY, TARGET]].rename(columns={KEY: "key", TARGET: "label"}).to_csv(index=False).encode()
    answer = house.call("POST", "/v1/labels", labels, {"Content-Type": "text/csv"}, query={"model": model})
    assert answer.json["matched"] == len(frame), answer.json


def trained(house: House, model: str, frame: pd.DataFrame, folder: Path) -> dict[str, Any]:
    data = folder / "data.csv"
    frame.to_csv(data, index=False)
    options = ["--data", str(data), "--target", TARGET, "--key", KEY, "--recipe", "linear", "--register", "--json"]
    done = scorehouse(house, "train", model, *options, "--out", str(folder / "out"))
    assert done.returncode == 0, done.stderr
    assert "trying linear" in done.stderr
    assert "\x1b" not in done.stderr
    card: dict[str, Any] = json.loads(done.stdout)
    return card


def test_what_is_trained_scores_as_it_was_judged_and_is_succeeded_by_what_is_better(
    house: House, tmp_path: Path
) -> None:
    card = trained(house, "leavers", wave(6000, 1, "2020-01-01"), tmp_path)
    assert card["registered"] == "1.0.0"
    assert (card["split"]["by"], card["split"]["column"]) == ("time", "day")
    assert house.client.model("leavers").aliases["candidate"] == "1.0.0"
    version = house.client.version("leavers", "1.0.0")
    assert version.lineage["training_data"] == card["data_digest"]
    assert version.lineage["reference_digest"]
    house.client.deploy("leavers", "1.0.0")

    # The reference through the queue, against the very model in this process: no skew.
    reference = pd.read_csv(tmp_path / "out" / "reference.csv")
    job = house.finished(house.upload((tmp_path / "out" / "reference.csv").read_bytes(), model="leavers"))
    scored = house.rows(job.id)
    model = joblib.load(tmp_path / "out" / "model.joblib")
    expected = model.predict_proba(reference[list(model.feature_names_in_)])[:, 1]
    assert [row[KEY] for row in scored] == reference[KEY].tolist()
    assert np.abs(np.array([float(row["probability"]) for row in scored]) - expected).max() < 1e-12

    # The same world: another model of the same kind is no better, and stays a candidate.
    score_and_label(house, "leavers", wave(2000, 2, "2020-02-01"), "2020-02-15T00:00:00Z")
    house.client.set_training_policy("leavers", promotion="auto-if-better", min_labelled_rows=500)
    run = house.client.retrain("leavers", trigger="february", wait=True, timeout=180)
    assert (run["state"], run["promoted"]) == ("succeeded", False), run
    assert run["document"]["comparison"]["verdict"] != "better"
    assert house.client.model("leavers").aliases["production"] == "1.0.0"
    assert house.client.model("leavers").aliases["candidate"] == run["challenger"] == "1.1.0"

    # The world changes: whoever learned from it is better, and takes over.
    for number, month in enumerate(("2020-03", "2020-04", "2020-05"), start=3):
        score_and_label(house, "leavers", wave(1500, number, f"{month}-01", changed=True), f"{month}-15T00:00:00Z")
    run = house.client.retrain("leavers", trigger="may", wait=True, timeout=180)
    assert (run["state"], run["promoted"], run["challenger"]) == ("succeeded", True, "1.2.0"), run
    document = run["document"]
    assert document["comparison"]["verdict"] == "better"
    assert document["split"]["hold_out_from"] > version.lineage["split"]["trained_through"]
    assert document["challenger"]["metrics"]["log_loss"]["high"] < document["champion"]["metrics"]["log_loss"]["low"]
    successor = house.client.version("leavers", "1.2.0")
    assert (successor.lineage["parent"], successor.lineage["training_run"]) == ("1.0.0", run["id"])
    assert successor.lineage["hold_out_metrics"] == document["challenger"]["metrics"]
    assert house.until(lambda: house.client.model("leavers").aliases["production"] == "1.2.0")
    assert run["id"] in (house.client.deployments("leavers")[0].why or "")

    # The same trigger is the same training, and it is told as it was.
    assert house.client.retrain("leavers", trigger="may")["id"] == run["id"]
    assert len(house.client.trainings("leavers")) == 2
    shown = scorehouse(house, "trainings", "show", "leavers", run["id"])
    assert shown.returncode == 0, shown.stderr
    assert "1.2.0" in shown.stdout
    assert "better" in shown.stderr


def test_a_training_without_enough_labels_says_so(house: House) -> None:
    house.client.set_training_policy("toy", min_labelled_rows=1_000_000)  # other tests label some
    done = scorehouse(house, "retrain", "toy", "--wait", "--json")
    assert done.returncode == 0, done.stderr
    run = json.loads(done.stdout)
    assert run["state"] == "skipped", run
    assert "have a label, the policy of the model wants" in run["reason"]


def test_trainings_of_another_tenant_are_not_there(house: House) -> None:
    assert house.call("POST", "/v1/models/toy/trainings", {}, tenant="other").status == 404
    assert house.call("GET", "/v1/models/toy/trainings", tenant="other").status == 404
    assert house.call("PUT", "/v1/models/toy/training-policy", {}, tenant="other").status == 404


def test_who_may_not_deploy_may_not_let_a_training_deploy(house: House) -> None:
    headers = {"Authorization": f"Bearer {house.token('default', 'models:write', 'models:read')}"}
    wanted = {"promotion": "auto-if-better"}
    assert house.call("PUT", "/v1/models/toy/training-policy", wanted, headers).status == 403
    assert house.call("PUT", "/v1/models/toy/training-policy", {"every_days": 7}, headers).status == 200
    assert house.call("PUT", "/v1/models/toy/training-policy", {"every_days": 0}, headers).status == 422
    assert house.call("GET", "/v1/models/toy/training-policy", headers=headers).json["promotion"] == "manual"


def validated(house: House, *options: str) -> tuple[int, dict[str, Any]]:
    done = scorehouse(house, "models", "validate", *options, "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout else {"said": done.stderr}


def test_a_version_is_checked_for_a_pipeline(house: House, toy: Toy, tmp_path: Path) -> None:
    """By what was registered, by a labelled file through the queue, and by how long single records take."""
    data = tmp_path / "labelled.csv"
    frame = customers_of_toy(500, seed=77)
    frame["amount"] = frame["amount"].astype(object)
    frame.loc[7, "amount"] = "much"  # a row that cannot be scored
    data.write_bytes(to_csv(frame))
    code, found = validated(house, "toy", "1.0.0", "--min", "accuracy=0.5", "--max-latency", "20")
    assert (code, found["passed"]) == (0, True), found
    assert found["checks"][0]["value"] == pytest.approx(accuracy_score(toy.frame["left"], toy.predict(toy.frame)[0]))
    assert 0 < found["checks"][1]["value"] < 20

    code, found = validated(
        house, "toy", "1.0.0", "--min", "accuracy=0.5", "--data", str(data), "--max", "error_rate=0.001"
    )
    good = frame.drop(index=7).assign(amount=lambda rows: rows["amount"].astype(float))
    assert (code, found["metrics"]["rows"], found["metrics"]["error_rate"]) == (1, 500, 1 / 500)
    assert found["metrics"]["accuracy"] == pytest.approx(accuracy_score(good["left"], toy.predict(good)[0]))
    assert found["metrics"]["log_loss"] == pytest.approx(log_loss(good["left"], toy.predict(good)[1]))
    assert [check["passed"] for check in found["checks"]] == [True, False]

    assert validated(house, "shades", "1.0.0", "--min", "roc_auc=0.5")[0] == 1, "of three classes it is not defined"
    assert validated(house, "toy", "1.0.0", "--max-latency", "0.000001")[0] == 1
    for wrong in (["--min", "acuracy=1"], ["--min", "accuracy"], []):
        code, found = validated(house, "toy", "1.0.0", *wrong)
        assert code == 2, found
