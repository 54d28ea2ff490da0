"""A child of the lane `training`: it fits models and scores nothing.

It has no heartbeat and holds no version, so that nobody counts on it for scoring; the lease of the run in its hands
says that it lives. It gives way to everything else on the machine.
"""

from __future__ import annotations

import os

from db.engine import create_engine
from registry.store import ArtefactStore
from settings import Settings
from worker.giving_way import give_way

# Collecting labelled rows reads much; it must not be cut off as a claim would be.
_STATEMENT_SECONDS = 600.0


class Trainer:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine = create_engine(
            settings.resolved_database_url(),
            name=f"worker training {os.getpid()}",
            pool_size=2,  # the run, and its lease
            statement_timeout=_STATEMENT_SECONDS,
        )
        self.store = ArtefactStore(settings.resolved_artefact_url())

    def run(self) -> str:
        """Run one training that is due."""
        from training.retraining import run_one  # noqa: PLC0415 - scikit-learn, when there is something to fit

        return run_one(self.engine, self.store, self.settings) or "no training is due"


_trainer: Trainer | None = None


def start(settings: Settings) -> Trainer:
    """Called in each child after the fork."""
    global _trainer  # noqa: PLW0603 - one per process, set once by Celery's start signal
    give_way(settings.training_niceness)
    _trainer = Trainer(settings)
    return _trainer


def stop() -> None:
    if _trainer is not None:
        _trainer.engine.dispose()


def current() -> Trainer:
    assert _trainer is not None, "only in a child of the lane training"
    return _trainer
