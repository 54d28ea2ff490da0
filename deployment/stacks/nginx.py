"""nginx before the stacks: the file that its upstream includes, and how nginx is made to take it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

import psutil

from deployment.stacks.config import NAMES, Config, Name
from errors import ScorehouseError

_SECONDS = 30.0
_SERVER = re.compile(r"^\s*server\s+([^\s;]+)\s*;", re.MULTILINE)


class NginxRefused(ScorehouseError):
    """nginx does not take a configuration; what it says about it is in the message."""


def active(config: Config) -> Name | None:
    """The stack that the include file names, None if it names neither."""
    found = _SERVER.findall(_content(config.include) or "")
    named = [name for name in NAMES if config.address_of(name) in found]
    return named[0] if len(named) == 1 else None


def point_to(config: Config, name: Name) -> None:
    """Write the include file, have nginx test all of its configuration, and reload it.

    nginx starts new worker processes; the old ones finish the requests in hand, however long those take.

    Raises:
        NginxRefused: it does not take it; the include file is as before.
    """
    before = _content(config.include)
    text = (
        "# The stack that answers. `scorehouse stacks switch` writes this file.\n"
        f"server {config.address_of(name)};  # {name}\n"
    )
    try:
        _replace(config.include, text)
        _call(config, "-t", "-q")
        _call(config, "-s", "reload")
    except BaseException:  # also Ctrl-C: what stands in the file is what nginx was told
        _restore(config.include, before)
        raise


def draining(config: Config) -> int | None:
    """How many old worker processes still finish requests; None if nginx does not run on this machine."""
    try:
        master = psutil.Process(int(config.pid_file.read_text()))
        titles = [" ".join(child.cmdline()) for child in master.children()]
    except (OSError, ValueError, psutil.Error):
        return None
    return sum("shutting down" in title for title in titles)


def _call(config: Config, *arguments: str) -> None:
    command = [*shlex.split(config.nginx), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except OSError as exc:
        raise NginxRefused(f"`{command[0]}` cannot be run ({exc.strerror}): mend `nginx` in the stacks file") from exc
    except subprocess.TimeoutExpired as exc:
        raise NginxRefused(f"`{shlex.join(command)}` did not end within {_SECONDS:.0f} s") from exc
    if done.returncode != 0:
        raise NginxRefused(f"`{shlex.join(command)}` failed: {(done.stderr or done.stdout).strip()}")


def _content(file: Path) -> str | None:
    try:
        return file.read_text()
    except FileNotFoundError:
        return None


def _restore(file: Path, before: str | None) -> None:
    if before is None:
        file.unlink(missing_ok=True)
    else:
        _replace(file, before)


def _replace(file: Path, text: str) -> None:
    """In one step: nginx, which may be started at any moment, must never read half of it."""
    fresh = file.with_name(f".{file.name}.new")
    with fresh.open("w") as opened:
        opened.write(text)
        opened.flush()
        os.fsync(opened.fileno())
    fresh.chmod(0o644)
    fresh.replace(file)
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
