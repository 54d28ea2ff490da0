"""The bucket of requests of each tenant, shared by all processes of the API, who take from it in small blocks."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from db.sql import statement


@dataclass(frozen=True, slots=True)
class Grant:
    """How many requests were granted, and how many (with fractions) are left in the bucket."""

    number: int
    left: float


def take(connection: Connection, tenant: str, *, wanted: int, rate: int, burst: int) -> Grant:
    """Take up to `wanted` requests."""
    row = connection.execute(
        statement("grant_requests"), {"tenant": tenant, "wanted": wanted, "rate": rate, "burst": burst}
    ).one()
    return Grant(row.granted, row.tokens)
