"""What every answer tells a browser: to guess nothing, to keep nothing, and to show it to no other site.

An application that runs in a browser may use the API when its origin is one of `cors_origins`; by default none is.
"""

from __future__ import annotations

from flask import Flask, Response, request

from settings import Settings

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Pages that need more say so themselves.
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    # Answers are of one tenant, and change.
    "Cache-Control": "no-store",
}
_METHODS = "GET, POST, PUT"
_REQUEST_HEADERS = "Authorization, Content-Encoding, Content-Type, Idempotency-Key, Last-Event-ID, Prefer"
_EXPOSED = "Location, Preference-Applied, Results-Through-Row, Retry-After, Scorehouse-Release"
_PREFLIGHT_SECONDS = 600


def install(app: Flask, settings: Settings) -> None:
    """Stands before authentication: a browser asks whether it may (`OPTIONS`) without a token."""
    origins = frozenset(settings.allowed_origins)

    @app.before_request
    def preflight() -> Response | None:
        asked = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
        return Response(status=204) if asked and request.headers.get("Origin") in origins else None

    @app.after_request
    def protect(response: Response) -> Response:
        for name, value in _HEADERS.items():
            response.headers.setdefault(name, value)
        if origins:
            response.headers.add("Vary", "Origin")
            _allow(response, origins)
        return response


def _allow(response: Response, origins: frozenset[str]) -> None:
    origin = request.headers.get("Origin")
    if origin not in origins or origin is None:
        return
    response.headers["Access-Control-Allow-Origin"] = origin
    response.headers["Cross-Origin-Resource-Policy"] = "cross-origin"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = _METHODS
        response.headers["Access-Control-Allow-Headers"] = _REQUEST_HEADERS
        response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_SECONDS)
    else:
        response.headers["Access-Control-Expose-Headers"] = _EXPOSED
