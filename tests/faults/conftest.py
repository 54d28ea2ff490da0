"""One stack for all faults of a session, a trial per test, and the report.

From the environment: FAULT_ROWS rows per job, FAULT_PACE seconds that the model spends on each of them, FAULT_SECONDS that a
repeated fault goes on for, FAULT_REPORT a folder for the report. `make faults` sets them for the long forms.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).with_name("models")))
sys.path.append(str(Path(__file__).parents[1] / "integration"))

from apart import Apart
from customers import Customers, File
from harness import PACE, ROWS, SECONDS, VERSION, Harness
from report import write
from trial import Trial
from verdict import install_witness

from embedded.postgres import Postgres
from migrations import upgrade

Begin = Callable[[int | str, str], Trial]


@pytest.fixture(scope="session")
def customers(tmp_path_factory: pytest.TempPathFactory) -> Customers:
    return Customers(tmp_path_factory.mktemp("customers"))


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory, customers: Customers) -> Iterator[Harness]:
    with Harness(tmp_path_factory.mktemp("faults"), customers, PACE) as harness:
        yield harness


@pytest.fixture(scope="session")
def apart(tmp_path_factory: pytest.TempPathFactory, customers: Customers) -> Iterator[Apart]:
    """API and polling worker, with the model in production: it was registered and deployed without a broker, too."""
    folder = tmp_path_factory.mktemp("apart")
    postgres = Postgres(folder / "postgres", durable=False)
    postgres.start()
    try:
        upgrade(postgres.url, login=postgres.app_url)
        with Apart(folder / "data", postgres.url) as apart:
            install_witness(apart.engine)
            apart.start_api()
            apart.start_worker(2)
            apart.register(customers, VERSION, seconds_per_row=1e-4)
            yield apart
    finally:
        postgres.discard()


@pytest.fixture
def file(customers: Customers) -> File:
    """The job of ordinary size."""
    return customers.file(ROWS)


@pytest.fixture(scope="session")
def trials() -> Iterator[list[Trial]]:
    """All of the session; at its end they become the report."""
    trials: list[Trial] = []
    yield trials
    if folder := os.environ.get("FAULT_REPORT"):
        write([trial.line.as_dict() for trial in trials], Path(folder))


@pytest.fixture
def begin(harness: Harness, trials: list[Trial]) -> Begin:
    """Begin the trial of a fault, by its number in the contract."""

    def start(fault: int | str, what: str) -> Trial:
        harness.stack.check()
        trials.append(Trial(harness, fault, what, SECONDS))
        return trials[-1]

    return start
