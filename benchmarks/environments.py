"""Virtual environments of other tools: made once from benchmarks/peers/NAME.txt, under benchmarks/data/venvs/NAME.

Each file pins the tool, and the libraries that the models were fitted with to the versions of requirements.lock.
"""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.files import DATA
from benchmarks.processes import run

PEERS = Path(__file__).parent / "peers"
VENVS = DATA / "venvs"
_VERSIONS = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"


def settings(folder: Path) -> dict[str, str]:
    """Variables by which the tools stay on loopback, tell nobody of their use, and write into `folder` only."""
    return {
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # with a cluster Ray listens on all addresses, here too
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),  # otherwise Ray makes one in the user's home
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "True",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }


def python_of(name: str | None) -> str:
    """The Python of an environment, which is made when it is not there or was made of other requirements; None is our own.

    Raises:
        RuntimeError: what it needs cannot be installed; with pip's last error.
    """
    if name is None:
        return sys.executable
    wanted, folder = PEERS / f"{name}.txt", VENVS / name
    python, made_of = folder / "bin" / "python", folder / "made-of.txt"
    if made_of.exists() and made_of.read_text() == wanted.read_text():
        return str(python)
    print(f"installing {name} into {folder}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    try:
        run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(wanted)])
    except RuntimeError as error:
        said = [line for line in str(error).splitlines() if line.startswith("ERROR: ")]
        raise RuntimeError(f"{wanted.name} cannot be installed: {said[-1] if said else 'pip failed'}") from error
    made_of.write_text(wanted.read_text())
    return str(python)


def versions(python: str, packages: Sequence[str]) -> dict[str, str]:
    """What is installed where `python` looks."""
    return dict(json.loads(run([python, "-c", _VERSIONS, *packages]).stdout))
