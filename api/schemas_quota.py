"""The shape of `GET /v1/quota`."""

from __future__ import annotations

from pydantic import Field

from api.schemas import BaseModel


class Counted(BaseModel):
    """One quota; a limit of null is unlimited."""

    limit: int | None
    used: int
    remaining: int | None


class CountedByDay(Counted):
    resets_at: str = Field(description="midnight UTC, when the count begins anew")


class RequestRate(BaseModel):
    limit: int | None = Field(description="requests per second in the long run; null is unlimited")
    burst: int | None = Field(description="requests at once after a pause; null: as many as in a second")
    remaining: int | None = Field(description="requests that may be sent at once now, as the answering process knows")


class Quota(BaseModel):
    """What a tenant may use, and what it uses."""

    tenant: str
    rows_per_day: CountedByDay = Field(description="rows submitted on this day (UTC)")
    bytes_stored: Counted = Field(description="inputs of jobs, compressed, and artefacts with their references")
    jobs_open: Counted = Field(description="jobs that are not over")
    uploads_at_once: Counted = Field(description="files that are being received")
    requests_per_second: RequestRate
