"""Taking in what is registered: the form is read from front to back, its files go to the store as they arrive."""

from __future__ import annotations

import sys

from flask import request

from api import schemas
from api.auth import caller
from api.bodies import FilePart, Multipart
from api.context import context
from db import usage
from db.engine import transaction
from db.models import NewVersion
from errors import InvalidInput, OverQuota, Problem, TooLarge, UnsupportedMedia
from registry import signature_file
from registry.signature_file import EditedSignature

_FORMATS = {".joblib": "joblib", ".pkl": "joblib", ".pickle": "joblib", ".skops": "skops", ".onnx": "onnx"}
_RUNTIMES = {"joblib": "sklearn", "skops": "sklearn", "onnx": "onnx"}
_RUNS_CODE = {"joblib"}
_EXPECTED = {
    "artefact": "the file that the model was saved to",
    "reference": "a CSV with a header and some hundreds of rows",
}
_SMALLER = {
    "artefact": "make the model smaller, or raise SCOREHOUSE_MAX_ARTEFACT_BYTES",
    "reference": "some ten thousand rows are plenty; else raise SCOREHOUSE_MAX_REFERENCE_BYTES",
}
# A signature names all categories of all columns.
_MAX_FIELD_BYTES = 1 << 20


def receive(model: str) -> NewVersion:
    """Read the form of the current request.

    Raises:
        UnsupportedMedia, InvalidInput, TooLarge, OverQuota: says what is wrong, and where.
    """
    if request.mimetype != "multipart/form-data":
        raise UnsupportedMedia(
            "send multipart/form-data with the fields first, then the files `reference` and `artefact`"
        )
    form, known = Multipart(request, max_field_bytes=_MAX_FIELD_BYTES), dict[str, str]()
    stored: dict[str, tuple[str, int, str]] = {}
    fields: schemas.RegistrationFields | None = None
    while (part := form.next_file()) is not None:
        if fields is None:
            known = dict(form.fields)
            fields = schemas.RegistrationFields.model_validate(known)
            signature = _signature(fields)
        stored[part.name] = _store(part, fields, taken=sum(size for _, size, _ in stored.values()))
    missing = [name for name in ("reference", "artefact") if name not in stored]
    if missing or fields is None:
        raise InvalidInput(
            f"the form lacks the file {' and '.join(missing)}",
            [Problem("is required", f"#/{name}") for name in missing],
        )
    form.check_nothing_after(known)
    digest, size, kind = stored["artefact"]
    return NewVersion(
        tenant=caller().tenant,
        model=model,
        version=fields.version,
        digest=digest,
        reference_digest=stored["reference"][0],
        format=kind,
        runtime=_RUNTIMES[kind],
        size=size,
        key_column=fields.key if signature is None else signature.key,
        target_column=fields.target if signature is None else signature.target,
        trusted=fields.trust,
        created_by=caller().subject,
        lineage={} if fields.lineage is None else fields.lineage.model_dump(exclude_none=True),
        candidate=fields.candidate,
        mismatch_allowed=fields.allow_version_mismatch,
        signature=None if signature is None else signature.model_dump(mode="json"),
        reference_size=stored["reference"][1],
        wanted_runtime=fields.runtime,
        quantise_within=fields.quantise_within,
    )


def _signature(fields: schemas.RegistrationFields) -> EditedSignature | None:
    """The edited signature with the form's key and target, which it must not contradict."""
    if fields.signature is None:
        return None
    edited = signature_file.parse(fields.signature)
    for name, stated, written in (("key", fields.key, edited.key), ("target", fields.target, edited.target)):
        if stated is not None and written is not None and stated != written:
            detail = f"the {name} is {stated!r} in the form and {written!r} in the signature; leave one of them out"
            raise InvalidInput(detail, [Problem(detail, f"#/{name}")])
    return edited.model_copy(update={"key": edited.key or fields.key, "target": edited.target or fields.target})


def _store(part: FilePart, fields: schemas.RegistrationFields, *, taken: int) -> tuple[str, int, str]:
    """Digest, size in bytes, and format of a file of the form, of which `taken` bytes were stored before."""
    if part.name not in _EXPECTED:
        raise InvalidInput(
            f"unexpected file {part.name!r}; send `reference` and `artefact`",
            [Problem("is unexpected", f"#/{part.name}")],
        )
    kind = _format(part.filename, fields) if part.name == "artefact" else "csv"
    limit: int = getattr(context().settings, f"max_{part.name}_bytes")
    left = _bytes_left(taken)
    try:
        digest, size = context().store.put(part.blocks, min(limit, left))
    except TooLarge as exc:
        if left < limit:
            raise _over_quota(taken + left) from exc
        raise TooLarge(f"the {part.name} {part.filename!r} is too large: {exc}; {_SMALLER[part.name]}") from exc
    if size == 0:
        detail = f"the {part.name} {part.filename!r} is empty; send {_EXPECTED[part.name]}"
        raise InvalidInput(detail, [Problem(detail, f"#/{part.name}")])
    return digest, size, kind


def _bytes_left(taken: int) -> int:
    """What the tenant may still store; the registration counts at its end, but a file too many is not stored at all."""
    with transaction(context().engine) as connection:
        left = usage.bytes_left(connection, caller().tenant, context().limits.of(caller().tenant))
    return sys.maxsize if left is None else max(left - taken, 0)


def _over_quota(left: int) -> OverQuota:
    limit = context().limits.of(caller().tenant).bytes_stored or 0
    with transaction(context().engine) as connection:
        return usage.over(connection, "bytes_stored", limit, limit - left, left + 1)


def _format(filename: str, fields: schemas.RegistrationFields) -> str:
    kind = next((kind for ending, kind in _FORMATS.items() if filename.lower().endswith(ending)), None)
    if kind is None:
        detail = f"the artefact {filename!r} is of no known format; name it .skops, .joblib, .pkl or .onnx"
        raise InvalidInput(detail, [Problem(detail, "#/artefact")])
    if fields.runtime == "sklearn" and _RUNTIMES[kind] != "sklearn":
        detail = f"the artefact {filename!r} is run by {_RUNTIMES[kind]}, not by sklearn; leave `runtime` at auto"
        raise InvalidInput(detail, [Problem(detail, "#/runtime")])
    if kind in _RUNS_CODE and not fields.trust:
        detail = (
            "a joblib or pickle file runs code when it is loaded: set `trust` (--trust) if you trust whoever made it, "
            "or save the model with skops"
        )
        raise InvalidInput(detail, [Problem(detail, "#/trust")])
    return kind
