"""A challenger on its way into the registry: its files, its version with its lineage, and the run that it belongs to."""

from __future__ import annotations

import importlib.metadata
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Engine

from db import models, trainings
from db.engine import transaction
from db.models import NewVersion, Version
from errors import Fenced
from registry.store import ArtefactStore
from settings import Settings
from training.artefact import write_artefact
from training.contest import Contest, Material
from training.reference_sample import write_reference
from training.target import Target
from training.train import as_fitted, libraries

_BLOCK = 1 << 20


@dataclass(frozen=True)
class House:
    """Where things are."""

    engine: Engine
    store: ArtefactStore
    settings: Settings

    @property
    def cache(self) -> Path:
        return Path(self.settings.data_dir) / "cache"


def handed_in(
    house: House,
    run: Any,
    champion: Version,
    found: Material,
    result: Contest,
    *,
    target: Target,
    recipe: str | None,
    version: str,
    seed: int,
) -> Any:
    """Store artefact and reference, and record the version together with what is known of the run; returns the run.

    Raises:
        Fenced: another worker has the run by now; nothing is recorded.
    """
    document = _document(champion, version, found, result, recipe)
    rows = as_fitted(result.model, found.rows)
    with tempfile.TemporaryDirectory() as folder:
        artefact = write_artefact(result.model, Path(folder))
        reference = Path(folder) / "reference.csv"
        write_reference(rows, found.hold_out, reference, seed=seed)
        digest, size = house.store.put(_blocks(artefact.path), house.settings.max_artefact_bytes)
        reference_digest, reference_size = house.store.put(_blocks(reference), house.settings.max_artefact_bytes)
    new = NewVersion(
        tenant=champion.tenant,
        model=champion.model,
        version=version,
        digest=digest,
        reference_digest=reference_digest,
        format=artefact.format,
        runtime="sklearn",
        size=size,
        key_column=champion.key_column,
        target_column=target.name,
        trusted=artefact.trust,  # these bytes were written here
        created_by="training",
        lineage={
            "parent": champion.version,
            "training_run": str(run.id),
            "recipe": recipe,
            "seed": seed,
            "training_data": found.digest,
            "training_rows": found.document["rows"]["training"],
            "hold_out_rows": found.document["rows"]["hold_out"],
            "split": found.document["split"],
            "hold_out_metrics": result.challenger.to_json(),
            "libraries": libraries(),
            "code_revision": f"scorehouse {importlib.metadata.version('scorehouse')}",
        },
        candidate=True,
        reference_size=reference_size,
    )
    with transaction(house.engine) as connection:
        version_id = models.add_version(connection, new)
        if not trainings.note(
            connection, run, champion_version_id=champion.id, challenger_version_id=version_id, document=document
        ):
            raise Fenced(f"the training {run.id} was taken over by another worker")
        return trainings.get(connection, run.model_id, run.id)


def _document(champion: Version, version: str, found: Material, result: Contest, recipe: str | None) -> dict[str, Any]:
    return {
        **found.document,
        "recipe": recipe,
        "champion": {"version": champion.version, "metrics": result.champion.to_json()},
        "challenger": {"version": version, "metrics": result.challenger.to_json()},
        "comparison": result.comparison.to_json(),
        "candidates": result.candidates,
        "notes": result.notes,
    }


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block
