"""All benchmarks, one after the other, each with its own report in benchmarks/reports; or those that are named.

    python -m benchmarks [bulk singles …]

Run by `make bench` on a machine that does nothing else. Between them a fixed piece of work is timed: by how much it varies
is how much of a figure may be the machine. Exits 1 when one of them does.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

# In the order of their run; what stands behind a name goes to `python -m benchmarks.NAME`.
BENCHMARKS: dict[str, Sequence[str]] = {
    "bulk": ("--rows", "10000", "1000000", "--models", "logistic", "histgb", "forest"),
    "bulk_peers": (),
    "singles": ("--clients", "4"),
    "singles_against": (),
    "singles_peers": (),
    "claims": (),
    "growth": (),
    "scaling": (),
    "blue_green": (),
    "drift": (),
    "audits": (),
    "prediction_storage": (),
    "hostile": (),
}
_BLOCK = bytes(1 << 20)
_BLOCKS = 512


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all if none is named")
    names = parser.parse_args().names or list(BENCHMARKS)
    if unknown := set(names) - BENCHMARKS.keys():
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}")
    noise = [fixed_work()]
    table = Table("benchmark", "minutes", "marks")
    failed = False
    for name in names:
        began = time.monotonic()
        code = subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *BENCHMARKS[name]], check=False).returncode
        noise.append(fixed_work())
        failed |= code != 0
        table.add_row(name, f"{(time.monotonic() - began) / 60:.1f}", "met" if code == 0 else f"not met ({code})")
    console = Console()
    console.print(table)
    middle = statistics.median(noise)
    console.print(
        f"The same work took {min(noise) / middle:.2f} to {max(noise) / middle:.2f} times its median of {middle:.2f} s."
    )
    return 1 if failed else 0


def fixed_work() -> float:
    """Seconds that one core takes for what is always the same: the digest of 512 MiB."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    for _ in range(_BLOCKS):
        digest.update(_BLOCK)
    return time.perf_counter() - began


if __name__ == "__main__":
    sys.exit(main())
