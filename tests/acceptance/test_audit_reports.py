"""The reports of audits, and the versions of a model side by side, after real scoring of a model with hostile names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from house import Answer, House, register
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from toys import Toy, to_csv

NUMBER, WORD = "<script>alert('n')</script>", '"><img src=x onerror=alert(1)>'
WORDS = ["<b>gold</b>", "{{ 7 * 7 }}", "'; --", "plain"]
NEW = "</svg><svg onload=alert(1)>"
DAY = "2021-03-0{}T12:00:00Z"


class Page(HTMLParser):
    """The elements and the text of a page as a browser would read them."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(answer.body.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data

    def check(self) -> None:
        assert not set(self.tags) & {"script", "img", "iframe", "b", "link"}
        assert not [name for name, _ in self.attributes if name.startswith("on") or name in ("src", "style")]


@dataclass(frozen=True)
class Hostile:
    """Two versions of a model whose columns and categories would like to run as code."""

    frame: pd.DataFrame
    models: dict[str, Any]

    def score(self, house: House, frame: pd.DataFrame, as_of: str, version: str = "1.0.0") -> None:
        body = to_csv(frame.drop(columns="left"))
        job = house.finished(house.upload(body, model="hostile", version=version, as_of=as_of))
        assert job.rows.succeeded == len(frame), job


def people(count: int, seed: int) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    number, word = random.normal(50, 20, count).round(2), random.choice(WORDS, count)
    left = (number / 50 + random.normal(0, 0.3, count) > 1).astype(int)
    keys = [f"h{seed}-{place}" for place in range(count)]
    return pd.DataFrame({"id": keys, NUMBER: number, WORD: word, "left": left})


@pytest.fixture(scope="module")
def hostile(house: House, tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    folder, frame = tmp_path_factory.mktemp("hostile"), people(800, seed=1)
    models: dict[str, Any] = {}
    for version, strength in (("1.0.0", 1.0), ("1.1.0", 1e-6)):
        encoded = ColumnTransformer(
            [("number", "passthrough", [NUMBER]), ("word", OneHotEncoder(handle_unknown="ignore"), [WORD])]
        )
        model = make_pipeline(encoded, LogisticRegression(C=strength, max_iter=500))
        models[version] = model.fit(frame[[NUMBER, WORD]], frame["left"])
        artefact, reference = folder / f"{version}.joblib", folder / "reference.csv"
        joblib.dump(model, artefact)
        reference.write_bytes(to_csv(frame))
        register(house, Toy("hostile", model, frame, "id", "left", artefact, Path(reference)), version)
    house.client.deploy("hostile", "1.0.0")
    return Hostile(frame, models)


def report(house: House, audit: dict[str, Any], **more: Any) -> Answer:
    return house.call("GET", audit["links"]["report"], **more)


def audited(house: House, kind: Any, end: str, window: str = "1d") -> dict[str, Any]:
    """The audit of a window, as the API answers it."""
    document = house.client.audit("hostile", kind, window=window, end=end)
    (found,) = [each for each in house.client.audits("hostile", kind) if each["document"] == document]
    return found


def test_a_drift_report_shows_each_column_and_runs_nothing(house: House, hostile: Hostile) -> None:
    hostile.score(house, people(600, seed=2), DAY.format(1))
    moved = people(700, seed=3)
    moved[NUMBER] += 40
    moved[WORD] = NEW
    hostile.score(house, moved, DAY.format(2))
    audited(house, "drift", "2021-03-02T00:00:00Z")
    audit = audited(house, "drift", "2021-03-03T00:00:00Z")
    assert audit["status"] == "critical"
    answer = report(house, audit)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    page = Page(answer)
    page.check()
    for told in (NUMBER, WORD, WORDS[0], WORDS[1], "700", "critical", "probability"):
        assert told in page.text
    assert page.text.count("reference and window") == 4, "of both columns, the prediction and the probability"
    assert re.search(r"\(unseen\): reference 0\.00%, window 100\.00%", page.text)
    assert "2 windows; the newest value is" in page.text
    assert house.client.audit_report(audit["id"]) == answer.body


def test_an_accuracy_report_tells_the_versions_apart(house: House, hostile: Hostile) -> None:
    expected = []
    for seed, version in ((4, "1.0.0"), (5, "1.1.0")):
        frame = people(500 + seed, seed)
        hostile.score(house, frame, DAY.format(4), version)
        labels = to_csv(frame[["id", "left"]].rename(columns={"id": "key", "left": "label"}))
        answer = house.call("POST", "/v1/labels", labels, {"Content-Type": "text/csv"}, query={"model": "hostile"})
        assert answer.json["matched"] == len(frame)
        guess = hostile.models[version].predict(frame[[NUMBER, WORD]])
        expected.append(
            {
                "version": version,
                "scored": len(frame),
                "labelled": len(frame),
                "metrics": {
                    "accuracy": pytest.approx(accuracy_score(frame["left"], guess)),
                    "f1": pytest.approx(f1_score(frame["left"], guess, average="weighted")),
                },
            }
        )
    audit = audited(house, "accuracy", "2021-03-05T00:00:00Z")
    document = audit["document"]
    found = sorted(document["by_version"], key=lambda each: str(each["version"]))
    assert found == expected
    assert found[0]["metrics"]["accuracy"] == document["metrics"]["accuracy"]["value"]
    assert (document["scored"], document["labelled"]) == (504, 504)
    assert list(document["metrics"])[:4] == ["accuracy", "precision", "recall", "f1"]
    page = Page(report(house, audit))
    page.check()
    for told in ("By version", "1.1.0", f"{found[1]['metrics']['accuracy']:.4g}", "505"):
        assert told in page.text


def test_labels_of_another_version_that_come_later_are_counted_too(house: House, hostile: Hostile) -> None:
    frame = people(300, seed=6)
    hostile.score(house, frame, DAY.format(6), "1.1.0")
    window = {"window": "1d", "end": "2021-03-07T00:00:00Z"}
    assert house.client.audit("hostile", "accuracy", **window)["by_version"] == []
    house.client.put_labels("hostile", [{"key": key, "label": 1} for key in frame["id"][:100]])
    document = house.client.audit("hostile", "accuracy", **window)
    (other,) = document["by_version"]
    assert (other["version"], other["scored"], other["labelled"]) == ("1.1.0", 300, 100)
    assert document["labelled"] == 0


def test_an_audit_that_waits_has_no_report_yet(house: House, hostile: Hostile) -> None:
    with house.paused_workers():
        asked = house.call("POST", "/v1/models/hostile/audits", {"kind": "drift", "window": "1h"}).json
        answer = report(house, asked)
        assert (answer.status, answer.headers["Retry-After"]) == (409, "1")
        assert f"poll {asked['links']['self']}" in answer.told
    assert house.until(lambda: house.call("GET", asked["links"]["self"]).json["state"] == "done")
    assert "insufficient data" in Page(report(house, asked)).text


def test_rows_that_come_after_the_audit_are_not_drawn_as_if_it_had_seen_them(house: House, hostile: Hostile) -> None:
    hostile.score(house, people(500, seed=7), DAY.format(8))
    audit = audited(house, "drift", "2021-03-09T00:00:00Z")
    assert "reference and window" in Page(report(house, audit)).text
    hostile.score(house, people(20, seed=8), DAY.format(8))
    page = Page(report(house, audit))
    assert "The audit saw 500 rows; 520 are stored" in page.text
    assert "reference and window" not in page.text


def test_a_domain_audit_has_a_report(house: House, hostile: Hostile) -> None:
    hostile.score(house, people(600, seed=9), "2021-03-11T12:00:00Z")
    audit = audited(house, "domain", "2021-03-12T00:00:00Z")
    assert audit["status"] == "ok"
    page = Page(report(house, audit))
    page.check()
    assert "domain_auc" in page.text
    assert "(all columns together)" in page.text


def test_another_tenant_sees_no_report(house: House, hostile: Hostile) -> None:
    audit = audited(house, "drift", "2021-03-02T00:00:00Z", window="2h")
    assert report(house, audit).status == 200
    assert report(house, audit, tenant="other").status == 404
    assert house.client.audits("hostile", "drift", window="2h")[0]["window"]["start"] == "2021-03-01T22:00:00Z"
