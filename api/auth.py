"""Which scope each route needs. A route that declares nothing is for admins only."""

from __future__ import annotations

from collections.abc import Callable, Set
from typing import Any, TypeVar

from flask import Flask, current_app, g, request

from api.rate_limits import FailedAuthentications, TenantRates, admit, network
from api.tokens import Caller
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


def visible_tenants(tenants: Set[str]) -> Set[str]:
    """Those whose models a public route may name to whoever sent the request: all to the machine itself, its own to a
    token.
    """
    if g.direct:
        return tenants
    try:
        return tenants & {_believed(without_database=True).tenant}
    except Unauthorized:
        return frozenset()


def install(app: Flask, rates: TenantRates, failures: FailedAuthentications, *, on_loopback: bool) -> None:
    """Check every request before anything of it is parsed."""

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
            found = _believed(without_database=getattr(view, "tells_of_outages", False))
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


def _believed(*, without_database: bool) -> Caller:
    """The caller of the current request, whose token is good and not revoked.

    Raises:
        Unauthorized, Unavailable
    """
    shared = current_app.extensions["scorehouse"]
    found: Caller = shared.verifier.verify(request.headers.get("Authorization"))
    shared.revocations.check(found, without_database=without_database)
    return found
