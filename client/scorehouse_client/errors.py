"""What calls of the client raise.

    ScorehouseClientError
    ├── ScorehouseApiError    the API answered with a problem
    ├── ConnectionFailed      no answer: nothing listens there, or the connection broke more often than is retried
    ├── SourceFailed          the file to upload cannot be read, or changed while it was being uploaded
    ├── OutputFailed          the results cannot be written where they should go
    ├── JobNotFinished        `wait` ran into its timeout; the job goes on
    ├── RegistrationFailed    the API took the artefact and then refused it
    └── DeploymentFailed      the version did not go live; the one that was live before still is

`str()` of each is text for a person; what a program needs stands in the attributes.
"""

# each name says what happened
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scorehouse_client.resources import Deployment, Job, ModelVersion


_READABLE_SECONDS = 120


class ScorehouseClientError(Exception):
    """Base of all."""


class ScorehouseApiError(ScorehouseClientError):
    """A problem (RFC 9457) that the API answered with.

    Attributes:
        status: HTTP status, such as 422.
        title, detail: the problem's own; detail may be empty.
        errors: one mapping with `detail` and `pointer` per thing that is wrong with the input.
        retry_after: seconds after which the same request may succeed, None when the API named none.
        quota, limit, used: of a 429, what is used up (such as `rows_per_day`), what it allows and what was used; else None.
    """

    def __init__(  # noqa: PLR0917  # the parts of a problem
        self,
        status: int,
        title: str,
        detail: str = "",
        errors: Sequence[Mapping[str, Any]] = (),
        retry_after: float | None = None,
        quota: tuple[str, int, int] | None = None,
    ) -> None:
        super().__init__(status, title, detail, errors, retry_after, quota)
        self.status = status
        self.title = title
        self.detail = detail
        self.errors = list(errors)
        self.retry_after = retry_after
        self.quota: str | None = None
        self.limit: int | None = None
        self.used: int | None = None
        if quota is not None:
            self.quota, self.limit, self.used = quota

    def __str__(self) -> str:
        headline = f"{self.title} ({self.status})"
        lines = [f"{headline}: {self.detail}" if self.detail else headline]
        # A single error is often the detail once more.
        lines += [_error_line(error) for error in self.errors if error.get("detail") != self.detail]
        if self.retry_after is not None:
            lines.append(f"Try again in {_span(self.retry_after)}.")
        return "\n".join(lines)


def _span(seconds: float) -> str:
    """Hours where seconds would have to be converted in the head."""
    if seconds < _READABLE_SECONDS:
        return f"{seconds:.0f} s"
    minutes = math.ceil(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def _error_line(error: Mapping[str, Any]) -> str:
    detail, pointer = error.get("detail", ""), error.get("pointer")
    return f"  - {detail} ({pointer})" if pointer else f"  - {detail}"


class ConnectionFailed(ScorehouseClientError):
    """No (complete) answer from `url`; `reason` says how it failed."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"The connection to {self.url} failed: {self.reason}.\n"
            "Check the URL and that the API runs (`scorehouse doctor` tells what is reachable, "
            "`scorehouse up` starts a stack)."
        )


class SourceFailed(ScorehouseClientError):
    """What was to be uploaded cannot be read to its end."""


class OutputFailed(ScorehouseClientError):
    """The results cannot be written where they should go."""


class JobNotFinished(ScorehouseClientError, TimeoutError):
    """The wait is over and the job (`.job`, as last seen) is not; it goes on without the client."""

    def __init__(self, job: Job, timeout: float) -> None:
        super().__init__(job, timeout)
        self.job = job
        self.timeout = timeout

    def __str__(self) -> str:
        rows = self.job.rows
        return (
            f"job {self.job.id} is still {self.job.state} after {self.timeout:g} s "
            f"({rows.total - rows.pending} of {rows.total} rows done); it goes on, wait for it again"
        )


class RegistrationFailed(ScorehouseClientError):
    """The version (`.version`) ended as failed."""

    def __init__(self, version: ModelVersion) -> None:
        super().__init__(version)
        self.version = version

    def __str__(self) -> str:
        return (
            f"{self.version.model} {self.version.version} was not registered: {self.version.error or 'no reason given'}"
        )


class AuditFailed(ScorehouseClientError):
    """The audit (`.audit`, as the API tells of it) could not be done."""

    def __init__(self, audit: Mapping[str, Any]) -> None:
        super().__init__(audit)
        self.audit = audit

    def __str__(self) -> str:
        return f"the {self.audit['kind']} audit of {self.audit['model']} failed: {self.audit.get('error')}"


class DeploymentFailed(ScorehouseClientError):
    """The deployment (`.deployment`) ended as failed."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment)
        self.deployment = deployment

    def __str__(self) -> str:
        tried = self.deployment
        reasons = "".join(f"\n  - {reason}" for reason in tried.reasons) or " no reason given"
        live = f"\n{tried.from_version} stays live." if tried.from_version else ""
        return f"{tried.model} {tried.version} did not go live:{reasons}{live}"
