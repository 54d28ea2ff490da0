"""What the views of one API process share."""

from __future__ import annotations

from dataclasses import dataclass

from flask import current_app
from sqlalchemy import Engine

from api.completions import Completions
from api.limits import TenantLimits
from permits import Publisher, publisher
from registry.store import ArtefactStore
from settings import Settings


@dataclass(frozen=True)
class Context:
    settings: Settings
    engine: Engine
    store: ArtefactStore
    completions: Completions
    limits: TenantLimits

    def close(self) -> None:
        """Let go of the connections; a process that ends need not."""
        self.completions.close()
        self.engine.dispose()

    @property
    def system_engine(self) -> Engine:
        """For what belongs to no tenant, or to all of them: health, metrics, tokens, quotas."""
        return self.engine

    @property
    def publisher(self) -> Publisher:
        return publisher()


def context() -> Context:
    """The context of the application that serves the current request."""
    found: Context = current_app.extensions["scorehouse"]
    return found
