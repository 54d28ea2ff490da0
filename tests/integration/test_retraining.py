"""A retraining in Postgres and the artefact store: the rows as they were stored, the challenger, the decision."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sqlalchemy import Engine
from trained import Trained, until, world

from db import models
from db.engine import transaction
from db.labels import NewLabel
from errors import Conflict
from registry.signature import Signature
from training import retraining
from training.retraining import run_one
from training.stored_rows import Stored, stored_rows
from training.target import Target

TARGET = Target("y", "classification", (0, 1))
JUNE = datetime(2024, 6, 1, tzinfo=UTC)


def fitted(frame: pd.DataFrame) -> Pipeline:
    encoded = ColumnTransformer(
        [("group", OneHotEncoder(handle_unknown="ignore"), ["group"]), ("x", "passthrough", ["x"])]
    )
    return make_pipeline(encoded, LogisticRegression(C=0.5)).fit(frame[["x", "group"]], frame["y"])


@pytest.fixture
def house(engine: Engine, database_url: str, tmp_path: Path) -> Trained:
    return Trained.within(engine, database_url, tmp_path)


@pytest.fixture
def champion(house: Trained) -> int:
    """It learned from 5,000 records in which x counts against y."""
    frame = world(400, slope=-2.0, prefix="reference")
    return house.register(
        fitted(world(5_000, slope=-2.0, seed=7)), frame, split={"by": "time", "trained_through": "2024-05-01T00:00:00Z"}
    )


def collected(house: Trained, version_id: int, max_rows: int = 10_000) -> Stored:
    with transaction(house.engine) as connection:
        version = models.by_id(connection, version_id)
        ids = [row.id for row in models.versions(connection, house.model_id)]
    signature = Signature.model_validate(version.signature)
    return stored_rows(house.engine, house.model_id, ids, signature, TARGET, max_rows=max_rows, max_age_days=30)


def weeks(house: Trained, version_id: int, count: int, slope: float, rows: int = 200) -> None:
    """Scored and labelled, a job for each week from June 2024 on."""
    for week in range(count):
        frame = world(rows, slope, seed=100 + week, prefix=f"w{week}-")
        house.score(frame, version_id, JUNE + timedelta(weeks=week))
        house.label(frame)


def trained(house: Trained, key: str = "now") -> Any:
    run_id = house.ask(key)
    with house.examining():
        run_one(house.engine, house.store, house.settings)
    return house.run(run_id)


# ---- rows as they were stored


@pytest.mark.parametrize("format", ["csv", "ndjson"])
def test_labelled_rows_come_back_as_they_were_scored(house: Trained, champion: int, format: str) -> None:
    frame = world(60)
    house.score(frame, champion, JUNE, format=format)
    house.label(frame.iloc[10:40])
    found = collected(house, champion)
    expected = frame.iloc[10:40]
    assert found.rows.keys.to_pylist() == expected["id"].tolist()
    assert found.rows.features["x"].to_pylist() == expected["x"].tolist()
    assert found.rows.features["group"].to_pylist() == expected["group"].tolist()
    assert found.rows.labels.to_pylist() == expected["y"].astype(str).tolist()
    assert found.rows.times is not None
    assert set(found.rows.times.tolist()) == {round(JUNE.timestamp() * 1e6)}


def test_a_record_counts_once_with_its_latest_inputs(house: Trained, champion: int) -> None:
    frame = world(20)
    house.score(frame.assign(x=9.0), champion, JUNE)
    house.score(frame.iloc[:15], champion, JUNE + timedelta(days=1))
    house.label(frame)
    found = collected(house, champion)
    by_key = dict(zip(found.rows.keys.to_pylist(), found.rows.features["x"].to_pylist(), strict=True))
    assert by_key == {**dict.fromkeys(frame["id"], 9.0), **dict(zip(frame["id"][:15], frame["x"][:15], strict=True))}
    assert found.repeated == 15


def test_labels_of_predictions_and_labels_that_name_no_class(house: Trained, champion: int) -> None:
    frame = world(10).astype({"x": object})
    frame.loc[3, "x"] = "much"  # a row error, which no label can be about
    job_id = house.score(frame, champion, JUNE, keyed=False)
    labels = [NewLabel(str(label), None, job_id=job_id, row=row) for row, label in enumerate(frame["y"], start=1)]
    house.put(*labels[:8], NewLabel("maybe", None, job_id=job_id, row=9))
    found = collected(house, champion)
    assert found.rows.features["x"].to_pylist() == [value for row, value in enumerate(frame["x"][:8]) if row != 3]
    assert (len(found.rows), found.unknown) == (7, 1)


def test_the_latest_rows_are_taken_when_there_are_too_many(house: Trained, champion: int) -> None:
    weeks(house, champion, 4, 2.0, rows=50)
    found = collected(house, champion, max_rows=120)
    assert len(found.rows) == 120
    assert [key.split("-")[0] for key in found.rows.keys.to_pylist()].count("w0") == 0
    assert found.rows.times is not None
    assert (found.rows.times[1:] >= found.rows.times[:-1]).all()


# ---- runs


def test_a_better_challenger_is_registered_with_its_parent_and_takes_over_if_it_may(
    house: Trained, champion: int
) -> None:
    weeks(house, champion, 6, 2.0)
    house.set_policy(promotion="auto-if-better", min_labelled_rows=500)
    run = trained(house)
    assert (run.state, run.champion, run.challenger) == ("succeeded", "1.0.0", "1.1.0"), run.error
    decision = run.document["decision"]
    assert (decision["promoted"], decision["verdict"]) == (True, "better")
    assert run.document["rows"] == {
        "reference": 400, "stored": 1200, "unknown_labels": 0, "scored_again": 0, "training": 1200, "hold_out": 400,
    }  # fmt: skip
    assert run.document["split"]["hold_out_from"] == "2024-06-29T00:00:00Z"
    with transaction(house.engine) as connection:
        row = models.versions(connection, house.model_id, "1.1.0")[0]
    assert row.declared["parent"] == "1.0.0"
    assert row.declared["training_run"] == str(run.id)
    assert row.declared["split"]["trained_through"] == "2024-06-22T00:00:00Z"
    assert row.lineage["examined_with"]
    assert row.signature["output"]["classes"] == [0, 1]
    assert house.deployments() == [("1.1.0", "warming")]
    house.go_live("1.1.0")
    assert house.aliases() == {"production": "1.1.0", "previous": "1.0.0"}

    # Its own successor is judged by rows that neither of them has learned from, also not as a row of the reference.
    run = trained(house, "again")
    assert (run.state, run.champion, run.challenger) == ("succeeded", "1.1.0", "1.2.0"), run.error
    assert run.document["split"]["hold_out_from"] > "2024-06-22"
    assert run.document["rows"]["reference"] <= 2, "the others are rows that were stored"


def test_a_better_challenger_waits_for_a_person_unless_the_policy_says_otherwise(house: Trained, champion: int) -> None:
    weeks(house, champion, 4, 2.0)
    house.set_policy(min_labelled_rows=500)
    run = trained(house)
    assert run.document["comparison"]["verdict"] == "better"
    assert run.document["decision"]["reason"] == "the policy is manual: a person decides"
    assert house.deployments() == []
    assert house.aliases() == {"production": "1.0.0", "candidate": "1.1.0"}


def test_a_challenger_that_is_no_better_is_left_alone(house: Trained, champion: int) -> None:
    weeks(house, champion, 4, -2.0)
    house.set_policy(promotion="auto-if-better", min_labelled_rows=500)
    run = trained(house)
    assert run.state == "succeeded"
    assert run.document["decision"]["promoted"] is False
    assert house.deployments() == []


def test_a_challenger_does_not_take_over_from_a_version_it_was_not_compared_with(
    house: Trained, champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weeks(house, champion, 4, 2.0)
    house.set_policy(promotion="auto-if-better", min_labelled_rows=500)
    await_examination = retraining._await_examination

    def meanwhile(*arguments: Any) -> None:
        await_examination(*arguments)
        frame = world(400, slope=1.0, prefix="other")
        house.register(fitted(frame), frame, "7.0.0")

    monkeypatch.setattr(retraining, "_await_examination", meanwhile)
    run = trained(house)
    assert run.document["decision"]["reason"] == "another version was put into production meanwhile"
    assert house.deployments() == []


def test_a_challenger_that_cannot_be_deployed_now_stays_a_candidate(
    house: Trained, champion: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weeks(house, champion, 4, 2.0)
    house.set_policy(promotion="auto-if-better", min_labelled_rows=500)

    def refuse(*_: Any, **__: Any) -> None:
        raise Conflict("another deployment is under way")

    monkeypatch.setattr(retraining, "promote", refuse)
    run = trained(house)
    assert (run.state, run.document["decision"]["promoted"]) == ("succeeded", False)
    assert "could not be deployed: another deployment is under way" in run.document["decision"]["reason"]


@pytest.mark.parametrize(
    ("labelled", "policy", "told"),
    [
        (False, {}, "0 scored rows have a label"),
        (True, {"min_labelled_rows": 5_000}, "400 scored rows have a label, the policy of the model wants 5,000"),
    ],
)
def test_too_few_labels_are_a_reason_to_skip(
    house: Trained, champion: int, labelled: bool, policy: dict[str, Any], told: str
) -> None:
    if labelled:
        weeks(house, champion, 2, 2.0)
    house.set_policy(**policy)
    run = trained(house)
    assert run.state == "skipped"
    assert told in run.document["decision"]["reason"]
    assert house.versions() == ["1.0.0"]


def test_rows_that_the_champion_may_have_learned_from_judge_nobody(house: Trained) -> None:
    frame = world(400, slope=-2.0, prefix="reference")
    version_id = house.register(fitted(frame), frame, split={"trained_through": "2024-06-05T00:00:00Z"})
    weeks(house, version_id, 1, 2.0, rows=600)
    house.set_policy(min_labelled_rows=500)
    run = trained(house)
    assert run.state == "skipped"
    assert "0 labelled rows are later than what the champion was trained on" in run.document["decision"]["reason"]


def test_what_goes_wrong_is_the_runs_error(house: Trained, champion: int) -> None:
    weeks(house, champion, 4, 2.0)
    house.set_policy(min_labelled_rows=500, recipe="unheard-of")
    run = trained(house)
    assert run.state == "failed"
    assert "there is no recipe 'unheard-of'" in run.error
    assert house.versions() == ["1.0.0"]


PROGRAM = """
import sys, time
from pathlib import Path
from db.engine import create_engine
from registry.store import ArtefactStore
from settings import Settings
from training import retraining

def reached(*_, **__):
    Path(sys.argv[3]).touch()
    time.sleep(600)

setattr(retraining, sys.argv[4], reached)
settings = Settings(data_dir=sys.argv[1], database_url=sys.argv[2])
engine = create_engine(sys.argv[2], name="to be killed")
retraining.run_one(engine, ArtefactStore(settings.resolved_artefact_url()), settings)
"""


@pytest.mark.parametrize(("place", "handed_in"), [("contest", False), ("_decide", True)])
def test_a_killed_worker_leaves_the_training_to_another(
    house: Trained, champion: int, database_url: str, tmp_path: Path, *, place: str, handed_in: bool
) -> None:
    """Killed in the middle of the fit, or with the challenger registered and nothing decided: there is one challenger."""
    weeks(house, champion, 4, 2.0)
    house.set_policy(promotion="auto-if-better", min_labelled_rows=500)
    run_id = house.ask()
    mark = tmp_path / "reached"
    command = [sys.executable, "-c", PROGRAM, str(house.settings.data_dir), database_url, str(mark), place]
    with house.examining():
        with subprocess.Popen(command, cwd=Path(__file__).parents[2], env=os.environ) as worker:
            until(mark.exists, 60)
            worker.send_signal(signal.SIGKILL)
        assert (house.run(run_id).state, house.run(run_id).challenger) == ("running", "1.1.0" if handed_in else None)
        assert run_one(house.engine, house.store, house.settings) is None, "its lease is not over"
        house.expire_leases()
        run_one(house.engine, house.store, house.settings)
    run = house.run(run_id)
    assert (run.state, run.attempts, run.challenger) == ("succeeded", 2, "1.1.0"), run.error
    assert house.versions() == ["1.0.0", "1.1.0"]
    assert house.deployments() == [("1.1.0", "warming")]
