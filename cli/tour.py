"""The steps of the demo: what each does, the command that does it, how long it took, and whether it came out right."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shutil import which
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from cli import replay
from cli.background import SCOREHOUSE, BackgroundStack
from cli.narration import Narrator, csv_rows, shortest
from embedded.secrets import ensure_data_dir
from errors import ScorehouseError
from examples.flights import verdict
from examples.flights.broken import write_broken
from examples.flights.data import COLUMNS
from scorehouse_client import Client, Job
from settings import Settings

MODEL = "flights"
STEPS = 10
APRIL = "2013-04-15"
SHOWN_ROWS = 5
STEP_SECONDS = 120.0


class Unexpected(ScorehouseError):
    """A step ended, and not with what it should have."""


class Tour:
    """Use `run`; every step raises when it does not come out right.

    All that is written stays in DATA_DIR/demo, so that the commands shown can be tried again.
    """

    def __init__(self, stack: BackgroundStack, console: Console) -> None:
        self._stack = stack
        self._narrator = Narrator(console, STEPS)
        ensure_data_dir(stack.data_dir)
        self._folder = shortest(stack.data_dir / "demo")
        self._april = self._folder / "april.csv"
        self._scored = self._folder / "april-scored.csv"
        self._errors = self._folder / "april-errors.csv"
        self._artefact = self._folder / "flights.joblib"

    def run(self, workers: int, port: int, flower_port: int) -> None:
        """Take all the steps.

        Raises:
            ScorehouseError, ScorehouseClientError, subprocess.CalledProcessError: a step failed.
        """
        self._start(workers, port, flower_port)
        self._train()
        with self._client() as client:
            version = self._register(client)
            self._deploy(version)
            job = self._score(client)
            self._show(job)
            self._compare_with_the_truth()
            self._score_broken_rows(client)
            self._submit_one(client)
            self._replay(client)
        self._narrator.end()

    def _start(self, workers: int, port: int, flower_port: int) -> None:
        what = "Postgres, Valkey, the API, workers, beat and Flower, all on this machine."
        with self._narrator.step("Start the stack", what):
            command = self._stack.start(workers, port, flower_port)
            if command:
                self._narrator.command(command)
            else:
                self._narrator.say(f"A stack runs from {self._stack.data_dir} already: the demo uses that one.")
            self._narrator.say(f"The API is {self._stack.found['api_url']}, its log {shortest(self._stack.log_file)}.")

    def _train(self) -> None:
        what = "Gradient boosting on the flights that left New York in January to March 2013: which will arrive late?"
        with self._narrator.step("Train a model", what):
            command = ["python", "-m", "examples.flights.train", "--out", str(self._folder)]
            self._narrator.command(command)
            done = subprocess.run([sys.executable, *command[1:]], check=True, stdout=subprocess.PIPE)
            figures = json.loads(done.stdout)["flights"]
            self._narrator.say(
                f"On its last fifth of those flights, held out: accuracy {figures['accuracy']:.1%}, "
                f"ROC AUC {figures['roc_auc']:.3f}; {figures['positive_rate']:.1%} of them were late."
            )

    def _register(self, client: Client) -> str:
        what = "The artefact and a reference become an immutable version; the reference says what its inputs look like."
        with self._narrator.step("Register it", what):
            version = _version_for(client, self._artefact)
            reference = self._folder / "reference.csv"
            options = ["--reference", str(reference), "--target", COLUMNS.label, "--key", COLUMNS.key, "--trust"]
            command = ["models", "register", str(self._artefact), "--name", MODEL, "--version", version, *options]
            self._scorehouse(command)
            return version

    def _deploy(self, version: str) -> None:
        with self._narrator.step("Deploy it", "The workers load this version, and it becomes the one in production."):
            self._scorehouse(["models", "deploy", MODEL, version])

    def _score(self, client: Client) -> Job:
        rows = sum(1 for _ in self._april.open()) - 1
        with self._narrator.step("Score April", f"A CSV of {rows:,} real flights that the model has never seen."):
            job = self._score_file(client, self._april, self._scored, as_of=APRIL)
            self._errors.write_bytes(b"".join(client.errors(job.id)))
            _expect(job.rows.total == rows, f"the job has {job.rows.total} rows, the file {rows}")
            _expect(job.rows.succeeded + job.rows.errored == rows, f"not every row has ended: {job.rows}")
            _expect_none(verdict.unaccounted(self._april, self._scored, self._errors))
            _expect_none(verdict.unlike_the_model(self._artefact, self._april, self._scored))
            self._narrator.say(
                "Checked: each flight is one result, in the order of the file, or one row error; and each class and "
                "probability is what the model itself answers in this process."
            )
            return job

    def _show(self, job: Job) -> None:
        what = f"Results for {job.rows.succeeded:,} flights, a row error for each of the other {job.rows.errored:,}."
        with self._narrator.step("Look at the results", what):
            self._narrator.table(f"the first of {self._scored}", self._scored, SHOWN_ROWS)
            self._narrator.command(["scorehouse", "jobs", "errors", job.id])
            columns = ["row", "key", "code", "message"]
            self._narrator.table("the first row errors", self._errors, SHOWN_ROWS, columns)
            cancelled = set(pd.read_csv(self._april).query("dep_delay.isna()").index + 1)
            found = set(pd.read_csv(self._errors)["row"])
            _expect(found == cancelled, f"{len(found ^ cancelled)} row errors are not where a flight was cancelled")
            self._narrator.say("Each of them is a flight that was cancelled: it has no departure to score it at.")

    def _compare_with_the_truth(self) -> None:
        with self._narrator.step("Did it come true?", "By now we know how late each of April's flights arrived."):
            counted = verdict.outcome(self._scored)
            table = Table("predicted", *(f"really {name}" for name in counted.columns))
            for predicted, counts in counted.iterrows():
                table.add_row(str(predicted), *(f"{count:,}" for count in counts))
            self._narrator.console.print(table)
            arrived = counted[["on time", "late"]].to_numpy().sum()
            share, usual = verdict.accuracy(counted), counted["on time"].sum() / arrived
            self._narrator.say(
                f"Accuracy {share:.1%} of {arrived:,} flights that arrived; always saying “on time” would give "
                f"{usual:.1%}."
            )
            _expect(share > usual, "the model is no better than always saying “on time”")

    def _score_broken_rows(self, client: Client) -> None:
        broken, scored = self._folder / "broken.csv", self._folder / "broken-scored.csv"
        expected = write_broken(self._april, broken)
        what = f"Twelve flights, {len(expected)} of them broken on purpose: a bad row costs itself and no other."
        with self._narrator.step("Score broken rows", what):
            job = self._score_file(client, broken, scored)
            errors = self._folder / "broken-errors.csv"
            errors.write_bytes(b"".join(client.errors(job.id)))
            self._narrator.table("row errors", errors, 12, ["row", "line", "column", "code", "message"])
            found = {int(row["row"]): row["column"] or None for row in csv_rows(errors)}
            _expect(set(found) == set(expected), f"rows {sorted(found)} have errors, expected {sorted(expected)}")
            for number, column in expected.items():
                _expect(column in (None, found[number]), f"row {number} blames {found[number]}, expected {column}")
            _expect(job.rows.succeeded == job.rows.total - len(expected), f"a good row was lost: {job.rows}")

    def _submit_one(self, client: Client) -> None:
        record = json.loads(pd.read_csv(self._april, nrows=1).to_json(orient="records"))[0]
        key = record.pop(COLUMNS.key)
        with self._narrator.step("Submit one record, poll its result", "What an application does, with plain HTTP."):
            body = json.dumps({"model": MODEL, "key": key, "inputs": record})
            self._narrator.command(
                self._curl("/v1/jobs", "-H 'Content-Type: application/json'", f"-d {shlex.quote(body)}")
            )
            job = client.submit(MODEL, record, key=key)
            self._narrator.say(f"202 Accepted: job {job.id}, {job.state}")
            self._narrator.command(self._curl(f"/v1/jobs/{job.id}?wait=10"))
            job = client.wait(job.id, timeout=STEP_SECONDS)
            self._narrator.console.print_json(json.dumps(job.result))
            _expect(job.state == "succeeded" and job.result is not None, f"the job is {job.state}: {job.error}")
            batch = next(csv_rows(self._scored))
            same = abs(float((job.result or {})["probability"][1]) - float(batch["probability"])) <= verdict.TOLERANCE
            _expect(same, f"the batch gave this flight {batch['probability']}")

    def _replay(self, client: Client) -> None:
        what = (
            "May to December are scored as they were, and each month's labels come after it. Audits compare the inputs "
            "with the winter that the model knows, and the scores with what came true."
        )
        with self._narrator.step("A year goes by", what):
            self._narrator.command(
                ["scorehouse", "audit", "drift", MODEL, "--window", "30d", "--end", "2013-07-01", "--alert"]
            )
            self._narrator.command(["scorehouse", "labels", "upload", "2013-06-labels.csv", "--model", MODEL])
            found = replay.replay(client, MODEL, range(4, 13), self._folder)
            self._narrator.console.print(replay.table(found))
            by_month = {each.month.number: each for each in found}
            fired = [number for number, each in by_month.items() if "accuracy" in each.firing]
            self._narrator.say(
                f"Accuracy may be {replay.TOLERANCE:.0%} below that of the reference. In summer it is not, and the alert "
                "fires after its second bad month; it is over after three good ones. That the temperature drifts is as "
                "it should be: this model has never seen a summer."
            )
            _expect(bool(fired), "no alert of accuracy fired")
            _expect(not {4, 5, 11} & set(fired), f"the alert of accuracy fires in the months {fired}")
            _expect(replay.judgement(by_month[7].accuracy) == "warn", "July is judged better than it was")
            _expect(replay.judgement(by_month[9].accuracy) == "ok", "September is judged worse than it was")
            _expect("temp" in replay.drifting(by_month[7].drift), "July is not warmer than the winter")
            self._scorehouse(["alerts", "list", "--model", MODEL])
            key = next(csv_rows(self._scored))[COLUMNS.key]
            self._scorehouse(["history", MODEL, key])

    def _score_file(self, client: Client, file: Path, out: Path, *, as_of: str | None = None) -> Job:
        """Score through the command line and return the finished job."""
        when = [] if as_of is None else ["--as-of", as_of]
        self._scorehouse(["score", str(file), "--model", MODEL, "--key", COLUMNS.key, *when, "-o", str(out)])
        return next(iter(client.jobs(model=MODEL, page_size=1)))

    def _scorehouse(self, arguments: Sequence[str]) -> None:
        """Run our command line on the stack, with its output and its progress bar here."""
        self._stack.check()
        self._narrator.command(["scorehouse", *arguments])
        subprocess.run([str(SCOREHOUSE), *arguments], env=self._stack.environment, check=True)

    def _client(self) -> Client:
        return Client(str(self._stack.found["api_url"]), self._token_file.read_text().strip())

    @property
    def _token_file(self) -> Path:
        return shortest(self._stack.data_dir / "admin.token")

    def _curl(self, path: str, *options: str) -> str:
        """A command to copy; the token stays in its file."""
        token = f'"Authorization: Bearer $(cat {shlex.quote(str(self._token_file))})"'
        url = shlex.quote(f"{self._stack.found['api_url']}{path}")
        return " ".join(["curl", "-H", token, *options, url])

    def tell_what_next(self) -> None:
        """Where things are, and commands to copy."""
        found: Mapping[str, Any] = self._stack.found
        upload = f"--data-binary @{shlex.quote(str(self._april))}"
        lines = [f"API      {found['api_url']}/docs"]
        if found.get("flower_url"):
            password = shortest(self._stack.data_dir / "flower.password")
            lines.append(f"Flower   {found['flower_url']}  (user admin, password in {password})")
        lines += [f"Files    {self._folder}", "", "Try, in another terminal:"]
        if which("scorehouse") is None:
            lines.append(f"  source {shlex.quote(str(shortest(SCOREHOUSE.with_name('activate'))))}")
        if self._stack.data_dir != Settings.model_fields["data_dir"].default.absolute():
            lines.append(f"  export SCOREHOUSE_DATA_DIR={shlex.quote(str(self._stack.data_dir))}")
        lines += [
            "  " + self._curl(f"/v1/models/{MODEL}"),
            "  "
            + self._curl(f"/v1/jobs?model={MODEL}&key_column={COLUMNS.key}", "-H 'Content-Type: text/csv'", upload),
            "  " + self._curl("/v1/jobs?limit=3"),
            "  scorehouse jobs list",
            f"  scorehouse score {shlex.quote(str(self._april))} --model {MODEL} -o scored.csv --include-inputs",
        ]
        self._narrator.console.print("\n".join(lines) + "\n", markup=False, soft_wrap=True)


def _version_for(client: Client, artefact: Path) -> str:
    """1.0.0; or the version that holds this content already; or, when all there are hold another, the next one."""
    known = next((client.model(model.name).versions for model in client.models() if model.name == MODEL), ())
    digest = f"sha256:{hashlib.sha256(artefact.read_bytes()).hexdigest()}"
    for version in known:
        if version.digest == digest:
            return version.version
    return f"1.0.{len(known)}"


def _expect_none(found: Sequence[str]) -> None:
    _expect(not found, "; ".join(found))


def _expect(right: bool, otherwise: str) -> None:
    if not right:
        raise Unexpected(otherwise)
