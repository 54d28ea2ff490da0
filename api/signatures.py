"""The signatures of versions, as they were last read: a version that is registered has the same for ever."""

from __future__ import annotations

from sqlalchemy import Connection

from db import models
from registry.signature import Signature

_REMEMBERED = 1_000


class Signatures:
    """A cache per application; threads may share it."""

    def __init__(self) -> None:
        self._known: dict[int, Signature] = {}

    def of(self, connection: Connection, version_id: int) -> Signature:
        """That of a registered version, which the caller's tenant was found to have."""
        found = self._known.get(version_id)
        if found is None:
            if len(self._known) >= _REMEMBERED:
                self._known.clear()
            found = self._known[version_id] = Signature.model_validate(models.signature_of(connection, version_id))
        return found
