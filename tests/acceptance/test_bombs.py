"""Bodies that are made to exhaust the API: each is refused while it arrives, and none costs memory."""

from __future__ import annotations

import psutil
import pytest
from house import House
from toys import COLUMNS, csv_bytes

from benchmarks.bombs import BOMBS, send

MIB = 1024 * 1024
MOST_BYTES = 64 * MIB
SAMPLE = (csv_bytes(["id", *COLUMNS]), csv_bytes(["a", "1.5", "3", "gold", "true", "fine"]))


def largest(house: House) -> int:
    """Resident bytes of the largest process of the API since it began: what it held for a moment counts too."""
    processes = psutil.Process(int(house.stack.found["pids"]["api"])).children()
    return max(_peak(process.pid) for process in processes)


def _peak(pid: int) -> int:
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - no file of ours
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_and_memory_stays_flat(house: House, name: str) -> None:
    before = largest(house)
    status, _ = send(BOMBS[name], house.url, house.token(), "toy", SAMPLE)
    assert status == BOMBS[name].status
    assert largest(house) - before < MOST_BYTES
    assert house.query("SELECT 1 FROM job WHERE state = 'receiving'") == []
