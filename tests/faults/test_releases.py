"""Workers that differ from the others: one without a sound artefact, one of the release before, and all of them restarted."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from customers import Customers, File
from harness import MODEL, Harness
from trial import Trial

from scorehouse_client import Client, ScorehouseClientError

Begin = Callable[[int | str, str], Trial]

# The only worker of the interactive lane is one of those that restart; a request may wait for the next one.
STARTING_SECONDS = 60

BEFORE = os.environ.get("FAULT_BEFORE")


@pytest.mark.parametrize("what", ["damaged", "missing"])
def test_a_worker_without_a_sound_artefact_refuses_and_the_others_go_on(
    what: str, begin: Begin, harness: Harness, file: File, tmp_path: Path
) -> None:
    trial = begin(25, f"the artefact is {what} on one worker")
    store = tmp_path / "artefacts"
    if what == "damaged":
        shutil.copytree(harness.stack.data_dir / "artefacts", store)
        for artefact in _files(store):
            artefact.chmod(0o600)
            data = bytearray(artefact.read_bytes())
            data[len(data) // 2] ^= 1
            artefact.write_bytes(data)
    # A data folder of its own, as on another machine: what the others have fetched and verified is not there.
    (tmp_path / "data").mkdir()
    own = {"SCOREHOUSE_DATA_DIR": str(tmp_path / "data"), "SCOREHOUSE_ARTEFACT_URL": store.as_uri()}
    with harness.extra_worker(**own) as extra:
        (child,) = psutil.Process(extra.pid).children()
        refused = "SELECT refused FROM worker_heartbeat WHERE owner LIKE :owner AND refused <> '{}'"
        told = harness.until(lambda: harness.query(refused, owner=f"%:{child.pid}/%"))
        trial.inject(lambda: None)
        job_id = trial.submit(file)
        trial.under_way(job_id)
        trial.fault_ended()
        assert trial.judge(job_id, file).problems == []
        assert not [row for row in harness.chunks(job_id, "done") if f":{child.pid}/" in row.owner]
    assert trial.line.rescued == 0
    assert {"damaged": "changed or damaged", "missing": "cannot be read"}[what] in str(told[0].refused)


@pytest.mark.skipif(BEFORE is None, reason="FAULT_BEFORE names no checkout of the release before")
def test_a_worker_of_the_release_before_scores_beside_those_of_this_one(
    begin: Begin, harness: Harness, file: File
) -> None:
    trial = begin(27, "a worker of the release before, beside this one's API, schema and workers")
    tree = Path(str(BEFORE)).resolve()
    with harness.extra_worker(PYTHONPATH=os.pathsep.join([str(tree), str(tree / "client"), harness.models])) as extra:
        (child,) = psutil.Process(extra.pid).children()
        assert str(tree) in "".join(child.environ().values())
        job_id = trial.submit(file)
        trial.inject(lambda: None)
        assert trial.judge(job_id, file).problems == []
        theirs = [row for row in harness.chunks(job_id, "done") if f":{child.pid}/" in row.owner]
        assert theirs, "it has scored nothing"


def test_everything_is_restarted_under_load_and_no_request_fails(
    begin: Begin, harness: Harness, customers: Customers, file: File
) -> None:
    trial = begin("4b", "SIGHUP the API, SIGTERM workers and beat, under singles and a job")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    with _singles(harness, customers) as (answered, failures):
        trial.inject(lambda: harness.signal_main("api", signal.SIGHUP))
        _more(harness, answered)
        trial.inject(harness.restart_workers)
        beat = harness.pids["beat"]
        trial.inject(lambda: harness.signal_main("beat", signal.SIGTERM))
        harness.until(lambda: harness.pids["beat"] != beat)
        _more(harness, answered)
    trial.fault_ended()
    assert failures == []
    assert trial.judge(job_id, file).problems == []
    assert harness.query("SELECT 1 FROM chunk WHERE crashes > 0 AND job_id = :job", job=job_id) == []


@contextmanager
def _singles(harness: Harness, customers: Customers) -> Iterator[tuple[list[str], list[str]]]:
    """Two clients that send one record after the other and never try again: the states of the jobs, and what failed."""
    answered: list[str] = []
    failures: list[str] = []
    over = threading.Event()
    token = (harness.stack.data_dir / "admin.token").read_text().strip()
    record = customers.record(1)

    def send() -> None:
        with Client(str(harness.stack.found["api_url"]), token, retry_for=0) as client:
            while not over.is_set():
                try:
                    job = client.submit(MODEL, record, wait=STARTING_SECONDS)
                    answered.append(job.state)
                    if job.state != "succeeded":
                        failures.append(f"{job.id} is {job.state} after {STARTING_SECONDS} s")
                except ScorehouseClientError as exc:
                    failures.append(str(exc))

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield answered, failures
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _more(harness: Harness, answered: list[str]) -> None:
    """Wait until the clients had some more answers."""
    enough = len(answered) + 20
    harness.until(lambda: len(answered) >= enough)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
