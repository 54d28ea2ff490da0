"""The reference that is made from the code: nothing that the code has is missing from it."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from api.tokens import SCOPES
from cli.main import PARTS
from db.tables import metadata

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def generated() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(DOCS))
        import generated

        return generated


def test_every_table_and_column_is_there_with_its_comment(generated: ModuleType) -> None:
    page = generated.PARTS["tables"]()
    sections = dict(zip(re.findall(r"^## (.+)$", page, re.M), re.split(r"^## .+$", page, flags=re.M)[1:], strict=True))
    assert set(sections) == {*metadata.tables, "prediction"}
    for name, table in metadata.tables.items():
        assert re.findall(r"^\| `(\w+)` \|", sections[name], re.M) == [column.name for column in table.columns]
    assert "| `live_slot` | text | not null, default `blue` | The slot that holds production. " in sections["model"]
    assert sections["prediction_block"].startswith("\n\nThe predictions of one chunk, column by column: ")
    assert "- check `state IN ('queued', 'running', 'done', 'canceled')`" in sections["chunk"]


def test_every_command_is_there_with_its_options(generated: ModuleType) -> None:
    page = generated.PARTS["commands"]()
    assert set(re.findall(r"^## (.+)$", page, re.M)) == set(PARTS)
    assert "### models deploy\n\n    scorehouse models deploy [OPTIONS]" in page
    assert r"| `--format <csv\|ndjson\|parquet>` |" in page


def test_every_route_is_there_with_its_scope_and_shapes(generated: ModuleType) -> None:
    page = generated.PARTS["http"]()
    # Of the table that a test holds against the routes that there are.
    routes = re.findall(r"^\| `([A-Z]+ /\S+)` \| (\S+) \|$", (DOCS / "reference" / "scopes.md").read_text(), re.M)
    assert len(routes) > 40
    for route, scope in routes:
        if route.startswith(("GET /docs", "GET /openapi.json")):
            continue
        told = page.partition(f"### {route}\n")[2].partition("\n### ")[0]
        assert ("No token is needed." if scope == "—" else f"Scope: {scope}") in told, route
        assert "Answers:\n\n- 20" in told, route
    assert set(re.findall(r"^Scope: `(.+)`$", page, re.M)) <= set(SCOPES)
    named = set(re.findall(r"\]\(#(shape-\w+)\)", page))
    assert named <= set(re.findall(r"^\((shape-\w+)\)=$", page, re.M))
    assert "| 422 Unprocessable Entity | the caller can mend it; " in page
