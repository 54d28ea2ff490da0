"""The Flask application: one blueprint per resource, errors as problem details, tokens on every route but health."""

from __future__ import annotations

from importlib.metadata import version as release_of

from flask_openapi3.models.info import Info
from flask_openapi3.openapi import OpenAPI
from pydantic import ValidationError
from werkzeug.middleware.proxy_fix import ProxyFix

import logs
from api import (
    alerts,
    audits,
    auth,
    browsers,
    deployments,
    docs,
    health,
    http_metrics,
    jobs,
    labels,
    models,
    places,
    predict,
    predictions,
    problems,
    quota,
    rate_limits,
    strict_json,
    token_routes,
    trail,
    trainings,
)
from api.completions import Completions
from api.context import Context
from api.limits import TenantLimits
from api.places import Places
from api.rate_limits import FailedAuthentications, TenantRates
from api.revocations import Revocations
from api.signatures import Signatures
from api.together import Together
from api.verification import Verifier
from db.engine import TENANT_ROLE, create_engine, for_system
from db.quotas import Quotas
from registry.store import ArtefactStore
from settings import Settings, get_settings

MAX_DOCUMENT_BYTES = 1024 * 1024
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


def create_app(settings: Settings | None = None) -> OpenAPI:
    """The application of one process; connections and threads are made on first use, after gunicorn's fork."""
    settings = settings or get_settings()
    logs.configure(settings)
    app = OpenAPI(
        "scorehouse",
        info=Info(title="Scorehouse", version=release_of("scorehouse")),
        security_schemes={"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
        validation_error_status=422,
        validation_error_model=problems.ProblemDocument,
        validation_error_callback=problems.from_validation,
        doc_ui=False,
        static_folder=None,
    )
    # A redirect would name whatever host the client has named.
    app.url_map.merge_slashes = False
    strict_json.install(app)
    # Of bodies that Flask reads; what may be longer is read in blocks, and bounded there.
    app.config["MAX_CONTENT_LENGTH"] = MAX_DOCUMENT_BYTES
    # Most threads wait, for a job or for a client, and need none.
    pool_size = max(settings.api_threads // 4, 1)
    engine = create_engine(
        settings.resolved_database_url(), name="scorehouse-api", role=TENANT_ROLE, pool_size=pool_size
    )
    verifier = Verifier(settings)
    context = Context(
        settings,
        engine,
        ArtefactStore(settings.resolved_artefact_url()),
        Completions(engine, settings.api_threads // 2),
        verifier,
        Revocations(for_system(engine), verifier.kids),
        Places.of(settings.api_threads),
        TenantLimits(for_system(engine), Quotas.of(settings)),
        Signatures(),
        submissions=Together(),
        documents=Together(),
    )
    app.extensions["scorehouse"] = context
    if settings.trusted_proxies:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]  # as its documentation has it
            app.wsgi_app, x_for=settings.trusted_proxies, x_proto=0, x_host=0, x_port=0, x_prefix=0
        )
    app.register_error_handler(ValidationError, problems.from_validation)
    problems.install(app)
    http_metrics.install(app)
    health.install(app, settings.release)
    browsers.install(app, settings)
    rate_limits.install(app)
    auth.install(
        app,
        TenantRates(context.system_engine, context.limits),
        FailedAuthentications(settings.failed_authentications_per_minute / settings.api_workers),
        on_loopback=settings.api_host in _LOOPBACK,
    )
    places.install(app, context.places)
    for resource in (
        health,
        jobs,
        predict,
        predictions,
        labels,
        models,
        deployments,
        audits,
        alerts,
        trainings,
        token_routes,
        trail,
        quota,
        http_metrics,
    ):
        app.register_api(resource.blueprint)
    docs.install(app)
    return app
