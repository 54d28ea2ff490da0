"""Blue-green for the software: real stacks behind a real nginx are switched, and clients that never retry see nothing of it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

import pytest
import urllib3
from clients import Clients
from toys import Toy
from two_stacks import TwoStacks

from deployment.stacks import switch as switching
from deployment.stacks.config import load
from embedded.lock import FolderLock

RECORD = {"amount": 12.5, "visits": 3, "segment": "gold", "active": True, "note": "late again"}
HEADER, ROW = b"id,amount,visits,segment,active,note\n", b"held,1.5,3,gold,true,fine\n"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory, toys: dict[str, Toy]) -> Iterator[TwoStacks]:
    with TwoStacks(tmp_path_factory.mktemp("two-stacks"), toys["toy"]) as two:
        yield two


@pytest.fixture
def clients(two: TwoStacks) -> Clients:
    return Clients(two.front, two.token(), two.toy)


def test_no_request_fails_while_stacks_are_switched(two: TwoStacks, clients: Clients) -> None:
    active_is(two, "blue")
    expected = two.toy.predict(two.toy.frame.head(1).assign(**RECORD))[0][0]
    file = two.configure(validations=[{"model": "toy", "record": {**RECORD, "id": "v"}, "prediction": expected}])
    held = hold_a_job(two)
    with clients.running(), closing(Stream(two, held)) as stream, closing(Upload(two)) as upload:
        clients.wait_for_answers(50)
        for number, command in enumerate(["switch green", "rollback", "switch green", "switch blue", "switch green"]):
            code, entry, told = two.stacks(*command.split(), "--why", f"number {number}", file=file)
            assert (code, entry["outcome"]) == (0, "switched"), told
            steps = ["live", "ready", "nginx", "arrival"]
            steps[2:2] = ["models", "validation 1"] if command != "rollback" else []
            assert [check["name"] for check in entry["checks"]] == steps
            # What began at a stack stays there until it ends, while everything new goes to the other.
            assert two.stacks("status")[1]["draining"] >= 1
            clients.wait_for_answers(50)
        status, job = upload.finish()
        assert (status, job["rows"]["total"]) == (202, upload.rows)
        let_go(two, held)
        assert stream.read_to_the_end()[-1] == "end"
    assert clients.failures == []
    assert clients.releases.keys() == {"0.1.0+blue", "0.1.0+green"}, clients.releases
    entries = [json.loads(line) for line in two.history.read_text().splitlines()][-5:]
    assert [(entry["from"], entry["to"]) for entry in entries] == [
        ("blue", "green"),
        ("green", "blue"),
        ("blue", "green"),
        ("green", "blue"),
        ("blue", "green"),
    ]
    assert [entry["why"] for entry in entries] == [f"number {number}" for number in range(5)]
    two.until(lambda: two.stacks("status")[1]["draining"] == 0)


def test_the_old_stack_may_be_stopped_under_load(two: TwoStacks, clients: Clients) -> None:
    """It ends what it has begun: also a request that would have waited longer than a stop takes."""
    active_is(two, "blue")
    held = hold_a_job(two)
    with clients.running(), waiting_for(two, held) as waiting:
        clients.wait_for_answers(30)
        assert two.stacks("switch", "green")[0] == 0
        try:
            two.stop("api-blue")
            two.stop_workers("blue")
            clients.wait_for_answers(50)
        finally:
            two.start_api("blue")
            two.start_workers("blue")
    assert clients.failures == []
    assert waiting == [(200, "queued", "0.1.0+blue")]
    let_go(two, held)
    two.until(lambda: two.stacks("status")[1]["stacks"]["blue"]["ready"])


def test_a_stack_without_an_api_or_workers_is_refused(two: TwoStacks) -> None:
    active_is(two, "blue")
    two.stop("api-green")
    try:
        assert "does not answer (Connection refused)" in refused(two, two.configure(ready_seconds=1))
    finally:
        two.start_api("green")
    two.until(lambda: two.stacks("status")[1]["stacks"]["green"]["release"])
    two.stop_workers("green")
    try:
        told = refused(two, two.configure(ready_seconds=1))
    finally:
        two.start_workers("green")
    assert "green is not ready: none of its workers serves the lane interactive" in told
    assert "toy@1.0.0: no live worker holds it" in told
    two.until(lambda: two.stacks("status")[1]["stacks"]["green"]["ready"])


def test_a_stack_that_scores_otherwise_is_refused(two: TwoStacks) -> None:
    active_is(two, "blue")
    wrong = {"model": "toy", "record": RECORD, "prediction": 7}
    assert "answers the prediction" in refused(two, two.configure(validations=[wrong]))
    unfit = {"model": "toy", "record": {**RECORD, "amount": "much"}}
    assert "wrong_type" in refused(two, two.configure(validations=[unfit]))


def test_stacks_that_were_mixed_up_are_refused(two: TwoStacks) -> None:
    active_is(two, "blue")
    urls = {"blue": two.ports["green"], "green": two.ports["blue"]}
    mixed_up = two.configure(stacks={name: f"http://127.0.0.1:{port}" for name, port in urls.items()})
    assert "says that it is 0.1.0+blue, not green" in refused(two, mixed_up)


def test_what_nginx_does_not_take_is_taken_back(two: TwoStacks, clients: Clients) -> None:
    active_is(two, "blue")
    site = two.folder / "nginx" / "scorehouse.conf"
    good = site.read_text()
    site.write_text(good + "\nupstream {\n")
    try:
        with clients.running():
            told = refused(two, two.configure())
            clients.wait_for_answers(10)
    finally:
        site.write_text(good)
    assert "nginx goes on as before" in told
    assert "scorehouse.conf" in told
    assert clients.failures == []


def test_nginx_is_pointed_back_when_the_new_stack_does_not_arrive(
    two: TwoStacks, monkeypatch: pytest.MonkeyPatch
) -> None:
    active_is(two, "blue")
    before = two.include.read_bytes()
    monkeypatch.setattr(switching, "_ARRIVAL_SECONDS", 0.5)
    elsewhere = load(two.configure(front=f"http://127.0.0.1:{two.ports['blue']}"))
    entry = switching.switch(elsewhere, "green", who="tests", why=None, token=two.token())
    assert not entry.ok
    assert entry.checks[-1].detail.endswith("nginx was pointed back to blue")
    assert two.include.read_bytes().split(b"\n")[1] == before.split(b"\n")[1]
    two.until(lambda: two.stacks("status")[0] == 0)


def test_a_switch_that_was_killed_half_way_is_told_and_can_be_repeated(two: TwoStacks) -> None:
    active_is(two, "blue")
    two.include.write_text(f"server 127.0.0.1:{two.ports['green']};\n")  # and nginx was not told
    code, found, _ = two.stacks("status")
    assert (code, found["ok"], found["active"], found["answering"]) == (1, False, "green", "0.1.0+blue")
    assert two.stacks("switch", "green")[0] == 0
    assert two.stacks("status")[1]["answering"] == "0.1.0+green"


def test_through_nginx_metrics_need_a_token(two: TwoStacks) -> None:
    with urllib3.PoolManager(retries=False) as pool:
        answers = [pool.request("GET", f"http://127.0.0.1:{two.ports[at]}/metrics") for at in ("front", "blue")]
    assert [answer.status for answer in answers] == [401, 200]


def test_one_switch_at_a_time(two: TwoStacks) -> None:
    active_is(two, "blue")
    lock = FolderLock(load(two.configure()).lock)
    assert lock.acquire()
    try:
        for command in (("switch", "green"), ("rollback",)):
            code, _, told = two.stacks(*command)
            assert (code, "another switch is under way" in told) == (1, True)
    finally:
        lock.release()
    assert two.stacks("status")[1]["active"] == "blue"


def test_two_that_switch_at_once_do_so_one_after_the_other(two: TwoStacks) -> None:
    active_is(two, "blue")
    before = len(two.history.read_text().splitlines())
    runs = [two.begin("switch", name) for name in ("green", "blue", "green")]
    codes = [run.wait(60) for run in runs]
    told = [run.communicate()[1] for run in runs]
    kept = len(two.history.read_text().splitlines()) - before
    assert kept == codes.count(0) >= 1, told
    assert all("another switch is under way" in text for code, text in zip(codes, told, strict=True) if code)
    assert two.stacks("status")[0] == 0


def test_a_rollback_undoes_one_switch(two: TwoStacks) -> None:
    active_is(two, "blue")
    assert two.stacks("switch", "green")[0] == 0
    code, entry, _ = two.stacks("rollback", "--why", "it was worse")
    assert (code, entry["kind"], entry["to"], entry["why"]) == (0, "rollback", "blue", "it was worse")
    code, _, told = two.stacks("rollback")
    assert (code, "was undone already" in told) == (1, True)
    assert two.stacks("status")[1]["active"] == "blue"


def test_a_stack_whose_schema_is_behind_is_not_ready(two: TwoStacks) -> None:
    two.query("UPDATE alembic_version SET version_num = '0001'")
    try:
        code, found, _ = two.stacks("status")
        assert code == 1
        assert "has revision 0001" in found["stacks"]["green"]["detail"]
        assert "run `scorehouse db upgrade`" in found["stacks"]["green"]["detail"]
    finally:
        two.query("UPDATE alembic_version SET version_num = 'later'")


def active_is(two: TwoStacks, name: str) -> None:
    if two.stacks("status")[1]["active"] != name:
        assert two.stacks("switch", name)[0] == 0


def refused(two: TwoStacks, file: Path) -> str:
    """Try to switch to green, which must change nothing; the reason."""
    before = two.include.read_bytes()
    code, entry, _ = two.stacks("switch", "green", file=file)
    assert (code, entry["outcome"]) == (1, "refused")
    assert two.include.read_bytes() == before
    assert json.loads(two.history.read_text().splitlines()[-1]) == entry
    code, found, _ = two.stacks("status")
    assert (code, found["active"], found["answering"]) == (0, "blue", "0.1.0+blue")
    return str(entry["checks"][-1]["detail"])


def hold_a_job(two: TwoStacks) -> str:
    """A job that no worker takes until it is let go."""
    hold = (
        "UPDATE chunk SET not_before = now() + interval '1 hour' WHERE job_id = :job AND state = 'queued' RETURNING 1"
    )
    with two.client() as client:
        while not two.query(hold, job=(job_id := client.submit("toy", RECORD).id)):
            pass  # a worker was quicker
    return job_id


def let_go(two: TwoStacks, job_id: str) -> None:
    two.query("UPDATE chunk SET not_before = now() WHERE job_id = :job", job=job_id)


class Stream:
    """The server-sent events of a job, through nginx."""

    def __init__(self, two: TwoStacks, job_id: str) -> None:
        headers = {"Authorization": f"Bearer {two.token()}"}
        self._answer: Any = urllib3.PoolManager(retries=False, timeout=60.0).request(
            "GET", f"{two.front}/v1/jobs/{job_id}/events", headers=headers, preload_content=False
        )
        assert self._answer.status == 200

    def read_to_the_end(self) -> list[str]:
        """The kinds of the events; an answer that breaks off raises."""
        text = b"".join(self._answer.stream()).decode()
        return [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]

    def close(self) -> None:
        self._answer.close()


@contextmanager
def waiting_for(two: TwoStacks, job_id: str) -> Iterator[list[tuple[int, str, str]]]:
    """A client that waits a minute for a job; what it was answered is there when the block has ended."""
    answers: list[tuple[int, str, str]] = []
    headers = {"Authorization": f"Bearer {two.token()}"}

    def wait() -> None:
        with urllib3.PoolManager(retries=False, timeout=90.0) as pool:
            answer = pool.request("GET", f"{two.front}/v1/jobs/{job_id}?wait=60", headers=headers)
        answers.append((answer.status, json.loads(answer.data)["state"], answer.headers["Scorehouse-Release"]))

    thread = threading.Thread(target=wait)
    thread.start()
    two.until(thread.is_alive)
    yield answers
    thread.join(60)


class Upload:
    """An upload through nginx that takes its time: some rows every now and then, until it is finished."""

    def __init__(self, two: TwoStacks) -> None:
        self.rows = 0
        self._socket = socket.create_connection(("127.0.0.1", two.ports["front"]), timeout=60)
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._trickle, daemon=True)
        head = (
            f"POST /v1/jobs?model=toy HTTP/1.1\r\nHost: scorehouse\r\nAuthorization: Bearer {two.token()}\r\n"
            "Content-Type: text/csv\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        self._socket.sendall(head.encode())
        self._send(HEADER)
        self._send_rows(20_000)
        two.until(lambda: two.query("SELECT 1 FROM job WHERE state = 'receiving'"))
        self._thread.start()

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Status and body of the answer."""
        self._stop()
        self._send(b"")
        answer = HTTPResponse(self._socket)
        answer.begin()
        return answer.status, json.loads(answer.read())

    def close(self) -> None:
        self._stop()
        self._socket.close()

    def _stop(self) -> None:
        self._finished.set()
        self._thread.join()

    def _trickle(self) -> None:
        while not self._finished.wait(0.5):
            self._send_rows(500)

    def _send_rows(self, count: int) -> None:
        self._send(ROW * count)
        self.rows += count

    def _send(self, data: bytes) -> None:
        self._socket.sendall(b"%x\r\n%b\r\n" % (len(data), data))
