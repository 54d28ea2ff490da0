"""The calls about models: register versions, deploy them, look them up."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import quote

from scorehouse_client.bodies import MultipartBody
from scorehouse_client.errors import DeploymentFailed, RegistrationFailed, ScorehouseClientError
from scorehouse_client.resources import Deployment, Model, ModelVersion
from scorehouse_client.transport import BytesProgress, Request, Transport

Runtime = Literal["auto", "sklearn", "onnx"]
DeploymentProgress = Callable[[Deployment], None]
Resource = TypeVar("Resource")

FIRST_POLL, LONGEST_POLL = 0.1, 1.0


class ModelCalls:
    """Mixed into `Client`."""

    _transport: Transport

    def register_version(  # each is a field of the request
        self,
        model: str,
        version: str,
        artefact: str | PathLike[str],
        reference: str | PathLike[str],
        *,
        key: str | None = None,
        target: str | None = None,
        runtime: Runtime = "auto",
        quantise_within: float | None = None,
        trust: bool = False,
        allow_version_mismatch: bool = False,
        lineage: Mapping[str, Any] | None = None,
        candidate: bool = False,
        signature: str | None = None,
        timeout: float = 600.0,
        progress: BytesProgress | None = None,
    ) -> ModelVersion:
        """Upload an artefact (.joblib, .pkl, .skops or .onnx) with its reference CSV and wait until it is registered.

        `quantise_within` lets a neural network be scored in single precision or integers where that is faster, and no
        probability is off by more on the reference, nor a larger share of its rows of another class; for a regression in
        standard deviations. `trust` is needed for joblib and pickle, which run code when they are loaded; `allow_version_mismatch` for a
        model that was fitted with another scikit-learn than the workers have. `lineage` may hold `training_data`
        (sha256:…), `training_rows`, `code_revision`, `parent` and members of your own. `candidate` makes the version
        the model's candidate. `signature` is YAML or JSON text: columns to take instead of those inferred from the
        reference. Registering the same content again is harmless; another content under the same version answers 409.
        `timeout` (s) bounds the wait after the upload.

        Raises:
            RegistrationFailed: the API took the files and then refused them.
            ScorehouseApiError, ConnectionFailed, SourceFailed
        """
        told = None if lineage is None else json.dumps(dict(lineage), allow_nan=False)
        within = None if quantise_within is None else repr(quantise_within)
        optional = {
            "key": key,
            "target": target,
            "lineage": told,
            "signature": signature,
            "quantise_within": within,
        }
        fields = {"version": version, **{name: value for name, value in optional.items() if value is not None}}
        flags = {"trust": trust, "allow_version_mismatch": allow_version_mismatch, "candidate": candidate}
        fields |= {"runtime": runtime, **{name: str(value).lower() for name, value in flags.items()}}
        body = MultipartBody(fields, {"reference": Path(reference), "artefact": Path(artefact)})
        headers = {"Content-Type": body.content_type}
        request = Request("POST", _path(model, "versions"), {}, headers, body=body, progress=progress)
        started = ModelVersion.from_json(self._transport.json(request), model)
        ended = _until(
            lambda: self.version(model, started.version), lambda found: found.state != "registering", started, timeout
        )
        if ended.state == "failed":
            raise RegistrationFailed(ended)
        return ended

    def models(self) -> list[Model]:
        return [Model.from_json(model) for model in self._transport.json(Request("GET", "/v1/models"))["models"]]

    def model(self, name: str) -> Model:
        return Model.from_json(self._transport.json(Request("GET", _path(name))))

    def version(self, model: str, version: str) -> ModelVersion:
        request = Request("GET", _path(model, "versions", version))
        return ModelVersion.from_json(self._transport.json(request), model)

    def version_metrics(self, model: str, version: str, *, limit: int | None = None) -> list[dict[str, Any]]:
        """How well a version did at its registration and at each accuracy audit since, newest first."""
        request = Request("GET", _path(model, "versions", version, "metrics"), {"limit": limit})
        found: list[dict[str, Any]] = self._transport.json(request)["metrics"]
        return found

    def deploy(  # each is a field of the request or how to wait for it
        self,
        model: str,
        version: str,
        why: str | None = None,
        *,
        gate: Mapping[str, float] | None = None,
        wait: bool = True,
        timeout: float = 600.0,
        progress: DeploymentProgress | None = None,
    ) -> Deployment:
        """Make `version` the production version; by default wait until it is live, for at most `timeout` seconds.

        Args:
            gate: `replay_rows`, how many of the last rows the version is tried on beside production, and, unless the
                defaults do, the limits `max_flipped`, `max_psi` and `max_slowdown`.
            progress: called with each new state, and with what the steps have found since.

        Raises:
            DeploymentFailed: it did not pass; what was live before still is.
            ScorehouseApiError, ConnectionFailed
        """
        started = self._start_deployment(model, "deployments", {"version": version, "why": why, "gate": gate})
        return self._follow(started, timeout, progress) if wait else started

    def rollback(
        self,
        model: str,
        why: str | None = None,
        *,
        wait: bool = True,
        timeout: float = 600.0,
        progress: DeploymentProgress | None = None,
    ) -> Deployment:
        """Bring the previous production version back. Waits and raises like `deploy`."""
        started = self._start_deployment(model, "rollback", {"why": why})
        return self._follow(started, timeout, progress) if wait else started

    def deployments(self, model: str) -> list[Deployment]:
        answer = self._transport.json(Request("GET", _path(model, "deployments")))
        return [Deployment.from_json(deployment) for deployment in answer["deployments"]]

    def deployment(self, model: str, deployment_id: str) -> Deployment:
        return Deployment.from_json(self._transport.json(Request("GET", _path(model, "deployments", deployment_id))))

    def cancel_deployment(self, model: str, deployment_id: str) -> Deployment:
        """End a deployment that is under way; what is live stays so."""
        request = Request("POST", _path(model, "deployments", deployment_id, "cancel"), repeatable=False)
        return Deployment.from_json(self._transport.json(request))

    def _start_deployment(self, model: str, what: str, fields: Mapping[str, Any]) -> Deployment:
        body = json.dumps({name: value for name, value in fields.items() if value is not None}).encode()
        headers = {"Content-Type": "application/json"}
        request = Request("POST", _path(model, what), {}, headers, body=body, repeatable=False)
        return Deployment.from_json(self._transport.json(request))

    def _follow(self, started: Deployment, timeout: float, progress: DeploymentProgress | None) -> Deployment:
        seen: list[tuple[str, Mapping[str, Any]]] = []

        def ended(found: Deployment) -> bool:
            if progress is not None and (found.state, found.checks) not in seen[-1:]:
                seen.append((found.state, found.checks))
                progress(found)
            return found.finished

        last = _until(lambda: self.deployment(started.model, started.id), ended, started, timeout)
        if last.state == "failed":
            raise DeploymentFailed(last)
        return last


def _path(model: str, *rest: str) -> str:
    return "/v1/models/" + "/".join(quote(part, safe="") for part in (model, *rest))


def _until(
    fetch: Callable[[], Resource], ended: Callable[[Resource], bool], first: Resource, timeout: float
) -> Resource:
    """Ask again, at first often, until it has ended."""
    end = time.monotonic() + timeout
    pause, found = FIRST_POLL, first
    while not ended(found):
        if time.monotonic() > end:
            raise ScorehouseClientError(f"not finished after {timeout:g} s, it goes on without the client: {found}")
        time.sleep(pause)
        pause = min(LONGEST_POLL, pause * 1.5)
        found = fetch()
    return found
