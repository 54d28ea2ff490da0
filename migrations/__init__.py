"""Schema migrations by Alembic: `upgrade` and `check`, as `scorehouse db` calls them.

Every migration suits the code of the release before it, waits for a lock only briefly, and only one runs at a time. So a
release runs on a schema that a later one has migrated, and leaves it as it is.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from db import predictions
from db.engine import create_engine, transaction
from migrations.roles import ensure_login


class Schema(NamedTuple):
    """The revision that a database has (None: it is empty) and the one that this release wants."""

    current: str | None
    wanted: str | None

    @property
    def ahead(self) -> bool:
        """Whether a later release has migrated it; of its revisions this one knows nothing."""
        return self.current is not None and self.current not in _known_revisions()

    @property
    def fits(self) -> bool:
        """Whether this release runs on it."""
        return self.current == self.wanted or self.ahead

    @property
    def told(self) -> str:
        """A sentence for whoever asks, with what to do when it does not fit."""
        if self.ahead:
            return (
                f"the schema has revision {self.current} of a later release; this one runs on it, as on {self.wanted}"
            )
        if self.fits:
            return f"the schema is up to date (revision {self.current})"
        state = "is empty" if self.current is None else f"has revision {self.current}"
        return f"the database {state}, this release needs {self.wanted}: run `scorehouse db upgrade`"


def upgrade(url: str, revision: str = "head", *, login: str | None = None) -> None:
    """Bring the schema to `revision`, and make sure that the partitions of the coming days exist.

    A schema that is ahead of this release stays as it is.

    Args:
        url: of the owner of the tables.
        login: URL that the API and the workers use; its user is made unless it exists. None: that of the owner.

    Raises:
        ScorehouseError: the owner may not make the roles that are needed; the message says what to do.
    """
    if not check(url).ahead:
        command.upgrade(_config(url), revision)
    if revision == "head":
        engine = create_engine(url, name="scorehouse-migrate", role=None)
        with transaction(engine) as connection:
            predictions.ensure_partitions(connection)
            if login is not None:
                ensure_login(connection, sa.make_url(login))
        engine.dispose()


def downgrade(url: str, revision: str) -> None:
    command.downgrade(_config(url), revision)


def check(url: str) -> Schema:
    """Whether the database has the schema that this release wants.

    Raises:
        Unavailable: it cannot be reached.
    """
    engine = create_engine(url, name="scorehouse-migrate", role=None)
    try:
        with transaction(engine) as connection:
            return schema_of(connection)
    finally:
        engine.dispose()


def schema_of(connection: Connection) -> Schema:
    """As `check`, in a transaction that is there already."""
    table = sa.table("alembic_version", sa.column("version_num"))  # Alembic's own way to look logs a line each time
    empty = not sa.inspect(connection).has_table(table.name)
    current = None if empty else connection.execute(sa.select(table.c.version_num)).scalar_one_or_none()
    return Schema(current, _script().get_current_head())


@lru_cache(maxsize=1)
def _known_revisions() -> frozenset[str]:
    return frozenset(each.revision for each in _script().walk_revisions())


@lru_cache(maxsize=1)
def _script() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config(""))


def _config(url: str) -> Config:
    folder = Path(__file__).parent
    config = Config(folder / "alembic.ini")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["url"] = url
    return config
