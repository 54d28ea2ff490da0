"""Versions as they are shown: in the order of their precedence, each with its stage and what audits found of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection

from db.tables import audit_run, deployment, model_alias, model_version

# The most prominent first: a version may have more than one alias.
_ALIASES = ("production", "candidate", "previous")


def listing(connection: Connection, model_id: int, version: str | None = None) -> list[sa.Row[Any]]:
    """The rows of `model_version` with their `stage`, highest version first; of one version if named."""
    query = sa.select(model_version, _stage().label("stage")).where(model_version.c.model_id == model_id)
    if version is not None:
        query = query.where(model_version.c.version == version)
    return sorted(connection.execute(query), key=lambda row: precedence(row.version), reverse=True)


def precedence(version: str) -> tuple[Any, ...]:
    """A key that sorts semantic versions by their precedence (semver.org, 11): a pre-release is below its release."""
    core, _, pre_release = version.partition("-")
    identifiers = [
        (0, int(each), "") if each.isdigit() else (1, 0, each) for each in pre_release.split(".") if pre_release
    ]
    return (*map(int, core.split(".")), not pre_release, identifiers)


def accuracy_audits(connection: Connection, version_id: int, limit: int) -> Sequence[sa.Row[Any]]:
    """The accuracy audits of a version that are done, newest window first."""
    return connection.execute(
        sa.select(audit_run)
        .where(
            audit_run.c.version_id == version_id,
            audit_run.c.kind == "accuracy",
            audit_run.c.state == "done",
        )
        .order_by(audit_run.c.window_end.desc(), audit_run.c.finished_at.desc())
        .limit(limit)
    ).all()


def _stage() -> sa.ColumnElement[str]:
    """Where a version is in its life: derived, so that it cannot contradict the aliases."""
    was_live = sa.exists().where(deployment.c.to_version_id == model_version.c.id, deployment.c.state == "live")
    return sa.case(
        (model_version.c.state != "registered", model_version.c.state),
        *[(_is(alias), alias) for alias in _ALIASES],
        (was_live, "retired"),
        else_="registered",
    )


def _is(alias: str) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        model_alias.c.model_id == model_version.c.model_id,
        model_alias.c.version_id == model_version.c.id,
        model_alias.c.alias == alias,
    )
