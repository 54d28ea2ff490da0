"""The Kubernetes manifests, rendered without a cluster: what they promise, and that they agree with code and compose file.

`make manifests` compares them with Kubernetes' own schemas.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from programs import ROOT, run
from typer.testing import CliRunner

from api.tokens import SCOPES
from cli.main import build
from monitoring.metric_names import METRICS
from settings import Settings

FOLDER = ROOT / "deployment" / "kubernetes"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SCORING = {"worker-interactive", "worker-bulk"}
ROLES = SCORING | {"api", "worker-training", "beat", "flower", "migrate"}
# Of services of compose and of secrets: the same names, in the secret that holds them.
SECRETS = {
    "scorehouse-database": {"scorehouse_database_url"},
    "scorehouse-broker": {"scorehouse_broker_url"},
    "scorehouse-api": {"scorehouse_jwt_key"},
    "scorehouse-owner": {"scorehouse_database_owner_url"},
    "scorehouse-flower": {"flower_password"},
}

Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    return [each for each in yaml.safe_load_all(run("kubectl", "kustomize", folder)) if each]


@pytest.fixture(scope="module")
def production() -> list[Manifest]:
    return render(FOLDER / "overlays" / "production")


@pytest.fixture(scope="module")
def pods(production: list[Manifest]) -> dict[str, Manifest]:
    """The pod template of each role."""
    found = [each for each in production if each["kind"] in {"Deployment", "Job"}]
    return {each["metadata"]["name"].removeprefix("scorehouse-"): each["spec"]["template"] for each in found}


def of_kind(manifests: list[Manifest], kind: str) -> dict[str, Manifest]:
    return {each["metadata"]["name"].removeprefix("scorehouse-"): each for each in manifests if each["kind"] == kind}


def container(pod: Manifest) -> Manifest:
    (only,) = pod["spec"]["containers"]
    return dict(only)


def mebibytes(memory: str) -> int:
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi|m|g)", memory).groups()  # type: ignore[union-attr]  # else it fails, as it should
    return int(number) * (1024 if unit in {"Gi", "g"} else 1)


def in_compose(role: str) -> list[str]:
    return [re.sub(r"\$\{\w+:-(\w+)\}", r"\1", word) for word in COMPOSE[role]["command"]]


def test_there_is_a_pod_for_each_role(pods: dict[str, Manifest], production: list[Manifest]) -> None:
    assert set(pods) == ROLES
    assert not of_kind(production, "Secret"), "secrets are named, never contained"
    beat = of_kind(production, "Deployment")["beat"]["spec"]
    assert (beat["replicas"], beat["strategy"]) == (1, {"type": "Recreate"})


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_pod_runs_what_the_service_of_compose_runs(role: str, pods: dict[str, Manifest]) -> None:
    pod, service = container(pods[role]), COMPOSE[role]
    assert pod["args"] == in_compose(role)
    assert mebibytes(pod["resources"]["limits"]["memory"]) == mebibytes(
        service["deploy"]["resources"]["limits"]["memory"]
    )
    assert set(pod["resources"]["requests"]) == {"cpu", "memory"}
    grace = pods[role]["spec"].get("terminationGracePeriodSeconds", 30)
    assert grace >= int(service.get("stop_grace_period", "10s").rstrip("s"))
    if role in SCORING:
        assert grace > Settings.model_fields["chunk_time_limit"].default


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_command_of_a_pod_is_one_of_ours(role: str, pods: dict[str, Manifest]) -> None:
    pod = container(pods[role])
    probes = [pod[name]["exec"]["command"] for name in pod if name.endswith("Probe") and "exec" in pod[name]]
    schema = [each["args"] for each in pods[role]["spec"].get("initContainers", [])]
    for words in [pod["args"], *schema, *(command[1:] for command in probes)]:
        done = CliRunner().invoke(build(), [*words, "--help"])
        assert done.exit_code == 0, done.output
    assert all(command[0] == "scorehouse" for command in probes)


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_pod_is_without_privileges(role: str, pods: dict[str, Manifest]) -> None:
    spec = pods[role]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["runAsUser"] == 10001, "the user of the image"
    assert spec["automountServiceAccountToken"] is False
    # A service `scorehouse-api` would else set SCOREHOUSE_API_PORT to tcp://…, which is no port.
    assert spec["enableServiceLinks"] is False
    for each in [*spec.get("initContainers", []), *spec["containers"]]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        written = {mount["mountPath"] for mount in each["volumeMounts"] if not mount.get("readOnly")}
        assert written == {"/tmp", "/var/lib/scorehouse"}


@pytest.mark.parametrize("role", sorted(ROLES))
def test_a_pod_knows_only_its_own_secrets(role: str, pods: dict[str, Manifest]) -> None:
    volume = {each["name"]: each for each in pods[role]["spec"]["volumes"]}["secrets"]["projected"]["sources"]
    named = {source["secret"]["name"] for source in volume}
    told = set().union(*(SECRETS[name] for name in named))
    assert told <= set(COMPOSE[role]["secrets"])
    assert ("scorehouse-owner" in named) == (role == "migrate")
    assert ("scorehouse-api" in named) == (role == "api"), "it alone verifies tokens"
    for entry in container(pods[role]).get("env", []):
        if entry["name"].endswith("_FILE"):
            assert Path(entry["value"]).name in told


def test_every_variable_is_a_setting(pods: dict[str, Manifest], production: list[Manifest]) -> None:
    (shared,) = of_kind(production, "ConfigMap").values()
    names = set(shared["data"]) | {entry["name"] for pod in pods.values() for entry in container(pod).get("env", [])}
    assert {name.removeprefix("SCOREHOUSE_").lower() for name in names} <= set(Settings.model_fields)
    assert shared["data"]["SCOREHOUSE_ARTEFACT_URL"].startswith("s3://"), "pods share nothing else"
    assert Settings(_env_file=None, **{k.removeprefix("SCOREHOUSE_").lower(): v for k, v in shared["data"].items()})


def test_probes_ask_what_health_checks_ask(pods: dict[str, Manifest]) -> None:
    for role in sorted(ROLES - {"migrate"}):
        pod, check = container(pods[role]), COMPOSE[role]["healthcheck"]["test"][1:]
        ports = {port["name"]: port["containerPort"] for port in pod.get("ports", [])}
        for name in [name for name in pod if name.endswith("Probe")]:
            if "exec" in pod[name]:
                assert pod[name]["exec"]["command"] == check
            else:
                assert pod[name]["httpGet"]["port"] in ports
        assert {"readinessProbe", "livenessProbe"} & set(pod)
    api = container(pods["api"])
    assert api["ports"][0]["containerPort"] == Settings.model_fields["api_port"].default
    assert api["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert api["livenessProbe"]["httpGet"]["path"] == "/health/live", "no restart for a database that is away"
    flower = container(pods["flower"])
    assert flower["ports"][0]["containerPort"] == Settings.model_fields["flower_port"].default
    assert not any("livenessProbe" in container(pods[role]) for role in SCORING)


def selects(selector: Manifest, labels: Manifest) -> bool:
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    return all(
        (labels.get(each["key"]) in each["values"]) == (each["operator"] == "In")
        for each in selector.get("matchExpressions", [])
    )


def test_whatever_selects_pods_selects_those_that_it_means(
    pods: dict[str, Manifest], production: list[Manifest]
) -> None:
    def selected(selector: Manifest) -> set[str]:
        return {role for role, pod in pods.items() if selects(selector, pod["metadata"]["labels"])}

    for kind in ("Deployment", "PodDisruptionBudget"):
        found = of_kind(production, kind)
        assert set(found) == ROLES - {"migrate"}
        assert all(selected(each["spec"]["selector"]) == {role} for role, each in found.items())
    for role, service in of_kind(production, "Service").items():
        assert selected({"matchLabels": service["spec"]["selector"]}) == {role}
    (monitor,) = of_kind(production, "ServiceMonitor").values()
    service = of_kind(production, "Service")["api"]
    assert selects(monitor["spec"]["selector"], service["metadata"]["labels"])
    assert {each["port"] for each in monitor["spec"]["endpoints"]} <= {
        port["name"] for port in service["spec"]["ports"]
    }


def test_who_may_speak_to_whom(pods: dict[str, Manifest], production: list[Manifest]) -> None:
    policies = of_kind(production, "NetworkPolicy")
    reached: dict[str, set[int]] = {role: set() for role in ROLES}
    reaching: dict[str, set[int]] = {role: set() for role in ROLES}
    denied = set()
    for policy in policies.values():
        for role in ROLES:
            if selects(policy["spec"]["podSelector"], pods[role]["metadata"]["labels"]):
                denied |= {(role, kind) for kind in policy["spec"]["policyTypes"]}
                for direction, ports in (("egress", reached[role]), ("ingress", reaching[role])):
                    for rule in policy["spec"].get(direction, []):
                        ports |= {each["port"] for each in rule["ports"]}
    assert denied == {(role, kind) for role in ROLES for kind in ("Ingress", "Egress")}
    assert {role: ports for role, ports in reaching.items() if ports} == {"api": {8000}}
    names, postgres, broker, tls, mail = 53, 5432, 6379, 443, Settings.model_fields["smtp_port"].default
    assert reached == {
        "migrate": {names, postgres},
        "beat": {names, postgres, broker},
        "flower": {names, postgres, broker},
        "api": {names, postgres, broker, tls},
        "worker-training": {names, postgres, broker, tls},
        "worker-interactive": {names, postgres, broker, tls, mail},
        "worker-bulk": {names, postgres, broker, tls, mail},
    }


def test_bulk_workers_are_scaled_by_one_autoscaler(production: list[Manifest]) -> None:
    assert set(of_kind(render(FOLDER / "base"), "HorizontalPodAutoscaler")) == {"api", "worker-bulk"}
    assert set(of_kind(production, "HorizontalPodAutoscaler")) == {"api"}
    (scaled,) = of_kind(production, "ScaledObject").values()
    assert scaled["spec"]["scaleTargetRef"]["name"] == "scorehouse-worker-bulk"
    assert scaled["spec"]["minReplicaCount"] >= 1, "/health wants a worker that holds the models"
    (trigger,) = scaled["spec"]["triggers"]
    name, labels = re.search(r"(\w+)\{(.*?)\}", trigger["metadata"]["query"]).groups()  # type: ignore[union-attr]  # as above
    assert METRICS[name].labels == tuple(label.split("=")[0] for label in labels.split(","))
    assert 'lane="bulk"' in labels
    for role, deployment in of_kind(production, "Deployment").items():
        assert ("replicas" in deployment["spec"]) == (role not in {"api", "worker-bulk"}), (
            "an apply would undo the scaling"
        )


def test_metrics_are_not_for_the_outside(production: list[Manifest]) -> None:
    (ingress,) = of_kind(production, "Ingress").values()
    paths = [path["path"] for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    assert "/" not in paths
    assert not any("/metrics".startswith(path) for path in paths)
    (monitor,) = of_kind(production, "ServiceMonitor").values()
    assert monitor["spec"]["endpoints"][0]["authorization"]["credentials"]["name"] == "scorehouse-metrics"
    assert "metrics:read" in SCOPES


def test_artefacts_in_a_shared_volume(tmp_path: Path) -> None:
    def relative(folder: str) -> str:
        return os.path.relpath((FOLDER / folder).resolve(), tmp_path.resolve())

    overlay = {"resources": [relative("base")], "components": [relative("components/artefact-volume")]}
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    manifests = render(tmp_path)
    mounting = {
        role
        for role, each in of_kind(manifests, "Deployment").items()
        if "/srv/artefacts" in {mount["mountPath"] for mount in container(each["spec"]["template"])["volumeMounts"]}
    }
    assert mounting == {"api", "worker-interactive", "worker-bulk", "worker-training"}
    (settings,) = of_kind(manifests, "ConfigMap").values()
    assert settings["data"]["SCOREHOUSE_ARTEFACT_URL"] == "file:///srv/artefacts"
