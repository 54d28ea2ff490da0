"""Where a download goes: a complete file or none.

The bytes are written beside the output and renamed at the end, so that nobody mistakes half a file for a whole one. What is no
regular file (a pipe, /dev/stdout) is written to directly, as is a stream.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from scorehouse_client.errors import OutputFailed

Output = str | os.PathLike[str] | BinaryIO


@contextlib.contextmanager
def opened(output: Output) -> Iterator[tuple[BinaryIO, bool]]:
    """The file to write to, and whether it may be emptied to start again.

    Raises:
        OutputFailed: it cannot be written there.
    """
    if not isinstance(output, str | os.PathLike):
        yield output, False
        output.flush()
        return
    # A link keeps pointing to what it points to.
    path = Path(output).resolve()
    if path.exists() and not path.is_file():
        with _writable(path, "wb") as file:
            yield file, False
        return
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        with _writable(part, "xb") as file:
            yield file, True
        if path.exists():
            shutil.copymode(path, part)
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check(output: Output) -> None:
    """Find out before the work whether its results can be written.

    Raises:
        OutputFailed: they cannot.
    """
    if isinstance(output, str | os.PathLike):
        folder = Path(output).resolve().parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise OutputFailed(f"cannot write to {folder}: {'not writable' if folder.is_dir() else 'no such folder'}")
        if Path(output).is_dir():
            raise OutputFailed(f"cannot write to {output}: it is a folder; give the name of a file in it")


def _writable(path: Path, mode: str) -> BinaryIO:
    try:
        return path.open(mode)  # type: ignore[return-value]  # both modes are binary
    except OSError as exc:
        raise OutputFailed(f"cannot write to {path.parent if mode == 'xb' else path}: {exc.strerror}") from exc
