"""Which scope each route needs. A route that declares nothing is for admins only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from api.rate_limits import FailedAuthentications, TenantRates, admit, network
from api.revocations import Revocations
from api.tokens import Caller
from api.verification import Verifier
from db import trail
from errors import Unauthorized

View = TypeVar("View", bound=Callable[..., Any])

PUBLIC = "public"


def scope(name: str) -> Callable[[View], View]:
    """Declare what a view needs: one of `tokens.SCOPES`, or PUBLIC. Stands below the route decorator."""

    def mark(view: View) -> View:
        view.required_scope = name  # type: ignore[attr-defined]  # functools.wraps carries it to the wrapped view
        return view

    return mark


def open_on_loopback(view: View) -> View:
    """Let a view be asked without a token while the API listens on loopback only, but not through a proxy there."""
    view.open_on_loopback = True  # type: ignore[attr-defined]  # functools.wraps carries it to the wrapped view
    return view


def tells_of_outages(view: View) -> View:
    """Let a view answer while the database is away, by the revocations that were known last."""
    view.tells_of_outages = True  # type: ignore[attr-defined]  # functools.wraps carries it to the wrapped view
    return view


def required_scope(view: Callable[..., Any]) -> str:
    return str(getattr(view, "required_scope", "admin"))


def caller() -> Caller:
    """Who sent the current request."""
    found: Caller = g.caller
    return found


def sees_models_of(tenant: str) -> bool:
    """Whether who sent a request to a public route may read the names of a tenant's models: the machine itself may, and
    the tenant.
    """
    if g.direct:
        return True
    verifier: Verifier = current_app.extensions["verifier"]
    revocations: Revocations = current_app.extensions["scorehouse"].revocations
    try:
        found = verifier.verify(request.headers.get("Authorization"))
        revocations.check(found, without_database=True)
    except Unauthorized:
        return False
    return found.tenant == tenant


def install(
    app: Flask,
    verifier: Verifier,
    revocations: Revocations,
    rates: TenantRates,
    failures: FailedAuthentications,
    *,
    on_loopback: bool,
) -> None:
    """Check every request before anything of it is parsed."""
    app.extensions["verifier"] = verifier

    @app.before_request
    def authenticate() -> None:
        if request.endpoint is None:  # no such route, or not with this method: Flask answers that
            return
        view = current_app.view_functions[request.endpoint]
        needed = required_scope(view)
        g.direct = on_loopback and "X-Forwarded-For" not in request.headers
        if needed == PUBLIC or (g.direct and getattr(view, "open_on_loopback", False)):
            return
        try:
            found = verifier.verify(request.headers.get("Authorization"))
            revocations.check(found, without_database=getattr(view, "tells_of_outages", False))
        except Unauthorized:
            failures.count(network(request.remote_addr))
            raise
        admit(rates, found.tenant)
        found.require(needed)
        g.caller = found
        trail.token_in_use.set(found.jti)

    @app.teardown_request
    def forget(_error: BaseException | None) -> None:
        """The thread serves another request next."""
        trail.token_in_use.set(None)
