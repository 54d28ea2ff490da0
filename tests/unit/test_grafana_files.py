"""Grafana's dashboards: whole, tidy, and asking for what exists."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from prometheus_files import RECORDING, ROOT, expressions, promtool
from promql import faults, labels_of, read

FOLDER = ROOT / "monitoring" / "grafana"
FILES = sorted((FOLDER / "dashboards").glob("*.json"))
COLUMNS = 24

recorded = expressions(RECORDING)
dashboards = {file.stem: json.loads(file.read_text()) for file in FILES}


def panels(name: str) -> list[dict[str, Any]]:
    """Those that draw something."""
    return [panel for panel in dashboards[name]["panels"] if panel["type"] != "row"]


def queries(name: str) -> list[tuple[str, str]]:
    """Title and expression of everything that a dashboard asks Prometheus."""
    return [(panel["title"], target["expr"]) for panel in panels(name) for target in panel["targets"]]


every_dashboard = pytest.mark.parametrize("name", dashboards)


def test_there_are_the_two() -> None:
    assert {name: dashboard["uid"] for name, dashboard in dashboards.items()} == {
        "models": "scorehouse-models",
        "scorehouse": "scorehouse",
    }


@every_dashboard
def test_the_file_is_tidy(name: str) -> None:
    text = (FOLDER / "dashboards" / f"{name}.json").read_text()
    assert text == json.dumps(dashboards[name], indent=2, ensure_ascii=False) + "\n"


@every_dashboard
def test_a_dashboard_has_what_grafana_needs(name: str) -> None:
    dashboard = dashboards[name]
    assert dashboard["title"]
    assert dashboard["schemaVersion"] >= 39
    assert "id" not in dashboard, "the id is each Grafana's own; the uid is ours"
    for panel in panels(name):
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert references, panel["title"]
        assert len(references) == len(set(references)), panel["title"]
        for part in (panel, *panel["targets"]):
            assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@every_dashboard
def test_each_panel_has_an_id_and_a_title_of_its_own(name: str) -> None:
    ids = [panel["id"] for panel in dashboards[name]["panels"]]
    titles = [panel["title"] for panel in panels(name)]
    assert len(ids) == len(set(ids))
    assert len(titles) == len(set(titles))


@every_dashboard
def test_no_panel_covers_another(name: str) -> None:
    for panel in dashboards[name]["panels"]:
        assert 0 <= panel["gridPos"]["x"] <= panel["gridPos"]["x"] + panel["gridPos"]["w"] <= COLUMNS
    for one, other in combinations(dashboards[name]["panels"], 2):
        assert not _overlap(one["gridPos"], other["gridPos"]), (one["title"], other["title"])


@every_dashboard
def test_each_query_asks_for_metrics_and_labels_that_exist(name: str) -> None:
    found = {title: list(faults(expression, recorded)) for title, expression in queries(name)}
    assert {title: wrong for title, wrong in found.items() if wrong} == {}
    assert all(read(expression).series for _, expression in queries(name))


@every_dashboard
def test_legends_show_labels_that_the_query_keeps(name: str) -> None:
    for panel in panels(name):
        for target in panel["targets"]:
            shown = set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
            kept = re.search(r"\bby \(([^)]*)\)", target["expr"])
            assert shown <= set(re.findall(r"\w+", kept[1] if kept else "")), (panel["title"], target["expr"])


@every_dashboard
def test_variables_that_are_used_are_defined_and_ask_for_what_exists(name: str) -> None:
    variables = {variable["name"]: variable for variable in dashboards[name]["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", json.dumps(dashboards[name], ensure_ascii=False)))
    assert used == set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            selector, label = re.findall(r"label_values\((.+), (\w+)\)", variable["query"]["query"])[0]
            assert list(faults(selector, recorded)) == []
            [series] = read(selector).series
            assert label in (labels_of(series, recorded) or ())


@every_dashboard
def test_promtool_parses_each_query(name: str, tmp_path: Path) -> None:
    """As recordings of a rules file made for it; a JSON string is a YAML string too."""
    rules = [f"      - record: query_{i}\n        expr: {json.dumps(e)}" for i, (_, e) in enumerate(queries(name))]
    file = tmp_path / "queries.yml"
    file.write_text("\n".join(["groups:", "  - name: queries", "    rules:", *rules]) + "\n")
    assert f"{len(rules)} rules found" in promtool("check", "rules", file)


def test_what_is_provisioned_is_what_the_dashboards_need() -> None:
    source = (FOLDER / "provisioning" / "datasources" / "prometheus.yml").read_text()
    provider = (FOLDER / "provisioning" / "dashboards" / "scorehouse.yml").read_text()
    assert re.search(r"^    type: prometheus$", source, re.MULTILINE)
    assert re.search(r"^    isDefault: true$", source, re.MULTILINE), "the dashboards open with the default data source"
    assert re.search(r"^    type: file$", provider, re.MULTILINE)
    [path] = re.findall(r"^      path: (\S+)$", provider, re.MULTILINE)
    assert path in (ROOT / "docs" / "how-to" / "operate.md").read_text()


def _overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    return (
        one["x"] < other["x"] + other["w"]
        and other["x"] < one["x"] + one["w"]
        and one["y"] < other["y"] + other["h"]
        and other["y"] < one["y"] + one["h"]
    )
