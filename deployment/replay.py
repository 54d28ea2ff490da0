"""The replay of a gate: the last stored inputs are scored by production and by the version, and compared.

A piece at a time, so that a permit's time is kept, that it can be seen how far it has come, and that another worker
goes on where one was killed. Who of the two begins alternates: what the first one finds cold, the second finds warm.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection, Engine

from db import models, slots
from db.deployment_steps import Open
from db.engine import transaction
from deployment.comparison import Comparison, Sides
from deployment.gate import Gate, beyond
from deployment.stored_inputs import Piece, Place, next_piece
from errors import DeploymentRefused, InvalidInput
from monitoring.schema import ProfileSchema
from registry.runtime import Runtime
from registry.scoring import Scored, score
from registry.signature import Signature

PIECE_ROWS = 2_000


class Scorer(Protocol):
    """A version that is loaded."""

    @property
    def signature(self) -> Signature: ...
    @property
    def runtime(self) -> Runtime: ...
    @property
    def schema(self) -> ProfileSchema | None: ...


class Load(Protocol):
    def __call__(self, version_id: int) -> Scorer:
        """Raises ArtefactRefused."""
        ...


@dataclass(frozen=True)
class Replayed:
    """How a replay stands: what is kept of it in `checks`, and whether it is over."""

    check: dict[str, Any]
    over: bool


def next_step(engine: Engine, load: Load, open_: Open, gate: Gate, max_cell_chars: int) -> Replayed:
    """Replay one more piece, or judge.

    Raises:
        DeploymentRefused: something is beyond its limit; `reasons` say what and by how much.
        ArtefactRefused: one of the two cannot be loaded here.
    """
    with transaction(engine) as connection:
        production_id = slots.aliases(connection, open_.model_id).get("production")
        if production_id is None or production_id == open_.version.id:
            return Replayed({"wanted": gate.replay_rows, "rows": 0, "note": _nothing_to_compare(production_id)}, True)
        production = models.by_id(connection, production_id).version
        kept = open_.checks.get("replay", {})
        counters = Comparison(**kept.get("counters", {}))
        piece = _next_piece(connection, open_, kept, gate.replay_rows - counters.rows)
    sides = _Sides(load(production_id), load(open_.version.id))
    if piece is None:
        return Replayed(_judged(counters, sides.told, gate, production), True)
    sides.replay(piece, counters, max_cell_chars)
    check = {"wanted": gate.replay_rows, "rows": counters.rows, "against": production}
    return Replayed(check | {"place": piece.place.as_json(), "counters": counters.as_json()}, False)


def _next_piece(connection: Connection, open_: Open, kept: dict[str, Any], left: int) -> Piece | None:
    """Whatever version of the model they were sent for; None when that were all, or enough."""
    ids = [row.id for row in models.versions(connection, open_.model_id)]
    place = Place.from_json(kept.get("place"))
    return next_piece(connection, ids, place, min(left, PIECE_ROWS)) if left > 0 else None


class _Sides:
    def __init__(self, production: Scorer, version: Scorer) -> None:
        self._production, self._version = production, version
        before, after = production.signature.output, version.signature.output
        assert before is not None, "only an examined version is loaded"
        assert after is not None, "only an examined version is loaded"
        if before.kind != after.kind:
            raise DeploymentRefused([f"it is a {after.kind}, production is a {before.kind}: they cannot be compared"])
        self.told = Sides(before, after, production.schema)

    def replay(self, piece: Piece, counters: Comparison, max_cell_chars: int) -> None:
        """Score a piece with both."""
        first = counters.rows == 0
        try:
            parsed = piece.parsed(self._production.signature, max_cell_chars)
        except InvalidInput:  # a job of another version, with other columns
            counters.rows += piece.rows
            counters.skipped += piece.rows
            return
        try:
            again = piece.parsed(self._version.signature, max_cell_chars)
        except InvalidInput as exc:
            counters.add_not_taken(score(self._production.runtime, parsed, self._production.signature), str(exc))
            return
        work = [(self._production, parsed), (self._version, again)]
        if first:  # what is done once, at a model's first call, is no measure of its speed
            for side, rows in work:
                score(side.runtime, rows, side.signature)
        version_first = counters.rows // PIECE_ROWS % 2 == 1
        done = {id(side): _timed(side, rows) for side, rows in (reversed(work) if version_first else work)}
        (before, one), (after, other) = done[id(self._production)], done[id(self._version)]
        counters.add(self.told, before, after, (one, other))


def _timed(side: Scorer, parsed: Any) -> tuple[Scored, float]:
    """By the processor's time of this process: how busy the machine is with others does not count."""
    begin = time.process_time()
    scored = score(side.runtime, parsed, side.signature)
    return scored, time.process_time() - begin


def _judged(counters: Comparison, sides: Sides, gate: Gate, production: str) -> dict[str, Any]:
    figures = counters.figures(sides)
    check = {"wanted": gate.replay_rows, "against": production, **figures}
    if not counters.rows:
        return check | {"note": f"no inputs of {production} are stored: nothing was compared"}
    if not figures["compared"] + figures["not_taken"]:
        return check | {"note": f"{production} could score none of the stored inputs: nothing was compared"}
    reasons = beyond(gate, figures, production)
    if reasons:
        raise Beyond(reasons, check)
    return check


class Beyond(DeploymentRefused):
    """Something is beyond a limit of the gate; `check` has all figures."""

    def __init__(self, reasons: list[str], check: dict[str, Any]) -> None:
        super().__init__(reasons)
        self.check = check


def _nothing_to_compare(production_id: int | None) -> str:
    if production_id is None:
        return "no version is in production: there was nothing to compare with"
    return "it is in production already: there was nothing to compare with"
