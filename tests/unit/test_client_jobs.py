"""Following jobs and fetching what they made."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

import pytest
from scripted_api import JOB_ID, JOB_PATH, Answer, Received, ScriptedApi, job

from scorehouse_client import (
    Client,
    ConnectionFailed,
    DeploymentFailed,
    JobNotFinished,
    OutputFailed,
    ScorehouseApiError,
    ScorehouseClientError,
)

RESULTS = b"id,prediction\n1,0\n2,1\n"


def test_waiting_survives_an_api_that_goes_away_for_a_moment(api: ScriptedApi, client: Client) -> None:
    api.on("GET", JOB_PATH, job("running"), Answer(closing="silent"), Answer(502, b"<html>"), job())
    states: list[str] = []
    done = client.wait(JOB_ID, progress=lambda seen: states.append(seen.state))
    assert states == ["running", "succeeded"]
    assert done.scored
    assert api.received[0].query == {"wait": "1"}


def test_waiting_without_an_audience_lets_the_api_hold_the_request(api: ScriptedApi, client: Client) -> None:
    api.on("GET", JOB_PATH, job())
    client.wait(JOB_ID)
    assert api.received[0].query == {"wait": "60"}


def test_a_wait_ends_in_time_and_carries_the_job(api: ScriptedApi, client: Client) -> None:
    api.on("GET", JOB_PATH, job("running"))
    with pytest.raises(JobNotFinished, match=r"still running after 0\.3 s \(0 of 3 rows done\)") as caught:
        client.wait(JOB_ID, timeout=0.3)
    assert caught.value.job.id == JOB_ID
    assert len(api.received) <= 3


def test_jobs_are_listed_over_all_pages(api: ScriptedApi, client: Client) -> None:
    def page(request: Received) -> Answer:
        after = request.query.get("after")
        return Answer(content={"jobs": [job(id="b" if after else "a")], "next": None if after else "cursor=="})

    api.on("GET", "/v1/jobs", page)
    assert [found.id for found in client.jobs(state="succeeded")] == ["a", "b"]
    assert api.received[1].query == {"state": "succeeded", "limit": "100", "after": "cursor=="}


def test_answers_of_a_newer_and_of_an_older_api_are_understood(api: ScriptedApi, client: Client) -> None:
    api.on("GET", JOB_PATH, {"id": JOB_ID, "state": "running", "carbon": 3}, job(error={"detail": "out of memory"}))
    newer = client.job(JOB_ID)
    assert (newer.rows.total, newer.created_at, newer.raw["carbon"]) == (0, None, 3)
    assert client.job(JOB_ID).error == "out of memory"


def test_results_are_passed_on_as_they_are(api: ScriptedApi, client: Client) -> None:
    api.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS))
    assert b"".join(client.results(JOB_ID, include_inputs=True, formulas="keep")) == RESULTS
    assert api.received[0].query == {"format": "csv", "include": "inputs", "formulas": "keep"}


def test_results_that_break_off_are_an_error_and_not_a_short_file(api: ScriptedApi, client: Client) -> None:
    api.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS, closing="truncated"))
    with pytest.raises(ConnectionFailed, match="broke off before its end"):
        list(client.results(JOB_ID))


def test_a_download_that_breaks_off_starts_again(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    api.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS, closing="truncated"), Answer(content=RESULTS))
    client.download(JOB_ID, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == RESULTS
    assert list(tmp_path.iterdir()) == [tmp_path / "out.csv"]


def test_scoring_a_file_uploads_waits_and_downloads(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"id,x\n1,2\n")
    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    api.on("GET", JOB_PATH, job())
    api.on("GET", f"{JOB_PATH}/results", Answer(content=b"PAR1"))
    stages: list[str] = []
    done = client.score_file(
        tmp_path / "in.csv",
        "flights",
        tmp_path / "out.parquet",
        on_upload=lambda *_: stages.append("upload"),
        on_job=lambda seen: stages.append(seen.state),
        on_download=lambda *_: stages.append("download"),
    )
    assert stages == ["upload", "queued", "succeeded", "download"]
    assert done.state == "succeeded"
    assert (tmp_path / "out.parquet").read_bytes() == b"PAR1"
    assert api.received[-1].query == {"format": "parquet"}


def test_results_are_fetched_while_the_job_runs(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    """The first chunk is not done at first; then an answer breaks off; nothing is written twice."""
    (tmp_path / "in.csv").write_bytes(b"id,x\n1,2\n2,3\n3,4\n")
    through = "Results-Through-Row"
    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    running = {"total": 3, "succeeded": 1, "errored": 0, "canceled": 0, "pending": 2}
    api.on("GET", JOB_PATH, job("running", rows=running), job("running", rows={**running, "succeeded": 2}), job())
    api.on(
        "GET",
        f"{JOB_PATH}/results",
        Answer(content=b"id,prediction\n", headers={through: "0"}),
        Answer(content=b"id,prediction\n1,0\n2,1\n", headers={through: "2"}, closing="truncated"),
        Answer(content=b"id,prediction\n1,0\n2,1\n", headers={through: "2"}),
        Answer(content=b"3,0\n", headers={through: "3"}),
    )
    client.score_file(tmp_path / "in.csv", "flights", tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_bytes() == b"id,prediction\n1,0\n2,1\n3,0\n"
    asked = [received.query.get("after_row") for received in api.received if received.path.endswith("/results")]
    assert asked == [None, None, None, "2"]


def test_a_failed_job_leaves_the_old_output_alone(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_bytes(b"id,x\n1,2\n")
    (tmp_path / "out.csv").write_bytes(b"old")
    api.on("POST", "/v1/jobs", Answer(202, job("queued")))
    api.on("GET", JOB_PATH, job("failed", error="the model cannot be loaded"))
    done = client.score_file(tmp_path / "in.csv", "flights", tmp_path / "out.csv")
    assert (done.state, done.error) == ("failed", "the model cannot be loaded")
    assert (tmp_path / "out.csv").read_bytes() == b"old"


def test_an_output_that_cannot_be_written_is_found_out_before_the_upload(
    api: ScriptedApi, client: Client, tmp_path: Path
) -> None:
    (tmp_path / "in.csv").write_bytes(b"id,x\n1,2\n")
    with pytest.raises(OutputFailed, match="no such folder"):
        client.score_file(tmp_path / "in.csv", "flights", tmp_path / "nowhere" / "out.csv")
    assert api.received == []


def test_an_output_keeps_its_link_and_its_mode(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    api.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS))
    client.download(JOB_ID, link)
    assert link.is_symlink()
    assert real.read_bytes() == RESULTS
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_what_is_no_file_is_written_to_and_not_replaced(api: ScriptedApi, client: Client, tmp_path: Path) -> None:
    """A pipe stands for all of them; a device would be lost to the machine if this failed."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    api.on("GET", f"{JOB_PATH}/results", Answer(content=RESULTS))
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    client.download(JOB_ID, pipe)
    assert pipe.is_fifo()
    assert os.read(reader, 1000) == RESULTS
    os.close(reader)


def test_retrying_a_job_is_never_done_twice_by_the_client(api: ScriptedApi, client: Client) -> None:
    api.on("POST", f"{JOB_PATH}/retry", Answer(closing="silent"), Answer(202, job("queued")))
    with pytest.raises(ConnectionFailed):
        client.retry(JOB_ID)
    assert len(api.received) == 1


def test_canceling_is_repeated_when_the_connection_breaks(api: ScriptedApi, client: Client) -> None:
    api.on("POST", f"{JOB_PATH}/cancel", Answer(closing="silent"), job("canceled"))
    assert client.cancel(JOB_ID).state == "canceled"


def test_a_deployment_is_followed_to_its_end(api: ScriptedApi, client: Client) -> None:
    started = {"id": "d1", "model": "flights", "version": "2.0.0", "from": "1.0.0", "state": "warming"}
    api.on("POST", "/v1/models/flights/deployments", Answer(202, started))
    path = "/v1/models/flights/deployments/d1"
    api.on("GET", path, {**started, "state": "validating"}, {**started, "state": "live"})
    states: list[str] = []
    assert client.deploy("flights", "2.0.0", "better", progress=lambda seen: states.append(seen.state)).state == "live"
    assert states == ["warming", "validating", "live"]
    assert api.received[0].json() == {"version": "2.0.0", "why": "better"}

    api.on("GET", path, {**started, "state": "failed", "reasons": ["golden row 3 differs"]})
    with pytest.raises(DeploymentFailed) as caught:
        client.deploy("flights", "2.0.0")
    assert str(caught.value) == "flights 2.0.0 did not go live:\n  - golden row 3 differs\n1.0.0 stays live."


def test_models_are_told_with_their_aliases(api: ScriptedApi, client: Client) -> None:
    api.on("GET", "/v1/models", {"models": [{"name": "flights", "production": "1.0.0", "versions": 2}]})
    detail = {
        "name": "flights",
        "aliases": {"production": "1.0.0", "candidate": None},
        "versions": [{"version": "1.0.0"}],
    }
    api.on("GET", "/v1/models/flights", detail)
    [listed] = client.models()
    assert (listed.name, listed.production, listed.version_count) == ("flights", "1.0.0", 2)
    assert [version.version for version in client.model("flights").versions] == ["1.0.0"]


def test_names_cannot_escape_their_place_in_the_url(api: ScriptedApi, client: Client) -> None:
    with pytest.raises(ScorehouseApiError, match="404"):
        client.model("a/../../b?x=1")
    assert api.received[0].path == "/v1/models/a%2F..%2F..%2Fb%3Fx%3D1"


def test_health_is_told_also_when_it_is_bad(api: ScriptedApi, client: Client) -> None:
    api.on("GET", "/health", Answer(503, {"status": "unavailable", "missing": ["workers"]}))
    assert client.health()["missing"] == ["workers"]
    assert len(api.received) == 1


def test_tables_name_the_extra_that_is_missing(
    api: ScriptedApi, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(ScorehouseClientError, match=r"pip install 'scorehouse-client\[arrow\]'"):
        client.batches(JOB_ID)
    assert api.received == []
