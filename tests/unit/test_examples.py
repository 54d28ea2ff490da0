"""The example data sets keep their promises: unique keys, nothing from the future, artefacts free of our code."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest

from errors import InvalidInput
from examples.churn import data as churn
from examples.churn.train import as_dict
from examples.churn.train import train as train_churn
from examples.flights import data as flights
from examples.flights import verdict
from examples.flights.broken import write_broken
from examples.flights.quarters import write_quarters
from examples.flights.train import train as train_flights
from examples.package import write_reference


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    return flights.flights(range(1, 13))


@pytest.fixture(scope="module")
def flights_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("flights")
    train_flights(out)
    return out


@pytest.fixture(scope="module")
def churn_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("churn")
    train_churn(out, rows=6_000, to_score=500)
    return out


def test_the_year_has_every_flight_once(year: pd.DataFrame) -> None:
    assert len(year) == 336_776
    assert year["flight_id"].is_unique
    assert year["flight_id"].str.fullmatch(r"2013-\d\d-\d\d-[0-9A-Z]{2}-\d+-(EWR|JFK|LGA)-\d{4}").all()


def test_no_column_tells_the_future(year: pd.DataFrame) -> None:
    assert not {"dep_time", "arr_time", "arr_delay", "air_time"} & set(year.columns)


def test_flights_come_in_the_order_of_their_schedule(year: pd.DataFrame) -> None:
    assert year["flight_id"].str[:10].is_monotonic_increasing


def test_late_is_more_than_fifteen_minutes_and_missing_without_an_arrival() -> None:
    source = pd.read_csv(flights._data_folder() / "flights.csv.zip").query("month == 4")
    late = flights.flights([4])["late"]
    assert int(late.isna().sum()) == int(source["arr_delay"].isna().sum())
    assert int(late.sum()) == int((source["arr_delay"] > 15).sum())


def test_weather_is_that_of_the_hour_before() -> None:
    weather = pd.read_csv(flights._data_folder() / "weather.csv")
    seen = weather.query("origin == 'EWR' and month == 1 and day == 1 and hour == 7")["temp"].item()
    rows = flights.flights([1])
    due_at_eight = rows[
        rows["flight_id"].str.startswith("2013-01-01")
        & (rows["origin"] == "EWR")
        & (rows["sched_dep_minute"] // 60 == 8)
    ]
    assert len(due_at_eight) > 5
    assert set(due_at_eight["temp"]) == {round(seen, 2)}


@pytest.mark.parametrize("months", [[0], [13], []])
def test_a_month_that_does_not_exist_is_refused(months: list[int]) -> None:
    with pytest.raises(InvalidInput, match="1 to 12"):
        flights.flights(months)


def test_april_is_complete_unlabelled_and_has_real_gaps(flights_out: Path) -> None:
    april = pd.read_csv(flights_out / "april.csv")
    assert len(april) == 28_330
    assert list(april.columns) == ["flight_id", *flights.COLUMNS.features]
    assert april["dep_delay"].isna().sum() == 668  # the flights that were cancelled
    assert april["temp"].isna().any()
    assert april["plane_age"].isna().any()


@pytest.mark.parametrize("folder", ["flights_out", "churn_out"])
def test_the_models_beat_always_saying_no(folder: str, request: pytest.FixtureRequest) -> None:
    metrics = json.loads((request.getfixturevalue(folder) / "metrics.json").read_text())
    for figures in metrics.values():
        assert figures["accuracy"] > 1 - figures["positive_rate"]
        assert figures["roc_auc"] > 0.8


def test_the_reference_shows_each_column_that_may_be_empty(flights_out: Path) -> None:
    reference = pd.read_csv(flights_out / "reference.csv")
    past = flights.flights([1, 2, 3])
    labelled = past[past["late"].notna()]
    assert list(reference.columns) == ["flight_id", *flights.COLUMNS.features, "late"]
    assert reference["flight_id"].isin(labelled["flight_id"]).all()
    assert reference["late"].isin([0, 1]).all()
    for name in flights.COLUMNS.features:
        assert reference[name].isna().any() == labelled[name].isna().any(), name


def test_a_single_gap_in_many_rows_still_reaches_the_reference(tmp_path: Path) -> None:
    rows = churn.customers(20_000)
    rows["monthly_charges"] = rows["monthly_charges"].mask(rows.index == 17_654)
    write_reference(rows, tmp_path, churn.COLUMNS, size=100)
    reference = pd.read_csv(tmp_path / "reference.csv")
    assert len(reference) == 100
    assert reference["monthly_charges"].isna().sum() == 1


@pytest.mark.parametrize("name", ["flights", "flights-logistic"])
def test_a_loaded_model_scores_april_including_a_destination_it_never_saw(flights_out: Path, name: str) -> None:
    model = joblib.load(flights_out / f"{name}.joblib")
    april = pd.read_csv(flights_out / "april.csv").dropna(subset=["dep_delay"])
    assert "ABQ" in set(april["dest"])
    probability = model.predict_proba(april[flights.COLUMNS.features])
    assert np.isfinite(probability).all()


@pytest.mark.parametrize("folder", ["flights_out", "churn_out"])
def test_artefacts_load_without_importing_our_code(folder: str, request: pytest.FixtureRequest) -> None:
    artefacts = list(request.getfixturevalue(folder).glob("*.joblib"))
    assert artefacts
    ask = "import sys, joblib; [joblib.load(p) for p in sys.argv[1:]]; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", ask, *map(str, artefacts)], capture_output=True, text=True, check=True)
    imported = {name.split(".")[0] for name in done.stdout.split()}
    assert "sklearn" in imported
    assert not imported & {"examples", "cli", "registry", "records", "errors"}


@pytest.mark.parametrize("folder", ["flights_out", "churn_out"])
def test_skops_files_are_written_beside_the_joblib_ones(folder: str, request: pytest.FixtureRequest) -> None:
    for artefact in request.getfixturevalue(folder).glob("*.skops"):
        assert "schema.json" in zipfile.ZipFile(artefact).namelist()
        assert artefact.with_suffix(".joblib").exists()


def test_the_same_seed_gives_the_same_customers_in_any_number() -> None:
    many = churn.customers(churn.BLOCK + 50, seed=7)
    pd.testing.assert_frame_equal(churn.customers(100, seed=7), many.head(100))
    assert many["customer_id"].is_unique
    assert not churn.customers(100, seed=8).equals(many.head(100))
    second_block = many["monthly_charges"].iloc[churn.BLOCK :]
    assert second_block.tolist() != many["monthly_charges"].head(50).tolist()


def test_first_month_customers_have_no_total_yet() -> None:
    rows = churn.customers(50_000)
    assert (rows["total_charges"].isna() == (rows["tenure"] == 0)).all()
    assert 0.1 < rows["churn"].mean() < 0.4


def test_no_customers_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1 or more"):
        churn.customers(0)


def test_the_dict_form_scores_like_the_pipeline(churn_out: Path) -> None:
    rows = pd.read_csv(churn_out / "customers.csv")
    parts = joblib.load(churn_out / "churn-dict.joblib")
    whole = joblib.load(churn_out / "churn-logistic.joblib")
    assert set(parts) == set(as_dict(whole))
    features = rows[parts["feature_names"]]
    split = parts["model"].predict_proba(parts["preprocessor"].transform(features))
    np.testing.assert_allclose(split, whole.predict_proba(features), rtol=0, atol=1e-12)


@pytest.fixture
def scored(flights_out: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """April, its results by the model itself, and its row errors: what a run without a fault leaves."""
    april = pd.read_csv(flights_out / "april.csv")
    model = joblib.load(flights_out / "flights.joblib")
    cancelled = april["dep_delay"].isna()
    features = april.loc[~cancelled, flights.COLUMNS.features]
    results = april.loc[~cancelled, ["flight_id"]].assign(
        prediction=model.predict(features), probability=model.predict_proba(features)[:, 1]
    )
    errors = pd.DataFrame({"row": april.index[cancelled] + 1})
    results.to_csv(tmp_path / "results.csv", index=False)
    errors.to_csv(tmp_path / "errors.csv", index=False)
    return flights_out / "april.csv", tmp_path / "results.csv", tmp_path / "errors.csv"


def test_a_run_without_a_fault_is_found_faultless(scored: tuple[Path, Path, Path], flights_out: Path) -> None:
    inputs, results, errors = scored
    assert verdict.unaccounted(inputs, results, errors) == []
    assert verdict.unlike_the_model(flights_out / "flights.joblib", inputs, results) == []


def test_a_lost_a_doubled_and_a_swapped_row_are_noticed(scored: tuple[Path, Path, Path]) -> None:
    inputs, results, errors = scored
    lines = results.read_text().splitlines(keepends=True)
    for damaged in (lines[:50] + lines[51:], lines[:50] + lines[49:], [*lines[:50], lines[51], lines[50], *lines[52:]]):
        results.write_text("".join(damaged))
        assert verdict.unaccounted(inputs, results, errors)


def test_a_wrong_class_and_a_probability_a_hair_off_are_noticed(
    scored: tuple[Path, Path, Path], flights_out: Path
) -> None:
    inputs, results, _ = scored
    right = pd.read_csv(results)
    for column, change in (("prediction", 1), ("probability", 1e-9)):
        wrong = right.copy()
        wrong.loc[100, column] = abs(wrong.loc[100, column] - change)
        wrong.to_csv(results, index=False)
        assert len(verdict.unlike_the_model(flights_out / "flights.joblib", inputs, results)) == 1


def test_the_outcome_counts_every_scored_flight_once(scored: tuple[Path, Path, Path]) -> None:
    _, results, _ = scored
    counted = verdict.outcome(results)
    assert counted.to_numpy().sum() == 28_330 - 668
    assert counted["never arrived"].sum() == 98  # left, and diverted
    assert 0.85 < verdict.accuracy(counted) < 0.95


def test_the_broken_file_is_broken_where_it_says_and_only_there(flights_out: Path, tmp_path: Path) -> None:
    expected = write_broken(flights_out / "april.csv", tmp_path / "broken.csv")
    whole = set((flights_out / "april.csv").read_text().splitlines())
    lines = (tmp_path / "broken.csv").read_text().splitlines()
    assert len(lines) == 13
    assert {number for number, line in enumerate(lines) if line not in whole} == set(expected)


def test_the_first_quarter_is_labelled_and_dated_and_the_second_comes_in_months(tmp_path: Path) -> None:
    months = write_quarters(tmp_path)
    first = pd.read_csv(tmp_path / "first-quarter.csv")
    assert first["day"].is_monotonic_increasing
    assert (first["day"].iloc[0], first["day"].iloc[-1]) == ("2013-01-01", "2013-03-31")
    assert 0.1 < first["late"].mean() < 0.4
    assert [month.number for month in months] == [4, 5, 6]
    assert "late" not in pd.read_csv(months[0].inputs, nrows=1)
    assert set(pd.read_csv(months[0].labels)["key"]) <= set(pd.read_csv(months[0].inputs)["flight_id"])
