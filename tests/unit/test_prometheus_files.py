"""Rules of Prometheus: they are valid, they ask for what exists, each alert is tested and has its runbook."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from prometheus_files import ALERTING, FOLDER, RECORDING, ROOT, expressions, promtool, rules
from promql import faults, read

PROMTOOL_TESTS = sorted((FOLDER / "tests").glob("*.test.yml"))
TOKEN_FILE = "/run/secrets/scorehouse_metrics_token"
OPERATE = ROOT / "docs" / "how-to" / "operate.md"
METRICS_PAGE = ROOT / "docs" / "reference" / "metrics.md"

recorded = expressions(RECORDING)
alerts = rules(ALERTING)
every_expression = {**recorded, **expressions(ALERTING)}


def test_promtool_accepts_the_rules() -> None:
    answer = promtool("check", "rules", RECORDING, ALERTING)
    assert f"{len(recorded)} rules found" in answer
    assert f"{len(alerts)} rules found" in answer


def test_promtool_accepts_the_configuration(tmp_path: Path) -> None:
    """With a token where it can be read, because the container's own exists only there."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "prometheus"))
    token = tmp_path / "token"
    token.write_text("a token")
    configuration = folder / "prometheus.yml"
    assert configuration.read_text().count(TOKEN_FILE) == 1
    configuration.write_text(configuration.read_text().replace(TOKEN_FILE, str(token)))
    answer = promtool("check", "config", configuration)
    assert "2 rule files found" in answer


@pytest.mark.parametrize("file", PROMTOOL_TESTS, ids=lambda file: file.name)
def test_alerts_fire_when_they_should_and_are_silent_when_not(file: Path) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("alert", alerts)
def test_each_alert_is_tested_firing_and_silent(alert: str) -> None:
    """By promtool's own tests: an expectation of at least one alert, and one of none."""
    cases = "".join(file.read_text() for file in PROMTOOL_TESTS)
    assert re.search(rf"alertname: {alert}\n +exp_alerts:\n +- exp_labels:", cases)
    assert re.search(rf"alertname: {alert}\n +exp_alerts: \[\]\n", cases)


@pytest.mark.parametrize("alert", alerts)
def test_each_alert_says_what_is_wrong_and_what_to_do(alert: str) -> None:
    rule = alerts[alert]
    assert re.search(r"^for: \d+[mh]$", rule, re.MULTILINE)
    assert re.search(r"^  severity: (critical|warning)$", rule, re.MULTILINE)
    for annotation in ("summary", "description"):
        assert re.search(rf"^  {annotation}: .{{10,}}$", rule, re.MULTILINE)
    page, anchor = re.findall(r"^  runbook: (.+)#(.+)$", rule, re.MULTILINE)[0]
    assert ROOT / page == OPERATE
    section = re.search(rf"^### {alert}\n\n(.+?)(?=\n#|\Z)", OPERATE.read_text(), re.MULTILINE | re.DOTALL)
    assert anchor == alert.lower()
    assert section, f"{OPERATE.name} has no section {alert}"
    assert len(section[1]) > 80


def test_the_page_has_no_section_of_an_alert_that_is_gone() -> None:
    assert set(re.findall(r"^### (\w+)$", OPERATE.read_text(), re.MULTILINE)) == set(alerts)


@pytest.mark.parametrize("name", every_expression)
def test_each_rule_asks_for_metrics_and_labels_that_exist(name: str) -> None:
    assert read(every_expression[name]).series
    assert list(faults(every_expression[name], recorded)) == []


def test_recorded_series_are_documented_by_name() -> None:
    documented = re.findall(r"^\| `(\w+:\w+:\w+)` \| [^|]+ \|$", METRICS_PAGE.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(recorded)
