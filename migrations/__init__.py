"""Schema migrations by Alembic: `upgrade` and `check`, as `scorehouse db` calls them.

Every migration suits the code of the release before it, waits for a lock only briefly, and only one runs at a time.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from db import predictions
from db.engine import create_engine, transaction


def upgrade(url: str, revision: str = "head") -> None:
    """Bring the schema to `revision`, and make sure that the partitions of the coming days exist."""
    command.upgrade(_config(url), revision)
    if revision == "head":
        engine = create_engine(url, name="scorehouse-migrate")
        with transaction(engine) as connection:
            predictions.ensure_partitions(connection)
        engine.dispose()


def downgrade(url: str, revision: str) -> None:
    command.downgrade(_config(url), revision)


def check(url: str) -> tuple[str | None, str | None]:
    """The revision that the database has and the one that this release wants."""
    engine = create_engine(url, name="scorehouse-migrate")
    with transaction(engine) as connection:
        current = MigrationContext.configure(connection).get_current_revision()
    engine.dispose()
    return current, ScriptDirectory.from_config(_config(url)).get_current_head()


def _config(url: str) -> Config:
    folder = Path(__file__).parent
    config = Config(folder / "alembic.ini")
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    config.attributes["url"] = url
    return config
