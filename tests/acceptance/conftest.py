"""The real processes, once for the session: a stack of two bulk workers with four small models deployed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from house import House, register
from toys import VERSION, Toy, make_toys

from cli.background import BackgroundStack, free_port

# Small chunks, so that small files spread over several.
CHUNK_BYTES = 65_536


@pytest.fixture(scope="session")
def toys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Toy]:
    return make_toys(tmp_path_factory.mktemp("toys"))


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, toys: dict[str, Toy]) -> Iterator[House]:
    stack = BackgroundStack(tmp_path_factory.mktemp("house") / "data")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("SCOREHOUSE_CHUNK_BYTES", str(CHUNK_BYTES))
        environment.setenv("SCOREHOUSE_WORKER_CACHE_VERSIONS", "16")
        environment.setenv(
            "SCOREHOUSE_FAILED_AUTHENTICATIONS_PER_MINUTE", "100000"
        )  # tests that are refused share an address
        stack.start(2, free_port(0), free_port(0))
    try:
        house = House.of(stack)
        for toy in toys.values():
            register(house, toy)
            house.client.deploy(toy.name, VERSION)
        yield house
        house.client.close()
        house.engine.dispose()
    finally:
        stack.stop()


@pytest.fixture
def toy(toys: dict[str, Toy]) -> Toy:
    return toys["toy"]
