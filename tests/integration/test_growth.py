"""No query of a page, a poll or a scrape looks at more because there are more jobs: by what its plan reads, not by the clock."""

from __future__ import annotations

import pytest

from benchmarks.growth import MOST_PAGES, MOST_ROWS, Case, cases, engine_for, fill, looked
from db.engine import create_engine

# The more there are, the surer the planner takes an index; with fewer it rightly reads them all.
JOBS, PREDICTIONS = 30_000, 300_000


@pytest.fixture(scope="module")
def grown(module_database_url: str) -> dict[str, Case]:
    owner = create_engine(module_database_url, name="tests", role=None)
    found = {case.name: case for case in cases(fill(owner, JOBS, PREDICTIONS))}
    owner.dispose()
    return found


# The names stand here because the jobs are made only when the tests run.
@pytest.mark.parametrize(
    "name",
    [
        "poll a job",
        "list: the newest 50",
        "list: 50 from anywhere on",
        "list: those queued",
        "list: those with errors",
        "list: those that failed, of which there is none",
        "list: of a model that is seldom asked",
        "list: of that model, with errors",
        "results of a single",
        "a record key",
        "the input of a row",
        "what a tenant has used",
        "metrics: open jobs",
        "metrics: open chunks",
        "drift: the profiles of a day",
        "accuracy: the outcomes of a month",
        "accuracy: rows that were scored in a month",
        "the last inputs, for a replay",
        "the chunks of a file",
    ],
)
def test_a_query_looks_at_no_more_than_it_shows(name: str, grown: dict[str, Case], module_database_url: str) -> None:
    engine = engine_for(module_database_url, grown[name])
    found = looked(engine, grown[name])
    engine.dispose()
    assert found.rows <= MOST_ROWS
    assert found.pages <= MOST_PAGES
