"""Quotas: what a tenant may use, from the defaults of the settings and the row that differs from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert

from db.tables import tenant_quota
from settings import Settings


@dataclass(frozen=True, slots=True)
class Quotas:
    """What one tenant may use; None is unlimited. `burst` goes with `requests_per_second`."""

    rows_per_day: int | None = None
    bytes_stored: int | None = None
    jobs_open: int | None = None
    uploads_at_once: int | None = None
    requests_per_second: int | None = None
    burst: int | None = None

    @classmethod
    def of(cls, settings: Settings) -> Quotas:
        """The defaults."""
        given = {name: getattr(settings, f"quota_{name}") for name in NAMES}
        return cls(**{name: None if value == "unlimited" else value for name, value in given.items()})

    def but(self, differing: Mapping[str, int | None]) -> Quotas:
        """These, except for what differs; names that this release does not know are left out."""
        return replace(self, **{name: value for name, value in differing.items() if name in NAMES})


NAMES = tuple(field.name for field in fields(Quotas))


def differing(connection: Connection, tenant: str) -> dict[str, int | None]:
    """What the operator set for a tenant; empty when the defaults count."""
    found = connection.execute(
        sa.select(tenant_quota.c.limits).where(tenant_quota.c.tenant == tenant)
    ).scalar_one_or_none()
    return dict(found or {})


def set_limits(connection: Connection, tenant: str, changes: Mapping[str, int | None], *, by: str) -> None:
    """Set some limits of a tenant, None for unlimited; the others stay as they are."""
    values = insert(tenant_quota).values(tenant=tenant, limits=dict(changes), changed_by=by)
    connection.execute(
        values.on_conflict_do_update(
            index_elements=[tenant_quota.c.tenant],
            set_={
                "limits": tenant_quota.c.limits.op("||")(values.excluded.limits),
                "changed_by": by,
                "changed_at": sa.func.now(),
            },
        )
    )


def reset_limits(connection: Connection, tenant: str, names: Sequence[str]) -> None:
    """Let the defaults count again for some limits of a tenant."""
    kept = tenant_quota.c.limits.op("-")(sa.cast(list(names), ARRAY(sa.Text)))
    connection.execute(sa.update(tenant_quota).where(tenant_quota.c.tenant == tenant).values(limits=kept))


def listing(connection: Connection) -> Sequence[sa.Row[Any]]:
    """The tenants with limits of their own: tenant, limits, changed_by, changed_at."""
    differs = tenant_quota.c.limits != sa.cast({}, JSONB)
    return connection.execute(sa.select(tenant_quota).where(differs).order_by(tenant_quota.c.tenant)).all()
