"""The soak: a stack under mixed load for half an hour, whose processes and tables are watched, and a report.

    python tests/soak/long_form.py --seconds 1800 --report tests/soak/reports

Run by `make soak`. It has two phases, a stack each: in the first, a sixth of the time and a minute at least, each worker child
is replaced after one permit; in the second they live as long as they like. Exits 1 when a job is not as it must be, or when
memory, descriptors, connections or dead rows grow.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "faults" / "models"))
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
sys.path.insert(0, str(Path(__file__).parent))

from customers import Customers
from harness import Harness
from load import Load, judge_all
from samples import EVERY_SECONDS, Sampler, Trend, trends

PACE = 1e-5
# Those of production, where the harness has shorter ones.
SETTINGS = {
    "SCOREHOUSE_LEASE_SECONDS": "30",
    "SCOREHOUSE_CHUNK_TIME_LIMIT": "25",
    "SCOREHOUSE_DEAF_SECONDS": "30",
    "SCOREHOUSE_KICK_SECONDS": "1",
}
RECYCLED = {"SCOREHOUSE_WORKER_TASKS_PER_CHILD": "1"}
LEAST_SECONDS = 60.0
DRAIN_SECONDS = 120.0
_TOLD_LINES = 60  # of the stack's log, when it does not come to an end
# Slopes of less say little.
ENOUGH_SECONDS = 600.0


@dataclass(frozen=True)
class Phase:
    name: str
    seconds: float
    turns: Mapping[str, int]
    rows: int
    singles: Mapping[str, float]
    problems: list[str]
    trends: list[Trend]
    looks_missed: int
    samples: list[Any]

    @property
    def holds(self) -> bool:
        return not self.problems and all(trend.holds for trend in self.trends)


def main() -> int:
    options = _options()
    first = max(options.seconds / 6, LEAST_SECONDS)
    with tempfile.TemporaryDirectory(prefix="scorehouse-soak-") as folder:
        Path(folder).chmod(0o711)  # root's Postgres runs as another account
        customers = Customers(Path(folder))
        try:
            phases = [
                run("children replaced after one permit", first, Path(folder) / "first", customers, RECYCLED),
                run("children that stay", options.seconds - first, Path(folder) / "second", customers, {}),
            ]
        except BaseException:
            for log in sorted(Path(folder).glob("*/data/up.log")):
                print(f"the end of {log}:", *log.read_text(errors="replace").splitlines()[-_TOLD_LINES:], sep="\n")
            raise
    text = told(phases)
    print(text)
    if options.report:
        write(phases, text, Path(options.report))
    return 0 if all(phase.holds for phase in phases) else 1


def run(name: str, seconds: float, folder: Path, customers: Customers, settings: Mapping[str, str]) -> Phase:
    print(f"{name}: {seconds:.0f} s", flush=True)
    folder.mkdir(mode=0o711)
    with Harness(folder, customers, PACE, **{**SETTINGS, **settings}) as harness:
        load, sampler = Load(harness, customers), Sampler(harness)
        deadline = time.monotonic() + seconds
        with load.running(), sampler.running():
            while time.monotonic() < deadline:
                harness.stack.check()
                time.sleep(min(1.0, max(deadline - time.monotonic(), 0.01)))
        harness.until(lambda: not harness.query("SELECT 1 FROM job WHERE finished_at IS NULL"), seconds=DRAIN_SECONDS)
        problems = [*load.told.problems, *judge_all(harness)]
        for event in ("deaf", "task_failed", "heartbeat_failed"):
            if count := harness.events(event):
                problems.append(f"the event {event!r} was logged {count} times")
    return Phase(
        name=name,
        seconds=round(sampler.seconds, 1),
        turns=dict(load.told.turns),
        rows=load.told.rows,
        singles=_latency(load.told.single_seconds),
        problems=problems,
        trends=trends(sampler.samples),
        looks_missed=sampler.failures,
        samples=[[each.at, each.measure, each.name, each.value] for each in sampler.samples],
    )


def told(phases: list[Phase]) -> str:
    """The report for people."""
    lines = [
        "# Soak",
        "",
        f"Cores {os.cpu_count()}, python {sys.version.split()[0]}, a look every {EVERY_SECONDS:g} s.",
        "",
    ]
    for phase in phases:
        turns = ", ".join(f"{kind} {count:,}" for kind, count in sorted(phase.turns.items()))
        lines += [
            f"## {phase.name[0].upper()}{phase.name[1:]}",
            "",
            f"{phase.seconds:,.0f} s, {phase.rows:,} rows in files that were checked row by row; turns: {turns}. A single took "
            f"{phase.singles['p50']} s (median), {phase.singles['p95']} s (95 %). {phase.looks_missed} looks were missed.",
            "",
            f"**{'Holds' if phase.holds else 'Does not hold'}.** "
            + ("Every job was as it must be." if not phase.problems else "What was wrong with jobs:"),
            "",
            *(f"- {problem}" for problem in phase.problems[:20]),
        ]
        if phase.seconds < ENOUGH_SECONDS:
            lines += [
                "",
                "So short a time says little about what grows; the slopes are no more than a sign of life.",
                "",
            ]
        lines += [
            "",
            "| measure | of | median | highest | per hour | gained | holds |",
            "| --- | --- | ---: | ---: | ---: | ---: | --- |",
            *(
                f"| {each.measure} | {each.name} | {each.median:,} | {each.highest:,} | {each.per_hour:+,} | {each.gained:+,} | "
                f"{('yes' if each.holds else '**no**') if each.judged else ''} |"
                for each in phase.trends
                if each.judged or each.highest
            ),
            "",
        ]
    return "\n".join(lines)


def write(phases: list[Phase], text: str, folder: Path) -> None:
    """soak.json and soak.md in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "soak.json").write_text(json.dumps([asdict(phase) for phase in phases]) + "\n")
    (folder / "soak.md").write_text(text)


def _latency(seconds: list[float]) -> dict[str, float]:
    if len(seconds) < 2:
        return {"p50": 0.0, "p95": 0.0}
    cuts = statistics.quantiles(seconds, n=20)
    return {"p50": round(cuts[9], 3), "p95": round(cuts[18], 3)}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0, help="of both phases together")
    parser.add_argument("--report", help="a folder for soak.json and soak.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
