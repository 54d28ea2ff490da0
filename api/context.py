"""What the views of one API process share."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flask import current_app, g
from sqlalchemy import Engine

from api.completions import Completions
from api.limits import TenantLimits
from api.places import Places
from api.revocations import Revocations
from api.signatures import Signatures
from api.together import Together
from api.verification import Verifier
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
    verifier: Verifier
    revocations: Revocations
    places: Places
    limits: TenantLimits
    signatures: Signatures
    submissions: Together
    documents: Together

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
    if "context" not in g:
        found: Context = current_app.extensions["scorehouse"]
        if "caller" not in g:
            return found
        g.context = replace(found, engine=for_tenant(found.engine, g.caller.tenant))
    made: Context = g.context
    return made
