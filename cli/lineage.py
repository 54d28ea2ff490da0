"""Where a model version comes from, as far as the command line can tell: the training data and the code."""

from __future__ import annotations

import csv
import gzip
import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, TextIO

import typer

from errors import InvalidInput

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def lineage_of(
    training_data: str | None, training_rows: int | None, code_revision: str | None, parent: str | None
) -> dict[str, Any]:
    """What is declared with a version; the digest and the rows of a file are computed here.

    Raises:
        InvalidInput: the rows of a CSV file cannot be counted.
        typer.BadParameter: the training data is neither a file nor a digest.
    """
    digest, rows = (None, None) if training_data is None else _training_data(training_data, count=training_rows is None)
    declared = {
        "training_data": digest,
        "training_rows": rows if training_rows is None else training_rows,
        "code_revision": code_revision or current_revision(),
        "parent": parent,
    }
    return {name: value for name, value in declared.items() if value is not None}


def current_revision() -> str | None:
    """The commit that the current folder is at, with `-dirty` if it holds changes; None outside of a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    commit = _output(git, "rev-parse", "HEAD")
    if commit is None:
        return None
    return f"{commit}-dirty" if _output(git, "status", "--porcelain", "--untracked-files=no") else commit


def _training_data(told: str, *, count: bool) -> tuple[str, int | None]:
    """(digest, rows): of a digest nothing more is known, nor of a file that is not CSV."""
    if _DIGEST.fullmatch(told):
        return told, None
    path = Path(told)
    if not path.is_file():
        raise typer.BadParameter(
            f"there is no file {told}; name one, or its digest as sha256: and 64 digits", param_hint="--training-data"
        )
    with path.open("rb") as file:
        digest = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    return digest, _rows(path) if count and path.name.lower().endswith((".csv", ".csv.gz")) else None


def _rows(path: Path) -> int:
    try:
        with _text(path) as file:
            return max(sum(1 for record in csv.reader(file) if record) - 1, 0)
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as exc:
        raise InvalidInput(f"the rows of {path} cannot be counted ({exc}); tell them with --training-rows") from exc


def _text(path: Path) -> TextIO:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return path.open(encoding="utf-8", newline="")


def _output(*command: str) -> str | None:
    """What a command prints; None when it fails, as git does outside of a repository."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None
