"""Models, their immutable versions, and the aliases of those; `db.slots` moves those of production."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import IntegrityError

from db import trail, usage
from db.quotas import Quotas
from db.tables import model, model_alias, model_version
from db.versions import precedence
from errors import Conflict, InvalidInput, NotFound, Problem

# How often a registration may end its worker before it is given up, and how long one may take.
_REGISTRATION_ATTEMPTS = 3
_REGISTRATION_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Version:
    """A model version as scoring needs it."""

    id: int
    model: str
    version: str
    tenant: str
    state: str
    digest: str
    reference_digest: str
    format: str
    runtime: str
    trusted: bool
    key_column: str | None
    target_column: str | None
    signature: dict[str, Any] | None
    golden: list[dict[str, Any]] | None
    lineage: dict[str, Any] | None
    compiled: dict[str, Any] | None
    mismatch_allowed: bool
    edited_signature: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a registration states about a version; `lineage` as `api.schemas.Lineage` has it."""

    tenant: str
    model: str
    version: str
    digest: str
    reference_digest: str
    format: str
    runtime: str
    size: int
    key_column: str | None
    target_column: str | None
    trusted: bool
    created_by: str
    lineage: dict[str, Any] = field(default_factory=dict)
    candidate: bool = False
    mismatch_allowed: bool = False
    signature: dict[str, Any] | None = None
    reference_size: int = 0
    # As `registry.compiled.record.Wanted`: whether a worker may compile it.
    wanted_runtime: str = "auto"
    # How far a quantised form may be off; None: there is to be none.
    quantise_within: float | None = None

    @property
    def compiled(self) -> dict[str, Any]:
        """What is wanted of its forms, until a worker has made them."""
        return {"wanted": self.wanted_runtime, "quantise_within": self.quantise_within}


_VERSION = (
    model_version.c.id,
    model.c.name.label("model"),
    model_version.c.version,
    model.c.tenant,
    model_version.c.state,
    model_version.c.digest,
    model_version.c.reference_digest,
    model_version.c.format,
    model_version.c.runtime,
    model_version.c.trusted,
    model_version.c.key_column,
    model_version.c.target_column,
    model_version.c.signature,
    model_version.c.golden,
    model_version.c.lineage,
    model_version.c.compiled,
    model_version.c.mismatch_allowed,
    model_version.c.edited_signature,
)
_VERSIONS = model_version.join(model, model.c.id == model_version.c.model_id)


def add_version(connection: Connection, new: NewVersion, limits: Quotas | None = None) -> int:
    """Record a version to be examined by a worker; the same content again is the same version.

    Args:
        limits: of the tenant; None for a version that we made ourselves, which counts but is never refused.

    Raises:
        OverQuota: the artefact is more than the tenant may still store.
        Conflict: the version exists with another content; versions are immutable.
        InvalidInput: its parent does not exist.
    """
    connection.execute(insert(model).values(tenant=new.tenant, name=new.model).on_conflict_do_nothing())
    model_id = connection.execute(
        sa.select(model.c.id).where(model.c.tenant == new.tenant, model.c.name == new.model)
    ).scalar_one()
    _check_parent(connection, model_id, new)
    values = {
        "model_id": model_id,
        "version": new.version,
        "state": "registering",
        "digest": new.digest,
        "reference_digest": new.reference_digest,
        "format": new.format,
        "runtime": new.runtime,
        "size": new.size,
        "bytes_stored": new.size + new.reference_size,
        "key_column": new.key_column,
        "target_column": new.target_column,
        "trusted": new.trusted,
        "created_by": new.created_by,
        "declared": new.lineage,
        "wants_candidate": new.candidate,
        "mismatch_allowed": new.mismatch_allowed,
        "compiled": new.compiled,
        "edited_signature": sa.null() if new.signature is None else new.signature,
    }
    try:
        with connection.begin_nested():
            version_id: int = connection.execute(
                sa.insert(model_version).values(**values).returning(model_version.c.id)
            ).scalar_one()
    except IntegrityError:
        return _same_content(connection, model_id, new)
    _record(connection, new)
    usage.take(connection, new.tenant, limits or Quotas(), bytes=new.size + new.reference_size)
    return version_id


def claim_registration(connection: Connection) -> Version | None:
    """Take a version that waits for its examination; a worker that dies with it leaves it to another after a while."""
    due = (
        sa.select(model_version.c.id)
        .where(
            model_version.c.state == "registering",
            sa.or_(model_version.c.lease_until.is_(None), model_version.c.lease_until < sa.func.now()),
        )
        .order_by(model_version.c.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    row = connection.execute(
        sa.update(model_version)
        .where(model_version.c.id == due.scalar_subquery())
        .values(
            attempts=model_version.c.attempts + 1,
            lease_until=sa.func.now() + sa.func.make_interval(0, 0, 0, 0, 0, 0, _REGISTRATION_SECONDS),
        )
        .returning(model_version.c.id, model_version.c.attempts)
    ).one_or_none()
    if row is None:
        return None
    if row.attempts > _REGISTRATION_ATTEMPTS:
        fail_registration(connection, row.id, f"examining the artefact ended its worker {_REGISTRATION_ATTEMPTS} times")
        return None
    return by_id(connection, row.id)


def registrations_due(connection: Connection) -> int:
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(model_version)
        .where(
            model_version.c.state == "registering",
            sa.or_(model_version.c.lease_until.is_(None), model_version.c.lease_until < sa.func.now()),
        )
    ).scalar_one()


def complete_registration(
    connection: Connection,
    version_id: int,
    *,
    signature: dict[str, Any],
    golden: Sequence[dict[str, Any]],
    metrics: dict[str, Any],
    lineage: dict[str, Any],
    compiled: dict[str, Any] | None = None,
    seconds_per_row: float | None = None,
) -> None:
    row = connection.execute(
        sa.update(model_version)
        .where(model_version.c.id == version_id, model_version.c.state == "registering")
        .values(
            state="registered",
            signature=signature,
            golden=list(golden),
            metrics=metrics,
            lineage=lineage,
            compiled=compiled,
            seconds_per_row=seconds_per_row,
            lease_until=None,
            error=None,
        )
        .returning(model_version.c.model_id, model_version.c.wants_candidate)
    ).one_or_none()
    if row is not None and row.wants_candidate:
        set_alias(connection, row.model_id, "candidate", version_id)


def count_compiled(connection: Connection, version_id: int, size: int) -> None:
    """Count the compiled form that a version was given with its artefact; the last statement before COMMIT."""
    connection.execute(
        sa.update(model_version)
        .where(model_version.c.id == version_id)
        .values(bytes_stored=sa.func.coalesce(model_version.c.bytes_stored, model_version.c.size) + size)
    )
    usage.take(connection, by_id(connection, version_id).tenant, Quotas(), bytes=size)


def postpone_registration(connection: Connection, version_id: int) -> None:
    """Leave the examination to a later claim: nothing came of it, and the version is not to blame."""
    connection.execute(
        sa.update(model_version)
        .where(model_version.c.id == version_id, model_version.c.state == "registering")
        .values(lease_until=None, attempts=sa.func.greatest(model_version.c.attempts - 1, 0))
    )


def fail_registration(connection: Connection, version_id: int, error: str) -> None:
    connection.execute(
        sa.update(model_version)
        .where(model_version.c.id == version_id, model_version.c.state == "registering")
        .values(state="failed", error=error, lease_until=None)
    )


def by_id(connection: Connection, version_id: int) -> Version:
    row = connection.execute(sa.select(*_VERSION).select_from(_VERSIONS).where(model_version.c.id == version_id)).one()
    return Version(**row._mapping)


def error_of(connection: Connection, version_id: int) -> str | None:
    """Why a version could not be registered."""
    error: str | None = connection.execute(
        sa.select(model_version.c.error).where(model_version.c.id == version_id)
    ).scalar_one()
    return error


@dataclass(frozen=True, slots=True)
class Pinned:
    """What a submission needs to know of its version."""

    id: int
    model: str
    version: str
    state: str
    seconds_per_row: float | None


def signature_of(connection: Connection, version_id: int) -> dict[str, Any] | None:
    """None before its registration is over."""
    signature: dict[str, Any] | None = connection.execute(_SIGNATURE, {"id": version_id}).scalar_one()
    return signature


def pinned(connection: Connection, tenant: str, name: str, version: str | None) -> Pinned:
    """The version that a submission is pinned to: the one named, or production.

    Raises:
        NotFound: no such model or version; the message names what there is.
        Conflict: the model has no production version, or the version is not registered.
    """
    return Pinned(**_one_of(connection, _PINNED, tenant, name, version)._mapping)


def resolve(connection: Connection, tenant: str, name: str, version: str | None) -> Version:
    """All that is known of the same version. Raises as `pinned`."""
    return Version(**_one_of(connection, _WHOLE, tenant, name, version)._mapping)


class _Choice:
    """The query of a version by its name, and that of a model's production, made once."""

    def __init__(self, columns: Sequence[sa.ColumnElement[Any]]) -> None:
        of_model = (
            sa.select(*columns)
            .select_from(_VERSIONS)
            .where(model.c.tenant == sa.bindparam("tenant"), model.c.name == sa.bindparam("name"))
        )
        self.named = of_model.where(model_version.c.version == sa.bindparam("version"))
        self.in_production = of_model.join(
            model_alias, (model_alias.c.version_id == model_version.c.id) & (model_alias.c.alias == "production")
        )


_SIGNATURE = sa.select(model_version.c.signature).where(model_version.c.id == sa.bindparam("id"))
_WHOLE = _Choice(_VERSION)
_PINNED = _Choice(
    [
        model_version.c.id,
        model.c.name.label("model"),
        model_version.c.version,
        model_version.c.state,
        model_version.c.seconds_per_row,
    ]
)


def _one_of(connection: Connection, choice: _Choice, tenant: str, name: str, version: str | None) -> sa.Row[Any]:
    query = choice.in_production if version is None else choice.named
    row = connection.execute(query, {"tenant": tenant, "name": name, "version": version}).one_or_none()
    if row is None:
        _explain_missing(connection, tenant, name, version)
    if row.state != "registered":
        raise Conflict(f"version {row.version} of model {name!r} is {row.state}, it cannot score")
    return row


def default_model(connection: Connection, tenant: str) -> str:
    """The only model of a tenant that has a production version.

    Raises:
        InvalidInput: there is none, or more than one.
    """
    names = list(
        connection.execute(
            sa.select(model.c.name)
            .join(model_alias, (model_alias.c.model_id == model.c.id) & (model_alias.c.alias == "production"))
            .where(model.c.tenant == tenant)
            .order_by(model.c.name)
        ).scalars()
    )
    if len(names) == 1:
        return str(names[0])
    if not names:
        raise InvalidInput("no model is deployed yet; register one and deploy it, then submit again")
    raise InvalidInput(f"name the model, for example ?model={names[0]}; deployed are: {', '.join(names)}")


def listing(connection: Connection, tenant: str) -> Sequence[Any]:
    production = (
        sa.select(model_version.c.version)
        .join(model_alias, (model_alias.c.version_id == model_version.c.id) & (model_alias.c.alias == "production"))
        .where(model_alias.c.model_id == model.c.id)
        .scalar_subquery()
    )
    versions = (
        sa.select(sa.func.count())
        .select_from(model_version)
        .where(model_version.c.model_id == model.c.id)
        .scalar_subquery()
    )
    return connection.execute(
        sa.select(model.c.name, model.c.created_at, production.label("production"), versions.label("versions"))
        .where(model.c.tenant == tenant)
        .order_by(model.c.name)
    ).all()


def get(connection: Connection, tenant: str, name: str) -> sa.Row[Any]:
    """Raises NotFound."""
    row = connection.execute(sa.select(model).where(model.c.tenant == tenant, model.c.name == name)).one_or_none()
    if row is None:
        _explain_missing(connection, tenant, name, None)
    return row


def aliases(connection: Connection, model_id: int) -> dict[str, str]:
    rows = connection.execute(
        sa.select(model_alias.c.alias, model_version.c.version)
        .join(model_version, model_version.c.id == model_alias.c.version_id)
        .where(model_alias.c.model_id == model_id)
    ).all()
    return {row.alias: row.version for row in rows}


def versions(connection: Connection, model_id: int, version: str | None = None) -> Sequence[sa.Row[Any]]:
    """The rows of `model_version`, newest first; of one version if named."""
    query = sa.select(model_version).where(model_version.c.model_id == model_id)
    if version is not None:
        query = query.where(model_version.c.version == version)
    return connection.execute(query.order_by(model_version.c.id.desc())).all()


def in_production(connection: Connection) -> list[Version]:
    """The production versions of all models, for workers to hold."""
    return with_alias(connection, "production")


def with_alias(connection: Connection, alias: str) -> list[Version]:
    """The versions of all models that bear an alias."""
    query = (
        sa.select(*_VERSION)
        .select_from(_VERSIONS.join(model_alias, model_alias.c.version_id == model_version.c.id))
        .where(model_alias.c.alias == alias)
        .order_by(model_version.c.id)
    )
    return [Version(**row._mapping) for row in connection.execute(query)]


def set_alias(connection: Connection, model_id: int, alias: str, version_id: int) -> None:
    """Let an alias mean this version; production and previous are moved by `db.slots` alone."""
    values = insert(model_alias).values(model_id=model_id, alias=alias, version_id=version_id)
    connection.execute(
        values.on_conflict_do_update(
            index_elements=[model_alias.c.model_id, model_alias.c.alias],
            set_={"version_id": version_id, "changed_at": sa.func.now()},
        )
    )


def _same_content(connection: Connection, model_id: int, new: NewVersion) -> int:
    row = versions(connection, model_id, new.version)[0]
    stated = (new.digest, new.reference_digest, new.key_column, new.target_column, new.signature)
    if (row.digest, row.reference_digest, row.key_column, row.target_column, row.edited_signature) != stated:
        raise Conflict(
            f"version {new.version} of model {new.model!r} exists with another content; versions are immutable: "
            "register it under a new version number"
        )
    if row.state == "failed":  # the same bytes may succeed now, for example after trust was given
        connection.execute(
            sa.update(model_version)
            .where(model_version.c.id == row.id)
            .values(
                state="registering",
                error=None,
                attempts=0,
                lease_until=None,
                trusted=new.trusted,
                mismatch_allowed=new.mismatch_allowed,
                declared=new.lineage,
                compiled=new.compiled,
                wants_candidate=new.candidate,
            )
        )
        _record(connection, new)
    elif new.candidate:
        _make_candidate(connection, row)
    return int(row.id)


def _record(connection: Connection, new: NewVersion) -> None:
    details = {"digest": new.digest, "format": new.format, "trusted": new.trusted}
    trail.record(
        connection,
        tenant=new.tenant,
        by=new.created_by,
        act="version.registered",
        target=f"{new.model}@{new.version}",
        details=details,
    )


def _make_candidate(connection: Connection, row: sa.Row[Any]) -> None:
    if row.state == "registered":
        set_alias(connection, row.model_id, "candidate", row.id)
        return
    wanted = sa.update(model_version).where(model_version.c.id == row.id).values(wants_candidate=True)
    connection.execute(wanted)


def _check_parent(connection: Connection, model_id: int, new: NewVersion) -> None:
    parent = new.lineage.get("parent")
    if parent is None:
        return
    known = [row.version for row in versions(connection, model_id) if row.version != new.version]
    if parent not in known:
        detail = (
            f"the parent {parent} is no version of model {new.model!r}; there are: {', '.join(known) or 'none yet'}"
        )
        raise InvalidInput(detail, [Problem(detail, "#/lineage/parent")])


def _explain_missing(connection: Connection, tenant: str, name: str, version: str | None) -> NoReturn:
    known = sorted(connection.execute(sa.select(model.c.name).where(model.c.tenant == tenant)).scalars())
    if name not in known:
        raise NotFound(f"there is no model {name!r}; there are: {', '.join(known) or 'none yet'}")
    model_id = connection.execute(
        sa.select(model.c.id).where(model.c.tenant == tenant, model.c.name == name)
    ).scalar_one()
    numbers = ", ".join(sorted((row.version for row in versions(connection, model_id)), key=precedence, reverse=True))
    if version is None:
        raise Conflict(f"model {name!r} has no production version; deploy one of: {numbers or 'none yet'}")
    raise NotFound(f"model {name!r} has no version {version}; there are: {numbers or 'none yet'}")
