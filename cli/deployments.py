"""`scorehouse models deploy | rollback | cancel | history`: what is in production, and who put it there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.connection import Json, Url, connect
from cli.terminal import say, warn, write_json, write_table

if TYPE_CHECKING:
    from scorehouse_client import Deployment

Name = Annotated[str, typer.Argument(help="Name of the model.", metavar="MODEL", show_default=False)]
Why = Annotated[str | None, typer.Option(help="Kept in the history.", show_default=False)]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is live or has failed.")]


def deploy(  # noqa: PLR0917  # each is an option of the command
    model: Name,
    version: Annotated[str, typer.Argument(show_default=False)],
    why: Why = None,
    replay: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Score the last N inputs with it and with production, and refuse it beyond the limits.",
            metavar="N",
            show_default=False,
        ),
    ] = None,
    max_flipped: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of predictions that may differ.  [0.05]", show_default=False),
    ] = None,
    max_psi: Annotated[
        float | None, typer.Option(min=0, help="How far the scores may move (PSI).  [0.2]", show_default=False)
    ] = None,
    max_slowdown: Annotated[
        float | None, typer.Option(help="Times the seconds that production takes.  [2.0]", show_default=False)
    ] = None,
    wait: Wait = True,
    as_json: Json = False,
    url: Url = None,
) -> None:
    """Put a version into production: every worker loads and checks it first, and it is tried on the real queue."""
    limits = {"max_flipped": max_flipped, "max_psi": max_psi, "max_slowdown": max_slowdown}
    given = {name: value for name, value in limits.items() if value is not None}
    if given and replay is None:
        raise typer.BadParameter("the limits are those of a replay: say how many rows, as in --replay 10000")
    gate = None if replay is None else {"replay_rows": replay, **given}
    with connect(url) as client:
        _finish(lambda: client.deploy(model, version, why, gate=gate, wait=wait, progress=_Steps()), as_json)


def rollback(model: Name, why: Why = None, wait: Wait = True, as_json: Json = False, url: Url = None) -> None:
    """Bring the version back that was in production before, at once."""
    with connect(url) as client:
        _finish(lambda: client.rollback(model, why, wait=wait, progress=_Steps()), as_json)


def cancel(model: Name, as_json: Json = False, url: Url = None) -> None:
    """End the deployment that is under way; production stays as it is."""
    with connect(url) as client:
        found = next((each for each in client.deployments(model) if not each.finished), None)
        if found is None:
            say(f"No deployment of {model} is under way")
            raise typer.Exit(1)
        ended = client.cancel_deployment(model, found.id)
    if as_json:
        write_json(ended.raw)
    else:
        say(f"The deployment of {model} {ended.version} is canceled")


def history(model: Name, as_json: Json = False, url: Url = None) -> None:
    """Show who put which version into production, when and why, and what did not come so far."""
    with connect(url) as client:
        found = client.deployments(model)
    if as_json:
        write_json({"deployments": [deployment.raw for deployment in found]})
        return
    rows = [
        (
            each.created_at,
            each.raw.get("kind"),
            each.from_version,
            each.to_version or each.version,
            each.slot,
            each.state,
            each.by,
            each.why,
            "; ".join([*each.reasons, *_replay_figures(each.checks.get("replay") or {})]),
        )
        for each in found
    ]
    write_table(("when", "kind", "from", "to", "slot", "state", "by", "why", "what was found"), rows)


COMMANDS = (("deploy", deploy), ("rollback", rollback), ("cancel", cancel), ("history", history))


class _Steps:
    """Tells of each step as it goes on; a line once."""

    def __init__(self) -> None:
        self._told = ""

    def __call__(self, deployment: Deployment) -> None:
        text = f"{deployment.model} {deployment.version or deployment.to_version} is {_standing(deployment)}"
        if text != self._told:
            say(text)
            self._told = text


def _standing(deployment: Deployment) -> str:
    checks, state = deployment.checks, deployment.state
    if state == "warming" and (warm_up := checks.get("warm_up")):
        return f"warming: {warm_up['warm']} of {warm_up['workers']} workers hold it"
    if state == "validating":
        replay, validation = checks.get("replay"), checks.get("validation")
        if replay:
            return f"validating: {replay['rows']:,} of {replay['wanted']:,} rows replayed"
        if validation:
            return f"validating: {validation['rows']} golden rows go through the queue"
    if state == "live" and deployment.slot:
        return f"live in the {deployment.slot} slot"
    return state


def _finish(call: Any, as_json: bool) -> None:
    """The deployment as JSON whether it went live or failed, and what was found on the way."""
    from scorehouse_client.errors import DeploymentFailed  # noqa: PLC0415  # takes time

    try:
        found: Deployment = call()
    except DeploymentFailed as exc:
        if as_json:
            write_json(exc.deployment.raw)
        raise
    if as_json:
        write_json(found.raw)
    elif not found.finished:
        say(f"Deployment {found.id} has begun; see `scorehouse models history {found.model}`")
    for check in found.checks.values():
        if check.get("note"):
            warn(check["note"])
    if found.finished:
        for line in _replay_figures(found.checks.get("replay") or {}):
            say(line)


def _replay_figures(replay: Mapping[str, Any]) -> list[str]:
    """One sentence, when a replay has come to its end."""
    if not replay.get("compared") and not replay.get("not_taken"):
        return []
    parts = []
    if replay.get("flipped") is not None:
        parts.append(f"{replay['flipped']:.2%} flipped")
    if replay.get("difference") is not None:
        parts.append(f"{replay['difference']:.3g} standard deviations apart")
    if replay.get("psi") is not None:
        parts.append(f"PSI {replay['psi']:.3f}")
    if replay.get("slowdown") is not None:
        parts.append(f"{replay['slowdown']:.2f} times as long")
    if replay.get("not_taken"):
        parts.append(f"{replay['not_taken']:,} not taken")
    fewer = f" of the {replay['wanted']:,} wanted" if replay["rows"] < replay["wanted"] else ""
    return [f"{replay['rows']:,} rows{fewer} replayed against {replay['against']}: {', '.join(parts)}"]
