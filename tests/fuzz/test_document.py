"""The OpenAPI document against the application: requests made from it with each scope, and answers held against it.

schemathesis makes the requests, right and wrong ones. Half of them name what exists, so that more than 404 is seen.
"""

from __future__ import annotations

import os
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from in_process import MODEL, VERSION, InProcess
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api import predict
from api.tokens import SCOPES

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
BOUNDED = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def document(inside: InProcess) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "_WAIT_SECONDS", 0.0)  # nobody scores meanwhile
        yield schemathesis.openapi.from_wsgi("/openapi.json", inside.app)


def test_no_request_of_the_document_breaks_the_server_or_the_document(inside: InProcess, document: Any) -> None:
    callers = {scope: inside.bearer(scope) for scope in SCOPES} | {"nobody": {}}
    problems = [problem for result in document.get_all_operations() for problem in found(result.ok(), callers)]
    assert not problems, "\n\n".join(problems)


def found(operation: Any, callers: dict[str, dict[str, str]]) -> list[str]:
    """What is wrong with the answers of one operation, each request made by each caller."""
    cases = st.one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode)

    @BOUNDED
    @given(case=cases, known=st.booleans())
    def ask(case: Any, known: bool) -> None:
        if known:
            name_what_exists(case)
        for headers in callers.values():
            answer = case.call(headers=headers)
            unwell = answer.status_code == 503 and operation.path.startswith("/health")
            case.validate_response(answer, checks=CHECKS if unwell else [not_a_server_error, *CHECKS])

    try:
        ask()
    except (FailureGroup, Failure) as exc:
        failures = exc.exceptions if isinstance(exc, FailureGroup) else [exc]
        return [f"{operation.label}: {type(each).__name__} {each.message}"[:1_500] for each in failures]
    return []


def name_what_exists(case: Any) -> None:
    for place in (case.path_parameters, case.query):
        for name in place or ():
            place[name] = {"model": MODEL, "version": VERSION}.get(name, place[name])
