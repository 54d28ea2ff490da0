"""What the views of one API process share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flask import current_app, g
from sqlalchemy import Engine

from api.completions import Completions
from api.places import Places
from api.revocations import Revocations
from db.engine import for_system, for_tenant
from permits import Publisher, publisher
from registry.store import ArtefactStore
from settings import Settings


@dataclass(frozen=True)
class Context:
    """`engine` sees the rows of the tenant whose request it is, and none where there is no caller."""

    settings: Settings
    engine: Engine
    store: ArtefactStore
    completions: Completions
    revocations: Revocations
    places: Places

    def close(self) -> None:
        """Let go of the connections; a process that ends need not."""
        self.completions.close()
        self.engine.dispose()

    @property
    def system_engine(self) -> Engine:
        """For what belongs to no tenant, or to all of them: health, metrics, tokens, quotas."""
        return for_system(self.engine)

    @property
    def publisher(self) -> Publisher:
        return publisher()


def context() -> Context:
    """The context of the application that serves the current request, for its caller."""
    found: Context = current_app.extensions["scorehouse"]
    return replace(found, engine=for_tenant(found.engine, g.caller.tenant)) if "caller" in g else found
