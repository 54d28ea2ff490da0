"""Whether this API process has been told to stop: it still finishes requests, and those that only wait end early."""

from __future__ import annotations

from collections.abc import Callable

_is_stopping: Callable[[], bool] = lambda: False  # noqa: E731 - a default, to be replaced


def watch(is_stopping: Callable[[], bool]) -> None:
    """Take the server's word for it from now on."""
    global _is_stopping  # noqa: PLW0603 - one process, one server
    _is_stopping = is_stopping


def stopping() -> bool:
    return _is_stopping()
