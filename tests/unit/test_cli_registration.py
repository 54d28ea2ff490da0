"""`scorehouse models register` with all that may be declared, `models signature` and `models metrics`."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine, Outcome
from scripted_api import Answer, ScriptedApi

from registry.signature_file import parse

SIGNATURE = {
    "key": "id", "target": "late",
    "columns": [{"name": "hour", "type": "integer", "nullable": False, "categories": None, "minimum": 0, "maximum": 23}],
    "output": {"kind": "regression"}, "frame": "object",
}  # fmt: skip
VERSION = {
    "model": "flights", "version": "1.3.0", "state": "registered", "stage": "candidate", "digest": "sha256:ab",
    "format": "onnx", "runtime": "onnx", "signature": SIGNATURE, "metrics": {"accuracy": 0.8},
    "lineage": {"training_data": "sha256:cd", "fitted_with": {"producer": "skl2onnx"}},
}  # fmt: skip
HISTORY = [
    {
        "source": "audit", "at": "2013-07-02T00:01:00Z", "audit": "a", "status": "warn", "rows": 900,
        "window": {"start": "2013-07-01T00:00:00Z", "end": "2013-07-02T00:00:00Z"},
        "metrics": {"accuracy": {"value": 0.7777, "low": 0.7, "high": 0.8}},
    },
    {
        "source": "registration", "at": "2013-06-01T00:00:00Z", "audit": None, "status": None, "rows": 400, "window": None,
        "metrics": {"accuracy": {"value": 0.8}},
    },
]  # fmt: skip
PATH = "/v1/models/flights/versions/1.3.0"


@pytest.fixture
def api() -> Iterator[ScriptedApi]:
    with ScriptedApi().running() as running:
        running.on("POST", "/v1/models/flights/versions", Answer(202, VERSION))
        running.on("GET", PATH, VERSION)
        running.on("GET", f"{PATH}/metrics", {"model": "flights", "version": "1.3.0", "metrics": HISTORY})
        yield running


@pytest.fixture
def fields(api: ScriptedApi, scorehouse: CommandLine, tmp_path: Path) -> Any:
    """Register with more options; the form's fields."""
    (tmp_path / "model.onnx").write_bytes(b"model")
    (tmp_path / "sample.csv").write_bytes(b"hour\n1\n")

    def register(*options: str) -> dict[str, str]:
        done = scorehouse(
            "models", "register", "model.onnx", "-n", "flights", "--version", "1.3.0", "--reference", "sample.csv", *options
        )  # fmt: skip
        assert done.code == 0, done.err
        body = api.received[-1].body.decode()
        return dict(re.findall(r'name="(\w+)"\r\n(?:[^\r]+\r\n)*\r\n([^\r]*)\r\n', body))

    return register


def test_training_data_is_hashed_and_counted(fields: Any, tmp_path: Path) -> None:
    content = b'hour,note\n1,"two\nlines"\n2,b\n\n3,c'
    (tmp_path / "train.csv").write_bytes(content)
    (tmp_path / "train.csv.gz").write_bytes(gzip.compress(content))
    (tmp_path / "train.parquet").write_bytes(b"PAR1")
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    told = json.loads(fields("--training-data", "train.csv", "--parent", "1.2.0", "--code-revision", "r7")["lineage"])
    assert told == {"training_data": digest, "training_rows": 3, "code_revision": "r7", "parent": "1.2.0"}
    assert json.loads(fields("--training-data", "train.csv.gz")["lineage"])["training_rows"] == 3
    assert "training_rows" not in json.loads(fields("--training-data", "train.parquet")["lineage"])
    told = json.loads(fields("--training-data", digest, "--training-rows", "7")["lineage"])
    assert (told["training_data"], told["training_rows"]) == (digest, 7)


def test_training_data_that_is_not_there_is_a_usage_error(scorehouse: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"model")
    arguments = ("m.onnx", "-n", "m", "--version", "1.0.0", "--reference", "m.onnx", "--training-data", "gone.csv")
    done = scorehouse("models", "register", *arguments)
    assert done.code == 2
    assert b"no file gone.csv" in done.err


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_code_revision_is_that_of_the_folder(fields: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "code_revision" not in json.loads(fields()["lineage"])
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "sample.csv"], [*who, "commit", "-qm", "a sample"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    clean = json.loads(fields()["lineage"])["code_revision"]
    assert re.fullmatch("[0-9a-f]{40}", clean)
    (tmp_path / "sample.csv").write_bytes(b"hour\n2\n")
    assert json.loads(fields()["lineage"])["code_revision"] == f"{clean}-dirty"


def test_flags_and_a_signature_go_along(fields: Any, tmp_path: Path) -> None:
    (tmp_path / "sig.yaml").write_text("columns: [{name: hour, type: integer}]")
    sent = fields("--candidate", "--allow-version-mismatch", "--signature", "sig.yaml", "--runtime", "onnx")
    assert sent["signature"] == "columns: [{name: hour, type: integer}]"
    assert (sent["candidate"], sent["allow_version_mismatch"], sent["runtime"]) == ("true", "true", "onnx")
    sent = fields()
    assert (sent["candidate"], sent["allow_version_mismatch"], sent.get("signature")) == ("false", "false", None)


def test_a_signature_comes_out_as_yaml(scorehouse: CommandLine) -> None:
    done: Outcome = scorehouse("models", "signature", "flights@1.3.0")
    edited = parse(done.out.decode())
    assert (edited.key, edited.target, edited.columns[0].maximum) == ("id", "late", 23)
    assert scorehouse("models", "signature", "flights@1.3.0", "--json").json == SIGNATURE
    assert scorehouse("models", "signature", "flights").code == 2


def test_a_version_without_signature_says_why(api: ScriptedApi, scorehouse: CommandLine) -> None:
    api.on("GET", PATH, {**VERSION, "state": "failed", "signature": None})
    done = scorehouse("models", "signature", "flights@1.3.0")
    assert done.code == 1
    assert b"is failed: it has no signature" in done.err


def test_metrics_over_time(scorehouse: CommandLine) -> None:
    done = scorehouse("models", "metrics", "flights@1.3.0")
    assert done.code == 0
    audit, registration = done.out.decode().splitlines()[1:]
    assert "audit" in audit
    assert "0.7777" in audit
    assert "registration" in registration
    assert scorehouse("models", "metrics", "flights@1.3.0", "--json").json["metrics"] == HISTORY


def test_show_tells_stage_and_lineage(scorehouse: CommandLine) -> None:
    out = scorehouse("models", "show", "flights@1.3.0").out.decode()
    assert re.search(r"stage +candidate", out)
    assert re.search(r"training_data +sha256:cd", out)
    assert re.search(r"fitted_with +producer skl2onnx", out)
