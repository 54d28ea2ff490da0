"""Artefacts that would run code, read files or fill the memory: each is refused, and the marker is absent."""

from __future__ import annotations

import hashlib
import io
import itertools
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import onnx
import pytest
import skops.io
from in_process import InProcess, package
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression

from errors import ArtefactRefused
from registry.runtime import load
from registry.store import ArtefactStore


@dataclass
class Marker:
    """Loaded, it makes a file."""

    path: Path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.fixture
def marker(tmp_path: Path) -> Marker:
    return Marker(tmp_path / "marker")


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def a_skops_model() -> bytes:
    model = LinearRegression().fit(np.arange(8.0).reshape(4, 2), np.arange(4.0))
    return skops.io.dumps(model)  # type: ignore[no-any-return]  # skops has no types


def a_zip(**entries: bytes) -> bytes:
    """A skops file with more entries than it needs."""
    buffer = io.BytesIO(a_skops_model())
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("_up_", "../"), content)
    return buffer.getvalue()


def with_external_weights(location: str) -> bytes:
    """y = x * w with w in a file beside the model."""
    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[2, 1], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        weights.external_data.add(key=key, value=value)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def refused(tmp_path: Path, content: bytes, kind: str) -> str:
    file = tmp_path / "artefact"
    file.write_bytes(content)
    with pytest.raises(ArtefactRefused) as caught:
        load(file, format=kind, digest=digest_of(content))  # type: ignore[arg-type]  # one of the three
    return str(caught.value)


@pytest.mark.parametrize("kind", ["skops", "onnx"])
def test_a_pickle_by_another_name_is_not_unpickled(tmp_path: Path, marker: Marker, kind: str) -> None:
    refused(tmp_path, pickle.dumps(marker), kind)
    assert not marker.path.exists()


@pytest.mark.parametrize("member", ["schema.json", "_up_schema.json"])
def test_a_pickle_inside_a_skops_file_is_not_unpickled(tmp_path: Path, marker: Marker, member: str) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(member.replace("_up_", "../"), pickle.dumps(marker))
    refused(tmp_path, buffer.getvalue(), "skops")
    assert not marker.path.exists()


def test_a_skops_file_writes_nothing_outside_of_itself(tmp_path: Path) -> None:
    """The entries of the zip that are not asked for are never unpacked, whatever they are called."""
    content = a_zip(_up_escaped=b"x", **{"/tmp/scorehouse-escaped": b"x"})
    file = tmp_path / "below" / "artefact"
    file.parent.mkdir()
    file.write_bytes(content)
    load(file, format="skops", digest=digest_of(content))
    assert [path.name for path in tmp_path.rglob("*")] == ["below", "artefact"]
    assert not Path("/tmp/scorehouse-escaped").exists()


@pytest.mark.parametrize("location", ["../../etc/passwd", "/etc/passwd", "weights.bin", "./weights.bin"])
def test_an_onnx_file_reads_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str) -> None:
    (tmp_path / "weights.bin").write_bytes(np.array([1, 2], np.float32).tobytes())
    monkeypatch.chdir(tmp_path)
    told = refused(tmp_path, with_external_weights(location), "onnx")
    assert "root:" not in told


def test_the_weights_in_the_file_itself_are_taken(tmp_path: Path) -> None:
    """The other half of the test above: it is the place of the weights that is refused."""
    model = onnx.load_from_string(with_external_weights("weights.bin"))
    weights = model.graph.initializer[0]
    weights.ClearField("external_data")
    weights.data_location = TensorProto.DEFAULT
    weights.raw_data = np.array([1, 2], np.float32).tobytes()
    content = bytes(model.SerializeToString())
    (tmp_path / "artefact").write_bytes(content)
    load(tmp_path / "artefact", format="onnx", digest=digest_of(content))


def test_a_link_in_the_store_leads_to_nothing_else(tmp_path: Path) -> None:
    """Its content would have to have the digest that the registry vouches for."""
    store = ArtefactStore(tmp_path.joinpath("store").as_uri())
    digest, _ = store.put([b"content"], 100)
    secret = tmp_path / "secret"
    secret.write_bytes(b"do not show this")
    place = next(path for path in (tmp_path / "store").rglob("*") if path.is_file() and digest[7:] == path.name)
    place.unlink()
    place.symlink_to(secret)
    with pytest.raises(ArtefactRefused) as caught:
        store.fetch(digest, tmp_path / "cache")
    assert "do not show this" not in str(caught.value)
    assert not any(b"do not" in path.read_bytes() for path in (tmp_path / "cache").rglob("*") if path.is_file())


def test_a_file_that_nobody_registered_is_not_loaded(inside: InProcess, marker: Marker) -> None:
    """It lies in the store under its own digest, as an intruder would put it there."""
    ArtefactStore(inside.settings.resolved_artefact_url()).put([pickle.dumps(marker)], 10_000)
    inside.child.register()
    inside.child.heartbeat._beat()
    inside.child.deploy()
    inside.score()
    assert not marker.path.exists()


Content = Callable[[Marker], bytes]
NUMBERS = itertools.count()


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("model.joblib", pickle.dumps, 422),  # without trust
        ("model.pkl", pickle.dumps, 422),
        ("model.PKL", pickle.dumps, 422),
        ("model.skops.joblib", pickle.dumps, 422),
        ("model.exe", pickle.dumps, 422),
        ("../../model.skops", pickle.dumps, 202),  # it is not what it says, which the worker finds out
        ("model.skops", pickle.dumps, 202),
        ("model.onnx", pickle.dumps, 202),
        ("model.onnx", lambda _: with_external_weights("../../etc/passwd"), 202),
    ],
)
def test_a_hostile_registration(
    inside: InProcess, marker: Marker, tmp_path: Path, *, name: str, content: Content, status: int
) -> None:
    _, reference, _ = package(tmp_path)
    version = f"9.0.{next(NUMBERS)}"
    answer = inside.http.post(
        "/v1/models/hostile/versions",
        data={
            "version": version,
            "reference": (io.BytesIO(reference.read_bytes()), "reference.csv"),
            "artefact": (io.BytesIO(content(marker)), name),
        },
        headers=inside.bearer("models:write"),
    )
    assert answer.status_code == status, answer.text
    inside.child.register()
    if status == 202:
        found = inside.get(f"/v1/models/hostile/versions/{version}").get_json()
        assert found["state"] == "failed"
        assert "cannot be loaded" in found["error"] or "refused" in found["error"] or "trust" in found["error"]
    assert not marker.path.exists()


def test_a_trusted_pickle_that_was_changed_afterwards_is_not_loaded(tmp_path: Path, marker: Marker) -> None:
    """Trust is for the bytes that were registered."""
    store = ArtefactStore(tmp_path.joinpath("store").as_uri())
    buffer = io.BytesIO()
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), buffer)
    digest, _ = store.put([buffer.getvalue()], 1 << 20)
    place = next(path for path in (tmp_path / "store").rglob("*") if path.name == digest[7:])
    place.chmod(0o600)
    place.write_bytes(pickle.dumps(marker))
    with pytest.raises(ArtefactRefused):
        load(store.fetch(digest, tmp_path / "cache"), format="joblib", digest=digest)
    assert not marker.path.exists()
