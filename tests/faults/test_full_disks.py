"""Disks that are full: that of Postgres, and that of the artefacts. Each is a small tmpfs, which only root can mount.

A stack of its own takes half a minute to start, so this is of the long forms only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from customers import Customers
from harness import MODEL, PACE, SECONDS, Harness
from trial import Trial

from embedded.postgres import Postgres
from errors import Unavailable
from registry.store import ArtefactStore

SIZE_MIB = 400
ANSWER_SECONDS = 10.0
BACK_SECONDS = 20.0
ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small tmpfs")
LONG = pytest.mark.skipif(SECONDS < 30, reason="of the long forms (make faults)")


@contextmanager
def _small_disk(mib: int) -> Iterator[Path]:
    """A file-system of its own; everybody may enter it, because Postgres does not run as root."""
    folder = Path(tempfile.mkdtemp(prefix="scorehouse-full-", dir="/var/tmp"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=755", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()


def _fill(disk: Path) -> None:
    """Take all the room that is left, to the last page."""
    with (disk / "ballast").open("ab") as ballast:
        while (free := shutil.disk_usage(disk).free) > 0:
            try:
                ballast.write(bytes(min(free, 1 << 20)))
                ballast.flush()
            except OSError:
                return


def _make_room(disk: Path) -> None:
    (disk / "ballast").unlink()


@pytest.fixture
def small(tmp_path: Path, customers: Customers) -> Iterator[tuple[Harness, Path]]:
    """A stack whose Postgres, data and log, is on a small disk."""
    nobody = pwd.getpwnam("nobody")
    with _small_disk(SIZE_MIB) as disk:
        place = disk / "postgres"
        place.mkdir()
        os.chown(place, nobody.pw_uid, nobody.pw_gid)
        folder = tmp_path / "stack"
        (folder / "postgres").mkdir(parents=True)
        (folder / "postgres" / "data_folder").write_text(str(place))
        few = {"max_wal_size": "64MB", "min_wal_size": "32MB", "shared_buffers": "32MB"}
        postgres = Postgres(folder / "postgres", durable=False, options=few)
        with Harness(folder, customers, PACE, postgres) as harness:
            yield harness, disk


@ROOT
@LONG
def test_a_full_disk_of_postgres_refuses_and_goes_on_when_there_is_room(
    small: tuple[Harness, Path], trials: list[Trial], customers: Customers
) -> None:
    harness, disk = small
    trial = Trial(harness, 17, "the disk of Postgres is full", SECONDS)
    trials.append(trial)
    file, few = customers.file(120_000), customers.file(500)
    job_id = trial.submit(file)
    trial.under_way(job_id)
    mains = harness.pids
    trial.inject(lambda: _fill(disk))
    refused = harness.until(lambda: _refused(harness, few.body))
    assert refused.headers["Retry-After"] == "2"
    assert "try again" in refused.json()["detail"]
    ends = time.monotonic() + trial.seconds
    while time.monotonic() < ends:
        began = time.monotonic()
        assert harness.ask("GET", "/health/live").status == 200
        assert harness.submit_one().status in {202, 503}  # 202 while a page has room for it
        assert time.monotonic() - began < ANSWER_SECONDS
        _keep_up(harness)
    assert not harness.is_over(job_id), "the job was over before the fault: give it more rows"
    _make_room(disk)
    _keep_up(harness)
    trial.fault_ended()
    harness.until(lambda: _upload(harness, few.body).status == 202, seconds=BACK_SECONDS)
    assert trial.judge(job_id, file).problems == []
    assert trial.judge(trial.submit(few), few).problems == []
    harness.until(lambda: not harness.query("SELECT 1 FROM job WHERE finished_at IS NULL"))
    assert harness.query("SELECT 1 FROM chunk WHERE job_id NOT IN (SELECT id FROM job)") == []
    assert harness.pids == mains, "a process had to be started again"


@ROOT
def test_a_full_disk_of_artefacts_refuses_and_goes_on_when_there_is_room() -> None:
    with _small_disk(4) as disk:
        store = ArtefactStore(f"{disk}/artefacts")
        digest, _ = store.put([b"first"], 1 << 20)
        _fill(disk)
        with pytest.raises(Unavailable, match="full"):
            store.put([bytes(1 << 20)], 1 << 21)
        with pytest.raises(Unavailable, match="full"):
            store.fetch(digest, disk / "cache")
        _make_room(disk)
        assert [each.name for each in (disk / "artefacts" / "incoming").iterdir()] == [], "half an artefact is left"
        assert store.fetch(digest, disk / "cache").read_bytes() == b"first"
        assert store.put([bytes(1 << 20)], 1 << 21)[1] == 1 << 20


def _refused(harness: Harness, body: bytes) -> Any:
    answer = _upload(harness, body)
    return answer if answer.status == 503 else None


def _upload(harness: Harness, body: bytes) -> Any:
    return harness.ask("POST", f"/v1/jobs?model={MODEL}", body=body, headers={"Content-Type": "text/csv"})


def _keep_up(harness: Harness) -> None:
    """Start Postgres again if it gave up for want of room for its log, as whoever runs it does."""
    if harness.postgres.poll() is not None:
        harness.postgres.start()
