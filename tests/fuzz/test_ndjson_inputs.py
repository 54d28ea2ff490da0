"""Fuzzed NDJSON and JSON through the whole pipeline: never a 500, and every line accounted for."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from csv_inputs import Trickle
from hostile_texts import TEXTS
from in_process import TYPES, InProcess

from api import predict

SEED, INPUTS = 6, 250
GOOD: dict[str, Any] = {
    "id": "k",
    "amount": 1.5,
    "visits": 2,
    "segment": "gold",
    "active": True,
    "note": "x",
    "seen": None,
}
ODD = [
    None, True, "", "NA", 1e308, -0.0, 10**400, 2**53, 1.5, [], {}, [[[]]], {"a": {"b": 1}}, "\ud800", "\0", "x" * 300,
    "2013-04-30", float("nan"), float("inf"), *TEXTS.values(),
]  # fmt: skip
LINES = [
    b"", b" ", b"\t\r", b"[]", b"1", b'"x"', b"null", b"{", b"}", b"{}", b'{"amount":1', b"\xff\xfe", b"\xed\xa0\x80",
    b'{"a":1}{"b":2}', b"[" * 5_00, b'{"a":' * 200, b"NaN", b'{"amount": 01}', b"\xef\xbb\xbf{}", b"// x", b"{'a': 1}",
]  # fmt: skip


def line(chance: random.Random) -> bytes:
    if chance.random() < 0.2:
        return chance.choice(LINES)
    record = dict(GOOD)
    for name in record:
        if chance.random() < 0.08:
            record[name] = chance.choice(ODD)
    if chance.random() < 0.1:
        del record[chance.choice(list(record))]
    if chance.random() < 0.1:
        record[chance.choice(list(TEXTS.values()))] = chance.choice(ODD)
    return json.dumps(record, ensure_ascii=chance.random() < 0.5).encode("utf-8", "surrogatepass")


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def is_sound(text: bytes) -> bool:
    """Whether a line is plainly a good record."""
    try:
        found = json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {name: found.get(name) for name in GOOD} == GOOD and set(TYPES) <= set(found)


def test_every_line_is_accounted_for(inside: InProcess) -> None:
    submitted: list[tuple[int, list[bytes], str]] = []
    for number in range(INPUTS):
        chance = random.Random(f"{SEED}/{number}")
        first = [json.dumps(GOOD).encode()] if chance.random() < 0.8 else []
        lines = first + [line(chance) for _ in range(chance.choice([0, 1, 3, 8]))]
        body = chance.choice([b"\n", b"\r\n"]).join(lines)
        answer = inside.upload(Trickle(body, chance.choice([3, 1 << 18])), {"Content-Type": "application/x-ndjson"})
        assert answer.status_code in (202, 422), (number, answer.text)
        if answer.status_code == 202:
            records = [each for each in body.replace(b"\r\n", b"\n").split(b"\n") if each.strip(b" \t\r\n")]
            submitted.append((number, records, answer.get_json()["id"]))
        else:
            assert answer.mimetype == "application/problem+json"
    assert len(submitted) > INPUTS // 3, "hardly anything is taken; the generator is too wild"
    inside.score()
    outcomes = inside.outcomes([job_id for *_, job_id in submitted])
    for number, records, job_id in submitted:
        outcome = outcomes[job_id]
        scored, errors = {row for row, *_ in outcome.scored}, {error.row for error in outcome.errors}
        assert outcome.counts == (len(records), len(scored), len(errors), 0), number
        assert scored | errors == set(range(1, len(records) + 1)), number
        assert not scored & errors, number
        sound = {row for row, text in enumerate(records, 1) if is_sound(text)}
        assert sound <= scored, (number, [records[row - 1] for row in sound - scored])


def test_no_json_body_breaks_a_route(inside: InProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the value, and however it is broken: an answer below 500."""
    monkeypatch.setattr(predict, "_WAIT_SECONDS", 0.0)  # nobody scores meanwhile
    chance = random.Random(SEED)
    for path in ("/v1/jobs", "/predict", "/predict/batch", "/v1/labels?model=adding", "/v1/models/adding/rollback"):
        for _ in range(40):
            body = chance.choice(
                [line(chance), b"[" + line(chance) + b"]", b'{"model":"adding","inputs":' + line(chance) + b"}"]
            )
            answer = inside.http.post(
                path, data=body, content_type="application/json", headers={**inside.bearer_of_all, "Prefer": "wait=0"}
            )
            assert answer.status_code < 500, (path, body, answer.text)
