"""One database for all inputs of a session, with the model deployed whose scores anybody can check."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from in_process import InProcess, in_process


@pytest.fixture(scope="module")
def inside(tmp_path_factory: pytest.TempPathFactory, module_database_url: str) -> Iterator[InProcess]:
    with in_process(tmp_path_factory.mktemp("fuzz"), module_database_url) as inside:
        yield inside
