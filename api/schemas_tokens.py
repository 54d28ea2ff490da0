"""Requests and answers about tokens and the audit trail."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from api.schemas import BaseModel, Closed, storable
from api.tokens import LONGEST_SUBJECT
from db.trail import Act

_Who = Annotated[str, Field(min_length=1, max_length=LONGEST_SUBJECT), AfterValidator(storable)]


class TokenRequest(Closed):
    """A token of the caller's own tenant; never wider than the caller's, and never longer-lived."""

    subject: _Who = Field(description="who uses it; stands in the audit trail")
    scopes: list[str] = Field(min_length=1, max_length=20, description="what it may do, such as jobs:write")
    ttl_seconds: int = Field(ge=1, le=10 * 366 * 86_400, description="how long it is good for")


class RevokeRequest(Closed):
    why: Annotated[str, Field(max_length=1000), AfterValidator(storable)] | None = None


class TokenPath(BaseModel):
    id: UUID


class TokenQuery(BaseModel):
    subject: _Who | None = Field(None, description="only those of one subject")
    after: UUID | None = Field(None, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=1000)


class Token(BaseModel):
    """What is recorded of a token; the token itself is stored nowhere."""

    jti: str
    kid: str | None
    subject: str | None
    tenant: str | None
    scopes: list[str]
    created_at: datetime
    created_by: str | None
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    why: str | None


class NewToken(Token):
    token: str = Field(description="the token; this answer is the only place where it can be read")


class TokenList(BaseModel):
    tokens: list[Token]
    next: str | None = Field(description="`after` of the next page")


class TrailQuery(BaseModel):
    act: Act | None = None
    by: _Who | None = None
    after: UUID | None = Field(None, description="`next` of the page before")
    limit: int = Field(100, ge=1, le=1000)


class TrailEntry(BaseModel):
    id: UUID
    at: datetime
    tenant: str | None
    by: str = Field(description="the token's subject, the user of a command, or what acts by itself")
    act: Act
    target: str
    details: dict[str, Any]
    token: str | None = Field(description="id (jti) of the token that was used; null for commands and workers")


class Trail(BaseModel):
    entries: list[TrailEntry]
    next: str | None = Field(description="`after` of the next page")
