"""What hostile clients of one tenant cost another: submits beside slow clients, and the memory that bombs take.

    python -m benchmarks.hostile --clients 200 --seconds 20

A tenant submits singles in a closed loop, first alone, then beside `--clients` clients that send a head byte per second,
as many that send a body byte per second, and one whose body does not end. Then each bomb is sent to an idle API. Writes
benchmarks/reports/hostile.json and hostile.md, and exits 1 when a submit failed, a bomb got another answer than it should, or one took more
than 64 MiB.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import numpy as np
import urllib3

from api.tokens import create_token
from benchmarks.bombs import BOMBS, send
from benchmarks.bulk import REPORTS
from benchmarks.files import csv_file, model_files
from benchmarks.memory import MemorySampler
from benchmarks.singles import records_of_customers
from benchmarks.slow_clients import EndlessBody, slow_bodies, slow_heads
from benchmarks.stack import VERSION, deploy, model_name, running_stack
from cli.background import BackgroundStack
from examples.churn.data import COLUMNS
from scorehouse_client import Client
from settings import Settings

MODEL = "logistic"
MOST_MIB = 64.0
ENDLESS_BYTES = 1_000_000_000


def main() -> int:
    given = _arguments()
    with running_stack(None, 2) as stack:
        deploy(stack, {MODEL})
        url, token = str(stack.found["api_url"]), _token(stack, "hostile")
        _deploy_for(url, token)
        _loop(stack, given.submitters, 2.0)  # nobody's first request counts
        measured = {"alone": _summary(_loop(stack, given.submitters, given.seconds))}
        heads = slow_heads(url, given.clients)
        bodies = slow_bodies(url, given.clients, token, model_name(MODEL))
        endless = EndlessBody(url, token, model_name(MODEL), ENDLESS_BYTES)
        with ExitStack() as attack:
            for each in (endless, heads, bodies):
                attack.enter_context(each.running())
            measured["attacked"] = _summary(_loop(stack, given.submitters, given.seconds))
        for name, summary in measured.items():
            print(f"{name:9} {summary}", flush=True)
        bombs = [_detonated(stack, name, token) for name in BOMBS]
    _write(measured, bombs, given)
    failed = any(summary["failed"] for summary in measured.values())
    return int(failed or any(bomb["status"] != BOMBS[bomb["bomb"]].status or bomb["mib"] > MOST_MIB for bomb in bombs))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--clients", type=int, default=200, help="slow clients of each kind")
    parser.add_argument("--submitters", type=int, default=4, help="clients that submit at once")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each of the two parts takes")
    return parser.parse_args()


def _token(stack: BackgroundStack, tenant: str) -> str:
    settings = Settings(data_dir=stack.data_dir)
    return create_token(settings, subject="benchmark", tenant=tenant, scopes=["admin"], ttl=timedelta(hours=1))


def _deploy_for(url: str, token: str) -> None:
    artefact, reference = model_files(MODEL)
    with Client(url, token) as client:
        name, key, target = model_name(MODEL), COLUMNS.key, COLUMNS.label
        client.register_version(name, VERSION, artefact, reference, key=key, target=target, trust=True)
        client.deploy(name, VERSION)


def _loop(stack: BackgroundStack, submitters: int, seconds: float) -> list[float | None]:
    """Seconds from the submission to the 202 of each single of the default tenant; None for another answer."""
    token = _token(stack, "default")
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    bodies = [json.dumps({"model": model_name(MODEL), "inputs": record}).encode() for record in records_of_customers()]
    end = time.perf_counter() + seconds

    def submit(number: int) -> list[float | None]:
        taken: list[float | None] = []
        with urllib3.PoolManager(retries=False, timeout=60) as pool:
            while time.perf_counter() < end:
                began, body = time.perf_counter(), bodies[(number + len(taken)) % len(bodies)]
                answer = pool.request("POST", f"{stack.found['api_url']}/v1/jobs", body=body, headers=headers)
                taken.append(time.perf_counter() - began if answer.status == 202 else None)
        return taken

    with ThreadPoolExecutor(submitters) as threads:
        return [each for taken in threads.map(submit, range(submitters)) for each in taken]


def _summary(taken: list[float | None]) -> dict[str, Any]:
    milliseconds = np.array([each * 1000 for each in taken if each is not None])
    p50, p95, p99 = (round(float(each), 1) for each in np.percentile(milliseconds, [50, 95, 99]))
    largest = round(float(milliseconds.max()), 1)
    return {"submits": len(taken), "failed": taken.count(None), "p50": p50, "p95": p95, "p99": p99, "largest": largest}


def _detonated(stack: BackgroundStack, name: str, token: str) -> dict[str, Any]:
    """The answer to a bomb, the time it took (s), and by how many MiB the largest process of the API grew."""
    roots = {"api": int(stack.found["pids"]["api"])}
    with MemorySampler(roots) as before:
        time.sleep(1)
    began = time.perf_counter()
    with MemorySampler(roots) as during:
        status, sent = send(BOMBS[name], str(stack.found["api_url"]), token, model_name(MODEL), _sample())
    seconds = time.perf_counter() - began
    grown = during.peaks["api"].largest_rss - before.peaks["api"].largest_rss
    found = {"bomb": name, "status": status, "sent": sent, "seconds": round(seconds, 2), "mib": round(grown, 1)}
    print(found, flush=True)
    return found


def _sample() -> tuple[bytes, bytes]:
    with csv_file(1000).open("rb") as file:
        return file.readline(), file.readline()


def _write(measured: dict[str, Any], bombs: list[dict[str, Any]], given: argparse.Namespace) -> None:
    content = {"options": vars(given), "measured": measured, "bombs": bombs}
    (REPORTS / "hostile.json").write_text(json.dumps(content, indent=2) + "\n")
    lines = [
        "# What hostile clients cost",
        "",
        f"{given.clients} clients that send a head byte per second, {given.clients} that send a body byte per second (a "
        "connection that is ended is made again), and a body that does not end, all of one tenant; another tenant submits "
        f"singles with {given.submitters} clients for {given.seconds:g} s. Times in ms from submission to 202.",
        "",
        "| while | submits | failed | p50 | p95 | p99 | largest |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(f"| {name} | " + " | ".join(str(value) for value in summary.values()) + " |" for name, summary in measured.items()),
        "",
        "Bombs, each sent to an idle API: the answer, the bytes that were sent until it came, and by how much the largest "
        "process of the API grew.",
        "",
        "| bomb | status | bytes sent | s | MiB |",
        "| --- | ---: | ---: | ---: | ---: |",
        *(f"| {bomb['bomb']} | {bomb['status']} | {bomb['sent']:,} | {bomb['seconds']} | {bomb['mib']} |" for bomb in bombs),
        "",
    ]  # fmt: skip
    (REPORTS / "hostile.md").write_text("\n".join(lines))


if __name__ == "__main__":
    sys.exit(main())
