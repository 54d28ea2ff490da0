"""Every error that Scorehouse raises on purpose.

    ScorehouseError
    ├── InvalidInput          the caller can mend it; carries one Problem per place
    │   └── InvalidPackage    a model artefact or its reference that cannot be registered
    ├── Unauthorized          no token, or one that is not believed
    ├── Forbidden             a token without the scope
    ├── NotFound              also for what belongs to another tenant
    ├── Gone                  removed by retention
    ├── Conflict              the request is fine, the state is not
    ├── Busy                  the caller has as many such requests under way as it may; try again later
    ├── TooLarge              a bound on bytes, rows or columns
    ├── UnsupportedMedia      a content type or encoding that is not accepted
    ├── Unavailable           the database cannot be reached; try again later
    ├── Fenced                a claim that was taken away: another worker has the chunk
    ├── DeploymentRefused     a check says that a version must not go live; carries one reason per finding
    └── ArtefactRefused       bytes whose digest the registry does not vouch for, or a model that fails its golden rows

The HTTP status of each stands in one table, `api/problems.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the input: what, and where.

    `pointer` is a JSON pointer into the body (`#/inputs/0/age`), `#/query/NAME`, `#/header/NAME`, or
    `#/columns/NAME` for a column of an uploaded file.
    """

    detail: str
    pointer: str


class ScorehouseError(Exception):
    """Base of all; `str()` of it is a sentence for the user: what is wrong, where, and what to do."""


class InvalidInput(ScorehouseError):
    def __init__(self, detail: str, problems: Sequence[Problem] = ()) -> None:
        super().__init__(detail)
        self.problems = list(problems)


class InvalidPackage(InvalidInput):
    pass


class Unauthorized(ScorehouseError):
    pass


class Forbidden(ScorehouseError):
    pass


class NotFound(ScorehouseError):
    pass


class Gone(ScorehouseError):
    pass


class Conflict(ScorehouseError):
    def __init__(self, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class Busy(ScorehouseError):
    def __init__(self, detail: str, retry_after: int) -> None:
        super().__init__(detail)
        self.retry_after = retry_after


class TooLarge(ScorehouseError):
    pass


class UnsupportedMedia(ScorehouseError):
    pass


class Unavailable(ScorehouseError):
    pass


class Fenced(ScorehouseError):
    pass


class DeploymentRefused(ScorehouseError):
    def __init__(self, reasons: Sequence[str]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = list(reasons)


class ArtefactRefused(ScorehouseError):
    pass
