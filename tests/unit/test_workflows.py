"""The workflows: what they may do, and that each step is a command of ours that can be run by hand.

`make lint-delivery` compares them with GitHub's schema and looks for what is unsafe in them.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import ROOT
from typer.testing import CliRunner

from cli.main import build
from settings import Settings

FILES = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
WORKFLOWS: dict[str, dict[str, Any]] = {file.stem: yaml.safe_load(file.read_text()) for file in FILES}
JOBS = {(name, job): content for name, workflow in WORKFLOWS.items() for job, content in workflow["jobs"].items()}
STEPS = [(name, step) for (name, _), job in JOBS.items() for step in job.get("steps", [])]
RUNS = sorted({step["run"] for _, step in STEPS if "run" in step})
# Of GitHub itself.
OTHERS = ("docker login ghcr.io ", 'echo "image=$(cat build/image.txt)" >> "$GITHUB_OUTPUT"')
# Of compose files.
VARIABLES = {"SCOREHOUSE_IMAGE"}
# So that nothing is asked of a stack, and of git, to find them out.
NAMED = ["VERSION=1.0.0", "STACK=green", "TAG=v1"]


def made(run: str) -> list[str]:
    """What make would do for a step, nothing of which is done."""
    words = shlex.split(run.removeprefix(".ci/with-demo "))
    named = [word for word in NAMED if word.split("=")[0] not in {each.split("=")[0] for each in words}]
    words = [word.replace("$VERSION", "1.0.0") for word in words]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        [words[0], "--dry-run", "--no-print-directory", *words[1:], *named],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_there_is_a_workflow_for_each_purpose() -> None:
    assert set(WORKFLOWS) == {"ci", "models", "deliver", "bring-out"}


@pytest.mark.parametrize("run", RUNS)
def test_a_step_is_something_that_can_be_run_by_hand(run: str) -> None:
    assert "${{" not in run, "what GitHub pastes into a script could be a command"
    if run.startswith(OTHERS):
        return
    program = run.split(maxsplit=1)[0]
    if program.startswith(".ci/"):
        assert os.access(ROOT / program, os.X_OK)
    if "make " not in run:
        return
    for line in made(run):
        match = re.match(r"\S*/scorehouse (.*)", line)
        if match:
            done = CliRunner().invoke(build(), [*shlex.split(match[1]), "--help"])
            assert done.exit_code == 0, done.output
        for path in re.findall(r"(?:--file |-m pytest )([\w./-]*/[\w./-]+)", line):
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_may_only_read_and_does_not_overtake_itself(name: str) -> None:
    assert WORKFLOWS[name]["permissions"] == {"contents": "read"}
    assert WORKFLOWS[name]["concurrency"]["group"]
    # A release that is half out must not be broken off.
    assert WORKFLOWS[name]["concurrency"]["cancel-in-progress"] is (name == "ci")


def test_only_the_job_that_pushes_the_image_may_write() -> None:
    writing = {where: job["permissions"] for where, job in JOBS.items() if "permissions" in job}
    assert writing == {("deliver", "image"): {"contents": "read", "packages": "write"}}
    assert all("timeout-minutes" in job for job in JOBS.values() if "steps" in job)


def test_actions_of_others_are_pinned_and_keep_no_credentials() -> None:
    for _, step in STEPS:
        if "uses" in step:
            assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_every_variable_is_a_setting() -> None:
    named = {name for _, step in STEPS for name in step.get("env", {})}
    named |= {name for job in JOBS.values() for name in job.get("env", {})}
    named |= {name for workflow in WORKFLOWS.values() for name in workflow.get("env", {})}
    ours = {name for name in named if name.startswith("SCOREHOUSE_")} - VARIABLES
    assert {name.removeprefix("SCOREHOUSE_").lower() for name in ours} <= set(Settings.model_fields)


def test_all_versions_of_python_that_we_promise_are_tried() -> None:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    promised = set(re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"]))
    jobs = WORKFLOWS["ci"]["jobs"]
    (whole,) = [
        step["with"]["python-version"] for step in jobs["coverage"]["steps"] if "setup-python" in step.get("uses", "")
    ]
    assert {*jobs["test"]["strategy"]["matrix"]["python"], whole} == promised


def test_a_release_is_tested_after_the_switch_and_taken_back_when_it_fails() -> None:
    steps = WORKFLOWS["bring-out"]["jobs"]["bring-out"]["steps"]
    order = [step["run"] for step in steps if "run" in step]
    assert order == [
        "make start-stack",
        "make switch-stack",
        "make staging-test",
        "make validate-model",
        "make rollback-stack",
    ]
    assert steps[-1]["if"] == "(failure() || cancelled()) && steps.switch.outcome == 'success'"
    deliver = WORKFLOWS["deliver"]["jobs"]
    assert set(deliver["production"]["needs"]) == {"image", "staging"}
    assert deliver["production"]["with"]["image"] == deliver["staging"]["with"]["image"], "what was tested"


def test_a_stack_of_two_is_like_the_services_of_compose() -> None:
    stack: dict[str, Any] = yaml.safe_load((ROOT / "deployment" / "blue-green" / "compose.yml").read_text())["services"]
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    assert set(stack) == {"migrate", "api", "worker-interactive", "worker-bulk", "worker-training", "beat"}
    same = [
        "command",
        "healthcheck",
        "deploy",
        "read_only",
        "cap_drop",
        "security_opt",
        "init",
        "tmpfs",
        "secrets",
        "restart",
    ]
    for name, service in stack.items():
        for key in [*same, "stop_grace_period"]:
            assert service.get(key) == compose[name].get(key), (name, key)
        assert set(service["environment"]) - {"SCOREHOUSE_STACK_NAME"} == set(compose[name].get("environment", {}))
    schema = [Path(sys.executable).with_name("check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*schema, ROOT / "deployment" / "blue-green" / "compose.yml"], check=True, capture_output=True)
