"""Taking in what is registered: the form is read from front to back, its files go to the store as they arrive."""

from __future__ import annotations

from flask import request

from api import schemas
from api.auth import caller
from api.bodies import FilePart, Multipart
from api.context import context
from db.models import NewVersion
from errors import InvalidInput, Problem, UnsupportedMedia
from registry import signature_file
from registry.signature_file import EditedSignature

_FORMATS = {".joblib": "joblib", ".pkl": "joblib", ".pickle": "joblib", ".skops": "skops", ".onnx": "onnx"}
_RUNTIMES = {"joblib": "sklearn", "skops": "sklearn", "onnx": "onnx"}
_RUNS_CODE = {"joblib"}
# A signature names all categories of all columns.
_MAX_FIELD_BYTES = 1 << 20


def receive(model: str) -> NewVersion:
    """Read the form of the current request.

    Raises:
        UnsupportedMedia, InvalidInput, TooLarge: says what is wrong, and where.
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
        stored[part.name] = _store(part, fields)
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


def _store(part: FilePart, fields: schemas.RegistrationFields) -> tuple[str, int, str]:
    """Digest, size in bytes, and format of a file of the form."""
    if part.name not in ("reference", "artefact"):
        raise InvalidInput(
            f"unexpected file {part.name!r}; send `reference` and `artefact`",
            [Problem("is unexpected", f"#/{part.name}")],
        )
    kind = _format(part.filename, fields) if part.name == "artefact" else "csv"
    digest, size = context().store.put(part.blocks, context().settings.max_artefact_bytes)
    if size == 0:
        detail = f"the {part.name} {part.filename!r} is empty; send the file that the model was saved to"
        if part.name == "reference":
            detail = f"the reference {part.filename!r} is empty; send a CSV with a header and some rows"
        raise InvalidInput(detail, [Problem(detail, f"#/{part.name}")])
    return digest, size, kind


def _format(filename: str, fields: schemas.RegistrationFields) -> str:
    kind = next((kind for ending, kind in _FORMATS.items() if filename.lower().endswith(ending)), None)
    if kind is None:
        detail = f"the artefact {filename!r} is of no known format; name it .skops, .joblib, .pkl or .onnx"
        raise InvalidInput(detail, [Problem(detail, "#/artefact")])
    if fields.runtime not in ("auto", _RUNTIMES[kind]):
        detail = f"the artefact {filename!r} is run by {_RUNTIMES[kind]}, not by {fields.runtime}"
        remedy = "leave `runtime` at auto"
        if fields.runtime == "onnx":
            remedy += ", or convert the model with skl2onnx and register the .onnx file"
        raise InvalidInput(f"{detail}; {remedy}", [Problem(detail, "#/runtime")])
    if kind in _RUNS_CODE and not fields.trust:
        detail = (
            "a joblib or pickle file runs code when it is loaded: set `trust` (--trust) if you trust whoever made it, "
            "or save the model with skops"
        )
        raise InvalidInput(detail, [Problem(detail, "#/trust")])
    return kind
