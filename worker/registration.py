"""Registration in a worker: examine what was uploaded, or say why it cannot be a version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from db import models, profiles
from db.models import Version
from db.profiles import Reference
from errors import InvalidInput, InvalidPackage, NotFound, ScorehouseError
from monitoring.reference import reference_of
from registry.compiled.record import Compiled
from registry.examine import examine
from registry.row_text import storable
from registry.signature_file import EditedSignature
from registry.store import ArtefactStore

_CODE_FORMATS = {"joblib"}


@dataclass(frozen=True)
class Examined:
    """What is stored with the version, as JSON values; `lineage` is what was found, beside what was declared."""

    signature: dict[str, Any]
    golden: list[dict[str, Any]]
    metrics: dict[str, Any]
    lineage: dict[str, Any]
    compiled: dict[str, Any]
    seconds_per_row: float
    reference: Reference


def examine_version(version: Version, store: ArtefactStore, cache: Path) -> Examined:
    """Load the artefact, infer the signature from the reference, and score all of the reference.

    Raises:
        InvalidPackage, ArtefactRefused: it cannot be a version; says why.
    """
    if version.format in _CODE_FORMATS and not version.trusted:
        raise InvalidPackage(
            "a joblib or pickle file runs code when it is loaded; register it with --trust, or as skops"
        )
    try:
        artefact = store.fetch(version.digest, cache)
        reference = store.fetch(version.reference_digest, cache)
    except NotFound as exc:
        raise InvalidPackage(str(exc)) from exc
    package = examine(
        artefact,
        format=version.format,  # type: ignore[arg-type]  # checked when it was uploaded
        digest=version.digest,
        reference=reference,
        key=version.key_column,
        target=version.target_column,
        edited=None if version.edited_signature is None else EditedSignature.model_validate(version.edited_signature),
        mismatch_allowed=version.mismatch_allowed,
        # A version that a release before took in says nothing.
        wanted=(version.compiled or {}).get("wanted", "sklearn"),
        within=(version.compiled or {}).get("quantise_within"),
        put=lambda content: store.put(iter([content]), len(content))[0],
    )
    assert package.sample is not None, "it was examined just now"
    return Examined(
        signature=package.signature.model_dump(mode="json"),
        golden=[row.model_dump(mode="json") for row in package.golden],
        metrics=dict(package.metrics),
        lineage={
            "reference_digest": version.reference_digest,
            "fitted_with": package.fitted_with,
            "examined_with": package.examined_with,
        },
        compiled=package.compiled.stored(),
        seconds_per_row=package.seconds_per_row,
        reference=reference_of(package.signature, package.sample),
    )


def complete(connection: Connection, version_id: int, examined: Examined) -> None:
    """Store what was found; from then on the version is registered."""
    models.complete_registration(
        connection,
        version_id,
        signature=examined.signature,
        golden=examined.golden,
        metrics=examined.metrics,
        lineage=examined.lineage,
        compiled=examined.compiled,
        seconds_per_row=examined.seconds_per_row,
    )
    profiles.put_reference(connection, version_id, examined.reference)
    if stored := Compiled.model_validate(examined.compiled).bytes_stored:
        models.count_compiled(connection, version_id, stored)


def reason(error: Exception) -> str:
    """The error with every place it names, for the version's `error`."""
    if not isinstance(error, ScorehouseError):
        return storable(
            f"the model could not be examined ({type(error).__name__}: {error}); the worker's log says more"
        )
    problems = error.problems if isinstance(error, InvalidInput) else []
    return storable("\n".join([str(error), *(f"{problem.pointer}: {problem.detail}" for problem in problems)]))
