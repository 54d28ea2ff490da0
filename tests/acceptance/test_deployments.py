"""Deployments on the running stack: nobody notices one that succeeds, and nobody is harmed by one that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import pytest
from house import Answer, House
from toys import Toy, customers, to_csv

from scorehouse_client import DeploymentFailed

COLUMNS = ["id", "amount", "visits"]
# What the second version adds to each price: a row tells by itself which version scored it.
DEARER = 1000.0


@pytest.fixture
def prices(toys: dict[str, Toy]) -> Toy:
    return toys["prices"]


@pytest.fixture
def dearer(prices: Toy, tmp_path: Path) -> Path:
    model = joblib.load(prices.artefact)
    model.intercept_ += DEARER
    joblib.dump(model, tmp_path / "dearer.joblib")
    return tmp_path / "dearer.joblib"


def register(house: House, name: str, version: str, artefact: Path, toy: Toy) -> None:
    house.client.register_version(name, version, artefact, toy.reference, key=toy.key, target=toy.target, trust=True)


def deployed(house: House, name: str, prices: Toy, *others: tuple[str, Path]) -> None:
    """A model with 1.0.0 in production, and other versions registered."""
    register(house, name, "1.0.0", prices.artefact, prices)
    for version, artefact in others:
        register(house, name, version, artefact, prices)
    house.client.deploy(name, "1.0.0")


@dataclass
class Customers:
    """A stream of singles from three clients, and one file after the other, until it is stopped."""

    house: House
    model: str
    file: bytes
    singles: list[tuple[float, Answer]] = field(default_factory=list)
    files: list[Answer] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def going_on(self) -> Iterator[None]:
        threads = [threading.Thread(target=self._ask) for _ in range(3)] + [threading.Thread(target=self._upload)]
        for thread in threads:
            thread.start()
        try:
            self.house.until(lambda: len(self.singles) > 5 and self.files)
            yield
        finally:
            self.stopped.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        request = {"model": self.model, "inputs": {"amount": 1.0, "visits": 1}}
        while not self.stopped.is_set():
            began = time.monotonic()
            self.singles.append((began, self.house.call("POST", "/v1/jobs", request, {"Prefer": "wait=30"})))

    def _upload(self) -> None:
        while not self.stopped.is_set():
            self.files.append(self.house.upload(self.file, model=self.model))
            self.house.finished(self.files[-1])


def test_nobody_notices_a_deployment_and_a_rollback_takes_no_time(house: House, prices: Toy, dearer: Path) -> None:
    deployed(house, "rolling", prices, ("2.0.0", dearer))
    frame = customers(20_000, seed=41)
    expected, _ = prices.predict(frame)
    load = Customers(house, "rolling", to_csv(frame[COLUMNS]))
    with load.going_on():
        begin = time.monotonic()
        assert house.client.deploy("rolling", "2.0.0").state == "live"
        live_at = time.monotonic()
        before = len(load.singles)
        house.until(lambda: len(load.singles) > before + 10)
        answered = len(load.singles)
        under_load = seconds_to_roll_back(house, "rolling")
    house.client.deploy("rolling", "2.0.0")
    alone = seconds_to_roll_back(house, "rolling")
    figures = {"deployed": live_at - begin, "rolled back": under_load, "and without load": alone}
    print(figures)  # `pytest -s` shows them
    assert min(under_load, alone) < 1.0, figures

    assert len(load.files) > 1
    assert {answer.status for _, answer in load.singles} == {200}, "a request failed, or nobody scored it in time"
    for number, (began, answer) in enumerate(load.singles):
        result = answer.json["result"]
        assert result["prediction"] == pytest.approx(3.0 - 1.7 + 1 + DEARER * (result["model_version"] == "2.0.0"))
        assert answer.json["model_version"] == result["model_version"]
        if began > live_at and number < answered:  # submitted after the switch, and over before the rollback
            assert result["model_version"] == "2.0.0"
    assert {answer.json["model_version"] for _, answer in load.singles} == {"1.0.0", "2.0.0"}
    for answer in load.files:
        job = house.finished(answer)
        assert (job.state, job.rows.succeeded) == ("succeeded", len(frame))
        rows = house.rows(job.id)
        assert {row["model_version"] for row in rows} == {job.model_version}
        wanted = [price + DEARER * (job.model_version == "2.0.0") for price in expected]
        assert [float(row["prediction"]) for row in rows] == pytest.approx(wanted, rel=1e-12)


def seconds_to_roll_back(house: House, model: str) -> float:
    """From the command to the result of the first job that the old version scored."""
    begin = time.monotonic()
    house.client.rollback(model, why="a try")
    request = {"model": model, "inputs": {"amount": 1.0, "visits": 1}}
    first = house.call("POST", "/v1/jobs", request, {"Prefer": "wait=30"})
    seconds = time.monotonic() - begin
    assert (first.status, first.json["model_version"]) == (200, "1.0.0")
    return seconds


def test_golden_rows_that_fail_are_refused_and_production_goes_on(house: House, prices: Toy, dearer: Path) -> None:
    deployed(house, "spoilt", prices, ("2.0.0", dearer))
    digest = house.client.version("spoilt", "2.0.0").digest
    spoil = "UPDATE model_version SET golden = jsonb_set(golden, '{4,prediction}', '0.5') WHERE digest = :digest AND "
    house.query(spoil + "model_id = (SELECT id FROM model WHERE name = 'spoilt')", digest=digest)
    with pytest.raises(DeploymentFailed) as caught:
        house.client.deploy("spoilt", "2.0.0", why="cheaper to run")
    reasons = caught.value.deployment.reasons
    assert reasons
    assert all("worker " in reason and "refuses: golden row 5 (" in reason for reason in reasons)
    assert "1.0.0 stays live" in str(caught.value)
    model = house.call("GET", "/v1/models/spoilt").json
    assert (model["aliases"]["production"], model["slots"], model["live_slot"]) == (
        "1.0.0", {"blue": "1.0.0", "green": None}, "blue",
    )  # fmt: skip
    scored = house.finished(house.submit(model="spoilt", inputs={"amount": 1.0, "visits": 1}))
    assert (scored.state, scored.model_version) == ("succeeded", "1.0.0")
    shown = house.call("GET", f"/v1/models/spoilt/deployments/{caught.value.deployment.id}").json
    assert [event["state"] for event in shown["events"]] == ["warming", "failed"]
    assert (shown["why"], shown["by"], shown["from"], shown["to"]) == (
        "cheaper to run", "admin", "1.0.0", "2.0.0",
    )  # fmt: skip


def test_the_second_of_two_deployments_is_told_of_the_first(house: House, prices: Toy, dearer: Path) -> None:
    deployed(house, "doubled", prices, ("2.0.0", dearer), ("3.0.0", dearer))
    with house.paused_workers():
        first = house.call("POST", "/v1/models/doubled/deployments", {"version": "2.0.0"})
        second = house.call("POST", "/v1/models/doubled/deployments", {"version": "3.0.0"})
        assert (first.status, second.status) == (202, 409)
        assert f"deployment {first.json['id']} of version 2.0.0 by tests is under way" in second.told
        canceled = house.call("POST", f"/v1/models/doubled/deployments/{first.json['id']}/cancel")
        assert (canceled.status, canceled.json["reasons"]) == (200, ["canceled by tests"])
    assert house.client.deploy("doubled", "3.0.0").state == "live"


def test_the_command_line_tells_the_steps_and_the_figures(house: House, prices: Toy, dearer: Path) -> None:
    deployed(house, "told", prices, ("1.0.1", prices.artefact), ("2.0.0", dearer))
    house.finished(house.upload(to_csv(customers(3_000, seed=5)[COLUMNS]), model="told"))
    same = scorehouse(house, "models", "deploy", "told", "1.0.1", "--replay", "5000", "--max-slowdown", "50")
    assert same.returncode == 0
    assert "told 1.0.1 is live in the green slot" in same.stderr
    assert (
        "3,000 rows of the 5,000 wanted replayed against 1.0.0: 0 standard deviations apart, PSI 0.000" in same.stderr
    )
    other = scorehouse(house, "models", "deploy", "told", "2.0.0", "--replay", "1000", "--json")
    assert other.returncode == 1
    assert json.loads(other.stdout)["checks"]["replay"]["difference"] > 1
    assert "over 1,000 replayed rows the predictions differ from those of 1.0.1 by" in other.stderr
    history = scorehouse(house, "models", "history", "told")
    assert [line.split()[2] for line in history.stdout.splitlines()[1:]] == ["deploy", "deploy", "deploy"]
    assert scorehouse(house, "models", "deploy", "told", "2.0.0", "--max-psi", "1").returncode == 2
    back = scorehouse(house, "models", "rollback", "told", "--why", "as it was")
    assert (back.returncode, house.client.model("told").production) == (0, "1.0.0")
    none = scorehouse(house, "models", "rollback", "told")
    assert (none.returncode, "has no previous version to go back to" in none.stderr) == (1, True)


def scorehouse(house: House, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "SCOREHOUSE_DATA_DIR": str(house.stack.data_dir)}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
