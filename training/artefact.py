"""A fitted estimator as a file: skops, which loads without code, where it knows all types; else joblib."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import skops.io


@dataclass(frozen=True)
class Artefact:
    """`trust`: whether it must be registered with trust, because it runs code when it is loaded."""

    path: Path
    format: str
    trust: bool


def write_artefact(model: Any, folder: Path) -> Artefact:
    """Write `model.skops` or `model.joblib` into a folder."""
    data = _as_skops(model)
    if data is not None:
        path = folder / "model.skops"
        path.write_bytes(data)
        return Artefact(path, "skops", trust=False)
    path = folder / "model.joblib"
    joblib.dump(model, path)
    return Artefact(path, "joblib", trust=True)


def _as_skops(model: Any) -> bytes | None:
    """None when skops cannot hold the model, or would refuse a type of it."""
    try:
        data: bytes = skops.io.dumps(model)
    except Exception:  # whatever it cannot write, joblib can
        return None
    return None if skops.io.get_untrusted_types(data=data) else data
