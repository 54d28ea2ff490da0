"""Every kind of model is registered, scores files and single records as it does alone, and is audited."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from house import House
from kinds import KINDS, Kind
from toys import to_csv

DAY = {"window": "1d", "end": "2021-06-02T00:00:00Z"}


def text(label: object) -> str:
    """A label as results spell it."""
    return str(label).lower() if isinstance(label, bool) else str(label)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_of_model(house: House, tmp_path: Path, name: str) -> None:
    kind, model_name = KINDS[name], f"kind-{name}"
    reference = kind.records(400, seed=1)
    model = kind.fitted(reference)
    artefact = tmp_path / f"model.{kind.ending}"
    kind.save(model, reference, artefact)
    (tmp_path / "reference.csv").write_bytes(to_csv(reference))
    version = house.client.register_version(
        model_name, "1.0.0", artefact, tmp_path / "reference.csv", key="id", target="truth",
        trust=kind.ending in {"joblib", "pkl"},
    )  # fmt: skip
    assert version.runtime == ("onnx" if kind.ending == "onnx" else "sklearn")
    house.client.deploy(model_name, "1.0.0")

    frame = kind.records(700, seed=2)
    labels, probabilities = kind.answers(model, frame)
    inputs = frame.drop(columns="truth")
    job = house.finished(house.upload(to_csv(inputs), model=model_name, as_of="2021-06-01T12:00:00Z"))
    assert (job.state, job.rows.succeeded) == ("succeeded", len(frame))
    rows = house.rows(job.id)
    if isinstance(labels[0], float):
        assert [float(row["prediction"]) for row in rows] == pytest.approx(labels, rel=1e-9)
    else:
        assert [row["prediction"] for row in rows] == [text(label) for label in labels]
    check_probabilities(rows, probabilities, kind)

    single = house.client.wait(
        house.submit(model=model_name, inputs=inputs.drop(columns="id").iloc[0].to_dict()).json["id"], timeout=60
    )
    assert single.result is not None
    assert single.result["prediction"] == (pytest.approx(labels[0]) if isinstance(labels[0], float) else labels[0])
    assert (single.result["probability"] is None) == (probabilities is None)

    truth = frame[["id", "truth"]].rename(columns={"id": "key", "truth": "label"})
    house.call("POST", "/v1/labels", to_csv(truth), {"Content-Type": "text/csv"}, query={"model": model_name})
    found = house.client.audit(model_name, "accuracy", **DAY)
    assert (found["labelled"], found["unknown"]) == (len(frame), 0)
    if isinstance(labels[0], float):
        error = np.abs(np.array(labels) - frame["truth"]).mean()
        assert found["metrics"]["mae"]["value"] == pytest.approx(error, rel=1e-3)
    else:
        hits = np.mean([one == other for one, other in zip(labels, frame["truth"].tolist(), strict=True)])
        assert found["metrics"]["accuracy"]["value"] == pytest.approx(hits)
    drift = house.client.audit(model_name, "drift", **DAY)
    assert drift["rows"] == len(frame)
    assert any(column["name"] == "probability" for column in drift["columns"]) == (probabilities is not None)
    history = house.client.version_metrics(model_name, "1.0.0")
    assert [entry["source"] for entry in history] == ["audit", "registration"]
    assert history[0]["metrics"] == found["metrics"]


def check_probabilities(rows: list[dict[str, str]], probabilities: np.ndarray | None, kind: Kind) -> None:
    columns = [name for name in rows[0] if name.startswith("probability")]
    if probabilities is None:
        assert columns == []
        return
    found = np.array([[float(row[name]) for name in columns] for row in rows])
    expected = probabilities[:, 1:] if probabilities.shape[1] == 2 else probabilities
    assert np.abs(found - expected).max() <= kind.tolerance
