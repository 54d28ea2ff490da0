"""Bulk scoring against the script a user would write, and against an expert's, by turns in one run: time, CPU, equality, memory.

    python -m benchmarks.bulk --rows 10000 1000000 --repeats 5 --models logistic histgb

Each repeat runs all on the same file, in alternating order, so that a machine that gets slower slows all. Two times are
compared: the work (ours from the start of the upload to the end of the download; the script's reading + predicting + writing,
without imports and the model's loading), and the whole process from start to end.
Writes benchmarks/reports/bulk.json and bulk.md, and exits 1 when results differ.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil

from benchmarks import expert_script, pandas_script
from benchmarks.equality import Comparison, compare
from benchmarks.files import MODELS, csv_file, model_files
from benchmarks.memory import MemorySampler, Peak
from benchmarks.stack import Seconds, deploy, memory_roots, running_stack, score
from benchmarks.usage import Usage, of_ended_children, of_trees
from cli.background import BackgroundStack
from examples.churn.data import COLUMNS

REPORTS = Path(__file__).parent / "reports"


@dataclass(frozen=True)
class Pair:
    """One repeat; what was used is of whole processes, of Scorehouse all of the stack and the command."""

    scorehouse: Seconds
    script: Seconds
    expert: Seconds
    used: Usage
    script_used: Usage

    @property
    def ratio(self) -> float:
        return self.scorehouse.work / self.script.work

    @property
    def whole_ratio(self) -> float:
        return self.scorehouse.whole / self.script.whole

    @property
    def expert_ratio(self) -> float:
        """Of the expert's script to the plain one."""
        return self.expert.work / self.script.work

    @property
    def cpu_ratio(self) -> float:
        return self.used.cpu / self.script_used.cpu


@dataclass(frozen=True)
class Measurement:
    """All repeats of one model on one file, and the highest memory peaks seen while Scorehouse was at it."""

    model: str
    rows: int
    file_bytes: int
    pairs: list[Pair]
    comparison: Comparison
    peaks: dict[str, Peak]

    def summary(self) -> dict[str, Any]:
        ours = statistics.median(pair.scorehouse.work for pair in self.pairs)
        return {
            "model": self.model,
            "rows": self.rows,
            "file_bytes": self.file_bytes,
            "scorehouse_seconds": ours,
            "script_seconds": statistics.median(pair.script.work for pair in self.pairs),
            "rows_per_second": self.rows / ours,
            "ratio": _spread([pair.ratio for pair in self.pairs]),
            "whole_ratio": _spread([pair.whole_ratio for pair in self.pairs]),
            "expert_ratio": _spread([pair.expert_ratio for pair in self.pairs]),
            "cpu_ratio": _spread([pair.cpu_ratio for pair in self.pairs]),
            "cpu_microseconds_per_row": 1e6 * statistics.median(pair.used.cpu for pair in self.pairs) / self.rows,
            "bytes_written_per_row": statistics.median(pair.used.written for pair in self.pairs) / self.rows,
            "equal": self.comparison.equal,
            "comparison": asdict(self.comparison),
            "memory_mib": {name: asdict(peak) for name, peak in sorted(self.peaks.items())},
            "pairs": [asdict(pair) for pair in self.pairs],
        }


def main() -> int:
    given = _arguments()
    measured = []
    with running_stack(given.data_dir, given.workers) as stack:
        deploy(stack, given.models)
        for rows in sorted(given.rows):
            file = csv_file(rows)
            for model in given.models:
                measured.append(_measure(stack, model, rows, file, given.repeats).summary())
                _write(measured, given)
    print((REPORTS / f"{given.report}.md").read_text())
    return 0 if all(one["equal"] for one in measured) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000], help="sizes of the file")
    parser.add_argument("--repeats", type=int, default=5, help="pairs per model and size")
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, default=["logistic", "histgb"], help="models to score with"
    )
    parser.add_argument("--workers", type=int, default=2, help="workers of a stack started here")
    parser.add_argument("--data-dir", type=Path, help="use the stack that runs from this folder")
    parser.add_argument("--report", default="bulk", help="name of the two files in benchmarks/reports/")
    return parser.parse_args()


def _measure(stack: BackgroundStack, model: str, rows: int, file: Path, repeats: int) -> Measurement:
    pairs: list[Pair] = []
    sampler = MemorySampler(memory_roots(stack))
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
        ours, theirs = Path(folder) / "ours.csv", Path(folder) / "theirs.csv"
        for number in range(repeats):
            pair = _pair(stack, model, file, (ours, theirs), ours_first=number % 2 == 0)
            print(
                f"{model}, {rows:,} rows, {number + 1}/{repeats}: {pair.scorehouse.work:.1f} s against "
                f"{pair.script.work:.2f} s, ratio {pair.ratio:.2f}, of whole processes {pair.whole_ratio:.2f}",
                flush=True,
            )
            pairs.append(pair)
        comparison = compare(ours, theirs, COLUMNS.key)
        # In a run of its own: reading the memory maps of all processes costs a good part of a core.
        with sampler:
            score(stack, file, model, ours)
    return Measurement(model, rows, file.stat().st_size, pairs, comparison, sampler.peaks)


def _pair(
    stack: BackgroundStack,
    model: str,
    file: Path,
    outs: tuple[Path, Path],
    *,
    ours_first: bool,
) -> Pair:
    roots = memory_roots(stack).values()

    def ours() -> tuple[Seconds, Usage]:
        before = of_trees(roots) + of_ended_children()
        seconds = score(stack, file, model, outs[0])
        return seconds, of_trees(roots) + of_ended_children() - before

    def theirs() -> tuple[Seconds, Usage, Seconds]:
        before = of_ended_children()
        seconds = _script(pandas_script, model, file, outs[1])
        used = of_ended_children() - before
        with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as folder:
            return seconds, used, _script(expert_script, model, file, Path(folder) / "expert.csv")

    if ours_first:
        (seconds, used), (plain, plain_used, expert) = ours(), theirs()
    else:
        (plain, plain_used, expert), (seconds, used) = theirs(), ours()
    return Pair(seconds, plain, expert, used, plain_used)


def _script(script: ModuleType, model: str, file: Path, out: Path) -> Seconds:
    artefact, _ = model_files(model)
    command = [sys.executable, str(script.__file__), str(file), str(artefact), str(out)]
    began = time.perf_counter()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Seconds(float(json.loads(done.stdout)["work"]), time.perf_counter() - began)


def _spread(ratios: list[float]) -> dict[str, float]:
    return {"median": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)}


def _write(measured: list[dict[str, Any]], given: argparse.Namespace) -> None:
    machine = {
        "cores": psutil.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "python": platform.python_version(),
        "workers": given.workers,
        "repeats": given.repeats,
    }
    REPORTS.mkdir(exist_ok=True)
    content = {"machine": machine, "measured": measured}
    (REPORTS / f"{given.report}.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / f"{given.report}.md").write_text(_markdown(machine, measured))


def _markdown(machine: dict[str, Any], measured: list[dict[str, Any]]) -> str:
    told = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in machine.items())
    times = [
        f"| {one['model']} | {one['rows']:,} | {one['scorehouse_seconds']:.1f} | {one['script_seconds']:.2f} "
        f"| {_range(one['ratio'])} | {one['expert_ratio']['median']:.2f} | {_range(one['whole_ratio'])} "
        f"| {_range(one['cpu_ratio'])} | {one['cpu_microseconds_per_row']:.1f} | {one['bytes_written_per_row']:.0f} "
        f"| {one['rows_per_second']:,.0f} | {_equality(one)} |"
        for one in measured
    ]
    parts = sorted({name for one in measured for name in one["memory_mib"]})
    memory = [
        f"| {one['model']} | {one['rows']:,} | " + " | ".join(_memory(one, name, measured) for name in parts) + " |"
        for one in measured
    ]
    return "\n".join(
        [
            "# Bulk scoring against a pandas script", "", f"Machine: {told}.", "",
            "Seconds are medians, of Scorehouse from the start of the upload to the end of the download, of the script "
            "reading + predicting + writing. Ratios are of each pair, the median with the lowest and highest; below 1 "
            "Scorehouse is faster. The whole processes include start-up, imports and, in the script, the model's loading.",
            "",
            "The expert's script has arrow and two processes; its ratio is to the plain script. CPU is of whole processes, of "
            "Scorehouse all of the stack and the command; bytes are what its processes hand to the disk.",
            "",
            "| model | rows | Scorehouse s | script s | ratio | expert's ratio | ratio of whole processes | ratio of CPU | CPU µs/row "
            "| bytes/row | rows/s | equal |",
            "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |", *times, "",
            "Peak memory in MiB: the sum over the part's processes, shared pages split, then its growth over the smallest "
            "file with the same model (in brackets: the one largest process, shared pages in full).", "",
            "| model | rows | " + " | ".join(parts) + " |", "| --- | ---: |" + " ---: |" * len(parts), *memory, "",
        ]
    )  # fmt: skip


def _range(ratio: dict[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['lowest']:.2f} to {ratio['highest']:.2f})"


def _equality(one: dict[str, Any]) -> str:
    found = one["comparison"]
    if one["equal"]:
        return f"yes, within {found['largest_probability_difference']:.0e}"
    return f"NO: {found}"


def _memory(one: dict[str, Any], part: str, measured: list[dict[str, Any]]) -> str:
    smallest = next(other for other in measured if other["model"] == one["model"])  # sizes come in ascending order
    peak, base = one["memory_mib"].get(part), smallest["memory_mib"].get(part)
    if peak is None or base is None:
        return ""
    return f"{peak['pss']:.0f} {peak['pss'] - base['pss']:+.0f} ({peak['largest_rss']:.0f})"


if __name__ == "__main__":
    sys.exit(main())
