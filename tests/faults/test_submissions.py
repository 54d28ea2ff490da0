"""Clients that go away, a production version that changes, and singles beside a large file."""

from __future__ import annotations

from collections.abc import Callable

from customers import Customers, File
from harness import MODEL, VERSION, Harness
from trial import Trial

Begin = Callable[[int | str, str], Trial]


def test_a_client_that_leaves_in_mid_upload_leaves_nothing(begin: Begin, harness: Harness, file: File) -> None:
    trial = begin(22, "the client disconnects in mid-upload")
    before = harness.query("SELECT id FROM job")

    def leave() -> None:
        harness.upload_and_leave(file.body[: len(file.body) // 2], len(file.body))

    trial.inject(leave)
    harness.until(lambda: harness.query("SELECT id FROM job") == before)
    assert harness.query("SELECT count(*) FROM chunk WHERE job_id NOT IN (SELECT id FROM job)")[0].count == 0
    assert harness.query("SELECT count(*) FROM prediction WHERE job_id NOT IN (SELECT id FROM job)")[0].count == 0


def test_a_job_keeps_its_version_when_production_is_switched(
    begin: Begin, harness: Harness, customers: Customers, file: File
) -> None:
    trial = begin(24, "production is switched in mid-job and rolled back")
    harness.register("2.0.0", seconds_per_row=0.0)
    harness.client.deploy(MODEL, VERSION)
    job_id = trial.submit(file)
    trial.under_way(job_id)
    trial.inject(lambda: harness.client.deploy(MODEL, "2.0.0"))
    few = customers.file(500)
    after = trial.submit(few)
    trial.inject(lambda: harness.client.rollback(MODEL))
    assert not harness.is_over(job_id), "the job was over before the switch: give it more rows"
    assert trial.judge(job_id, file).problems == []
    assert trial.judge(after, few).problems == []
    assert _versions(harness, job_id) == [VERSION]
    assert _versions(harness, after) == ["2.0.0"]


def test_singles_do_not_wait_behind_a_file(begin: Begin, harness: Harness, customers: Customers, file: File) -> None:
    trial = begin("singles", "singles while a large file is scored")
    job_id = trial.submit(file)
    trial.under_way(job_id)
    for row in range(1, 11):
        single = harness.client.submit(MODEL, customers.record(row), wait=10)
        assert single.state == "succeeded"
        trial.line.injected += 1
    assert not harness.is_over(job_id), "the singles waited for the file, or the file was too small"
    assert trial.judge(job_id, file).problems == []


def _versions(harness: Harness, job_id: str) -> list[str]:
    query = """
        SELECT DISTINCT v.version FROM prediction p JOIN model_version v ON v.id = p.version_id WHERE p.job_id = :job
    """
    return [row.version for row in harness.query(query, job=job_id)]
