"""Loading the model of an artefact that the registry vouches for, into the runtime that scores it.

A joblib file runs code when it is loaded. So its bytes are hashed and compared with the digest first, and what is then
loaded is the very file that was hashed, not its name.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

from errors import ArtefactRefused
from registry.compiled.record import Compiled, Form
from registry.scores import Runtime, Scores
from registry.signature import Signature
from registry.sklearn_runtime import SklearnRuntime, runtime_of, unpickled

__all__ = ["ArtefactFormat", "Runtime", "Scores", "SklearnRuntime", "has_provider", "load", "load_form", "runtime_of"]

ArtefactFormat = Literal["joblib", "skops", "onnx"]


def load(path: Path, *, format: ArtefactFormat, digest: str, mismatch_allowed: bool = False) -> Runtime:
    """Load the model of an artefact.

    Args:
        digest: `sha256:` and 64 hexadecimal digits, as the registry has it.
        mismatch_allowed: load also what was fitted with another scikit-learn.

    Raises:
        ArtefactRefused: the file's digest is another one (nothing was loaded then), it was fitted with another
            scikit-learn, it holds types that skops does not trust, it cannot be loaded, or it holds no model.
    """
    with _vouched_for(path, digest) as file, _loading():
        if format == "onnx":
            # Imported by the processes that hold such a model: the library takes 20 MB of memory.
            from registry.onnx_runtime import OnnxRuntime  # noqa: PLC0415 - as said above

            return OnnxRuntime(file.read())
        return unpickled(file, skops_format=format == "skops", mismatch_allowed=mismatch_allowed)


def load_form(
    path: Path, form: Form, digest: str, *, compiled: Compiled, original: Runtime, signature: Signature
) -> Runtime:
    """Load a form of a model that is loaded.

    Raises:
        ArtefactRefused: the file's digest is another one, it cannot be loaded, or the form's provider is not there.
    """
    with _vouched_for(path, digest) as file, _loading():
        from registry.compiled.runtime import opened  # noqa: PLC0415 - as said above

        return opened(form, file.read(), original, compiled, signature)


def has_provider(name: str | None) -> bool:
    """Whether ONNX Runtime has an accelerator's provider here; None is the processor."""
    from onnxruntime import get_available_providers  # noqa: PLC0415 - as said above

    return name is None or name in get_available_providers()


@contextmanager
def _vouched_for(path: Path, digest: str) -> Iterator[IO[bytes]]:
    """The file, open at its start: the very one whose digest was found to be right."""
    with path.open("rb") as file:
        found = f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        if not hmac.compare_digest(found.encode(), digest.encode()):
            raise ArtefactRefused(
                f"the artefact's digest is {found}, the registry vouches for {digest}; "
                "the file was changed or damaged: register it again, or restore it from a backup"
            )
        file.seek(0)
        yield file


@contextmanager
def _loading() -> Iterator[None]:
    try:
        yield
    except ArtefactRefused:
        raise
    except Exception as exc:  # unpickling may raise anything
        raise ArtefactRefused(
            f"the artefact cannot be loaded ({type(exc).__name__}: {exc}); check that its format is as registered "
            "and that every library it needs is installed"
        ) from exc
