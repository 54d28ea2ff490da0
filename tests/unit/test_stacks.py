"""`scorehouse stacks` without processes: its file, nginx's include, the history, and what is said of a stack's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from scripted_api import Answer, ScriptedApi
from typer.testing import CliRunner

from cli.main import build
from deployment.stacks import history, nginx
from deployment.stacks.checks import Check, CheckFailed, examine, live, ready
from deployment.stacks.config import Config, load
from deployment.stacks.history import Entry
from errors import InvalidInput

TEMPLATE = Path(__file__).parents[2] / "deployment" / "nginx" / "stacks.yml"
GREEN = {"Scorehouse-Release": "0.2.0+green"}
HEALTH: dict[str, Any] = {
    "status": "ok",
    "database": "ok",
    "workers": 3,
    "lanes": {"interactive": 1, "bulk": 2},
    "models": {"flights@1.2.0": "ready"},
}


def configured(folder: Path, green: str = "http://127.0.0.1:8002", **changes: Any) -> Config:
    content = {
        "stacks": {"blue": "http://127.0.0.1:8001", "green": green},
        "front": "http://127.0.0.1:8080",
        "include": "scorehouse/upstream.conf",
        **changes,
    }
    file = folder / "stacks.yml"
    file.write_text(yaml.safe_dump(content))
    config = load(file)
    config.include.parent.mkdir(exist_ok=True)
    return config


def test_the_file_that_is_shown_can_be_read() -> None:
    config = load(TEMPLATE)
    assert (config.address_of("blue"), config.address_of("green")) == ("127.0.0.1:8001", "127.0.0.1:8002")
    assert config.include == Path("/etc/nginx/scorehouse/upstream.conf")


def test_paths_count_from_the_folder_of_the_file(tmp_path: Path) -> None:
    assert configured(tmp_path).include == tmp_path / "scorehouse" / "upstream.conf"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"frnt": "http://x"}, "frnt: Extra inputs are not permitted"),
        ({"front": "nginx:80"}, "front: Value error, must be the http or https URL where clients find nginx"),
        ({"green": "https://127.0.0.1:8002"}, "stacks/green: Value error, must be http://HOST:PORT"),
        ({"green": "http://127.0.0.1"}, "stacks/green: Value error, must be http://HOST:PORT"),
        ({"green": "http://127.0.0.1:8001/"}, "blue and green have the same URL"),
        ({"validations": [{"record": {}}]}, "validations/0/model: Field required"),
    ],
)
def test_a_file_that_is_wrong_is_told_where(tmp_path: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        configured(tmp_path, **changes)
    assert told in str(caught.value)
    assert "stacks.yml" in str(caught.value)


def test_a_file_that_is_not_there_or_no_yaml_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"cannot be read \(No such file or directory\): write one as"):
        load(tmp_path / "none.yml")
    (tmp_path / "stacks.yml").write_text("stacks: {")
    with pytest.raises(InvalidInput, match="is no YAML"):
        load(tmp_path / "stacks.yml")


@pytest.mark.parametrize(
    ("text", "active"),
    [
        ("server 127.0.0.1:8001;\n", "blue"),
        ("# by hand\n  server 127.0.0.1:8002 ;  # now green\n", "green"),
        ("#server 127.0.0.1:8001;\nserver 127.0.0.1:8002;\n", "green"),
        ("server 127.0.0.1:8001;\nserver 127.0.0.1:8002;\n", None),
        ("server 127.0.0.1:80011;\n", None),
        ("", None),
        (None, None),
    ],
)
def test_the_include_says_which_stack_is_active(tmp_path: Path, text: str | None, active: str | None) -> None:
    config = configured(tmp_path)
    if text is not None:
        config.include.write_text(text)
    assert nginx.active(config) == active


@pytest.mark.parametrize("before", ["server 127.0.0.1:8001;\n", None])
def test_without_nginx_the_include_stays_as_it_was(tmp_path: Path, before: str | None) -> None:
    config = configured(tmp_path, nginx=str(tmp_path / "no-such-nginx"))
    if before is not None:
        config.include.write_text(before)
    with pytest.raises(nginx.NginxRefused, match="mend `nginx` in the stacks file"):
        nginx.point_to(config, "green")
    assert (config.include.read_text() if config.include.exists() else None) == before
    assert nginx.draining(config) is None


def test_the_last_switch_is_found_behind_refusals_and_torn_lines(tmp_path: Path) -> None:
    file = tmp_path / "history.jsonl"
    assert history.last_switched(file) is None
    checks = [Check("live", True, "", 0.0)]
    for before, why, outcome in (
        ("blue", "first", "switched"),
        ("blue", "second", "switched"),
        ("green", "third: it was green already", "switched"),
        ("blue", "fourth", "refused"),
    ):
        history.append(file, Entry("2026-01-01T00:00:00Z", "me", "switch", before, "green", why, outcome, 0.5, checks))
    with file.open("a") as opened:
        opened.write('{"at": "2026-')
    last = history.last_switched(file)
    assert last is not None
    assert (last["why"], last["from"], last["to"], last["checks"][0]["name"]) == ("second", "blue", "green", "live")


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(200, {}), "is no API of this release or later"),
        (Answer(503, {"detail": "out of order"}, GREEN), "/health/live answers 503, out of order"),
        (Answer(200, {}, {"Scorehouse-Release": "0.2.0"}), "start its processes with SCOREHOUSE_STACK_NAME=green"),
        (Answer(200, {}, {"Scorehouse-Release": "0.2.0+blue"}), "says that it is 0.2.0+blue, not green"),
    ],
)
def test_what_is_not_the_stack_is_told(tmp_path: Path, api: ScriptedApi, answer: Answer, told: str) -> None:
    api.on("GET", "/health/live", answer)
    with pytest.raises(CheckFailed) as caught:
        live(configured(tmp_path, green=api.url), "green")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"database": "it has revision 0002"}, "green is not ready: it has revision 0002"),
        ({"lanes": {"interactive": 1, "bulk": 0}}, "none of its workers serves the lane bulk"),
        ({"models": {"flights@1.2.0": "no live worker holds it"}}, "flights@1.2.0: no live worker holds it"),
        ({"models_missing": 2}, "none of its workers holds 2 other models in production"),
    ],
)
def test_what_is_missing_is_told(tmp_path: Path, api: ScriptedApi, changes: dict[str, Any], told: str) -> None:
    api.on("GET", "/health", Answer(503, {**HEALTH, **changes}, GREEN))
    with pytest.raises(CheckFailed) as caught:
        ready(configured(tmp_path, green=api.url), "green", seconds=0)
    assert told in str(caught.value)
    assert api.received[0].query == {"release": "self"}


def test_a_stack_has_time_to_become_ready(tmp_path: Path, api: ScriptedApi) -> None:
    api.on("GET", "/health", Answer(503, {**HEALTH, "workers": 0, "lanes": {"bulk": 0}}), Answer(200, HEALTH))
    assert ready(configured(tmp_path, green=api.url), "green", seconds=30) == "3 worker processes, models flights@1.2.0"


@pytest.mark.parametrize(
    ("wanted", "ok"),
    [
        ({"prediction": 1, "probability": [0.2, 0.8]}, True),
        ({}, True),
        ({"prediction": 0}, False),
        ({"prediction": "1"}, False),
        ({"probability": [0.2, 0.8000001]}, False),
        ({"probability": [0.2]}, False),
    ],
)
def test_a_validation_compares_what_it_is_told_to(
    tmp_path: Path, api: ScriptedApi, wanted: dict[str, Any], ok: bool
) -> None:
    api.on("GET", "/health/live", Answer(200, {}, GREEN))
    api.on("GET", "/health", Answer(200, HEALTH, GREEN))
    api.on("GET", "/v1/models", {"models": [{"name": "flights"}]})
    api.on("POST", "/predict", {"prediction": 1, "probability": [0.2, 0.8 + 1e-12], "model_version": "1.2.0"})
    validation = {"model": "flights", "record": {"carrier": "UA"}, **wanted}
    checks = list(examine(configured(tmp_path, green=api.url, validations=[validation]), "green", "token"))
    assert [check.name for check in checks] == ["live", "ready", "models", "validation 1"]
    assert [check.ok for check in checks] == [True, True, True, ok]
    sent = api.received[-1]
    assert (sent.query, sent.json(), sent.headers["Authorization"]) == (
        {"model": "flights"},
        {"carrier": "UA"},
        "Bearer token",
    )


@pytest.mark.parametrize(("active", "idle"), [("127.0.0.1:8001", "green"), ("127.0.0.1:8002", "blue"), (None, "blue")])
def test_the_next_release_goes_where_clients_are_not(tmp_path: Path, active: str | None, idle: str) -> None:
    config = configured(tmp_path)
    if active is not None:
        config.include.write_text(f"server {active};\n")
    done = CliRunner().invoke(build("stacks"), ["stacks", "idle", "--file", str(tmp_path / "stacks.yml")])
    assert (done.exit_code, done.output) == (0, f"{idle}\n")
