"""One input through the whole pipeline, held against what Python's csv module reads: every row accounted for, once."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from account import EITHER, FAULTY, NUMBER, Account, account_of, expected, told
from csv_inputs import Input
from in_process import InProcess, Outcome

TERMINAL = {"succeeded", "completed_with_errors", "failed"}


@dataclass
class Tally:
    """What became of all inputs so far."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    mismatches: list[str] = field(default_factory=list)

    def plus(self, other: Tally) -> Tally:
        return Tally(
            self.inputs + other.inputs,
            self.outcomes + other.outcomes,
            self.kinds + other.kinds,
            self.codes + other.codes,
            self.rows + other.rows,
            self.mismatches + other.mismatches,
        )


def judge(inside: InProcess, inputs: Sequence[tuple[int, Input]], tally: Tally, *, downloads_every: int = 20) -> None:
    """Submit the inputs, score them together, and judge each.

    Args:
        inputs: with their numbers, by which a mismatch is told.
        downloads_every: of how many numbers one has its results downloaded as well.
    """
    accepted: list[tuple[int, Input, Account, str]] = []
    for number, each in inputs:
        account = account_of(each.body, each.delimiter, each.key_column)
        tally.inputs += 1
        tally.kinds[each.kind] += 1
        answer = inside.upload(each.sent, each.headers, **each.query)
        found = _refused(answer, account) if answer.status_code != 202 else _taken(account)
        tally.outcomes[found if answer.status_code != 202 else "202 taken"] += 1
        if found.startswith("mismatch"):
            tally.mismatches.append(f"input {number}: {found}: {answer.text[:300]}")
        elif answer.status_code == 202:
            accepted.append((number, each, account, answer.get_json()["id"]))
    try:
        inside.score()
    except Exception as exc:
        tally.mismatches.append(f"one of the inputs {[number for number, *_ in accepted]}: the worker raised {exc!r}")
        return
    outcomes = inside.outcomes([job_id for *_, job_id in accepted])
    for number, each, account, job_id in accepted:
        problems = _accounted(account, outcomes[job_id], tally)
        if not problems and number % downloads_every == 0:
            problems = _downloaded(inside, each, account, job_id, {error.row for error in outcomes[job_id].errors})
        tally.mismatches += [f"input {number}: {problem}" for problem in problems]


def _refused(answer: Any, account: Account) -> str:
    if answer.status_code not in (413, 422) or answer.mimetype != "application/problem+json":
        return f"mismatch: status {answer.status_code}"
    document = answer.get_json(force=True)
    reasons = {told(document["detail"])} | {told(each["detail"]) for each in document.get("errors", [])}
    reason = told(document["detail"])
    if reason is None or not account.reasons & reasons:
        return f"mismatch: refused for {reason}, the csv module sees {sorted(account.reasons)}"
    return f"{answer.status_code} {reason}"


def _taken(account: Account) -> str:
    return f"mismatch: taken although {sorted(account.reasons)}" if account.reasons else "202 taken"


def _accounted(account: Account, outcome: Outcome, tally: Tally) -> list[str]:
    """Whether each record has become its score or one error, and the counters say the same."""
    scores = {row: (key, prediction) for row, key, prediction in outcome.scored}
    errors = {error.row: error for error in outcome.errors}
    total = len(account.records)
    tally.rows += total
    tally.codes.update(error.code for error in outcome.errors)
    if outcome.state not in TERMINAL or outcome.counts != (total, len(outcome.scored), len(outcome.errors), 0):
        return [f"{total} records, {len(outcome.scored)} scores, {len(outcome.errors)} errors: {outcome}"]
    if sorted([*(row for row, *_ in outcome.scored), *(error.row for error in outcome.errors)]) != list(
        range(1, total + 1)
    ):
        return [f"rows that are twice or nowhere: scores {sorted(scores)}, errors {sorted(errors)}, of {total}"]
    problems = (_row(account, row, scores.get(row), errors.get(row)) for row in range(1, total + 1))
    return [problem for problem in problems if problem]


def _row(account: Account, row: int, score: tuple[str | None, str] | None, error: Any) -> str | None:
    record = account.records[row - 1]
    key = account.key(record.cells)
    wanted = expected(account, record.cells)
    if error is not None:
        if wanted not in (FAULTY, EITHER):
            return f"row {row} {record.cells} should score {wanted}, but is an error: {error.code} {error.message}"
        if error.line != record.line:
            return f"row {row} begins on line {record.line}, its error says {error.line}"
        return (
            None if error.record_key == key else f"row {row} has the key {key!r}, its error says {error.record_key!r}"
        )
    assert score is not None
    if wanted is FAULTY:
        return f"row {row} {record.cells} should be an error, but scored {score[1]}"
    if wanted is not EITHER and float(score[1]) != wanted:
        return f"row {row} {record.cells} should score {wanted}, but scored {score[1]}"
    return None if score[0] == key else f"row {row} has the key {key!r}, its score {score[0]!r}"


def _downloaded(inside: InProcess, each: Input, account: Account, job_id: str, errors: set[int]) -> list[str]:
    """Whether the downloads hold the caller's own cells, in order, and no formula unless that was asked for."""
    scored = [record.cells for row, record in enumerate(account.records, 1) if row not in errors]
    width = len(account.header)
    problems = []
    rows = inside.get(f"/v1/jobs/{job_id}").get_json()["rows"]
    if (rows["total"], rows["errored"], rows["pending"]) != (len(account.records), len(errors), 0):
        problems.append(f"the API says {rows}")
    kept = _table(inside, job_id, each.delimiter, include="inputs", formulas="keep")
    if [cells[:width] for cells in kept] != [account.header, *scored]:
        problems.append("the results with formulas kept do not hold the inputs")
    safe = _table(inside, job_id, each.delimiter, include="inputs")
    for before, after in zip([account.header, *scored], safe, strict=True):
        if any(not _is_safe(cell, now) for cell, now in zip(before, after[:width], strict=True)):
            problems.append(f"{before} became {after}")
    short = _table(inside, job_id, ",")
    if len(short) != len(scored) + 1 or any(_runs(cell) for cells in short for cell in cells):
        problems.append(f"the results without inputs are {short}")
    lines = inside.get(f"/v1/jobs/{job_id}/errors").text
    table = list(csv.reader(io.StringIO(lines, newline="")))
    if len(table) != len(errors) + 1 or any(_runs(cell) for cells in table for cell in cells):
        problems.append(f"the row errors are {table}")
    return problems


def _table(inside: InProcess, job_id: str, delimiter: str, **query: str) -> list[list[str]]:
    answer = inside.get(f"/v1/jobs/{job_id}/results", **query)
    assert answer.status_code == 200, answer.text
    return list(csv.reader(io.StringIO(answer.data.decode(), newline=""), delimiter=delimiter))


def _is_safe(before: str, after: str) -> bool:
    """Text is untouched unless it would run, and then has an apostrophe before it."""
    return after == ("'" + before if _runs(before) else before)


def _runs(cell: str) -> bool:
    """Whether a spreadsheet may take a cell for a formula; a number with a sign or padding is a number."""
    return cell.startswith(("=", "+", "-", "@", "\t", "\r")) and not NUMBER.fullmatch(cell.strip(" \t"))
