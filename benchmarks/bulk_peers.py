"""Bulk scoring with the tools that one would use instead, against a pandas script, by turns in one run.

    python -m benchmarks.bulk_peers --rows 1000000 --repeats 5 --models logistic histgb forest

Each peer has a script in benchmarks/peers, written as its own documentation would have it, and what is not in our lock file
an environment of its own (`benchmarks.environments`). In each repeat all score the same file, every second time in the
opposite order; their times are told as ratios to the pandas script's of that repeat. A task per row is so slow that it scores
few rows, and is compared by its time for each. Servers and workers run before; the script's imports, its cluster and its model's
loading belong to the whole process only.

Writes benchmarks/reports/bulk_peers.json and .md. Exits 1 when a peer cannot be installed or run, or answers anything else
than the pandas script.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.dataset as ds

from benchmarks import environments
from benchmarks.bulk import REPORTS
from benchmarks.environments import PEERS
from benchmarks.equality import Comparison, compare
from benchmarks.files import MODELS, csv_file, model_files
from benchmarks.processes import run, running
from benchmarks.stack import deploy, running_stack, score
from cli import command_lines
from cli.background import BackgroundStack
from embedded.postgres import Postgres
from embedded.valkey import Valkey
from examples.churn.data import COLUMNS

HERE = Path(__file__).parent
LIBRARIES = ("scikit-learn", "pandas", "numpy")
WARM_ROWS = 100


@dataclass(frozen=True)
class Seconds:
    """`work`: reading, predicting and writing, as the script tells; None when a tool does not. `whole`: the process."""

    work: float | None
    whole: float


#: Scores a file and writes the results in the order of the file.
Run = Callable[[Path, Path], Seconds]


@dataclass(frozen=True)
class Setting:
    """What a peer is started with: everything that it starts ends with `ends`, and its programs get `variables`."""

    model: str
    folder: Path
    ends: ExitStack
    stack: BackgroundStack
    variables: Mapping[str, str]

    @property
    def artefact(self) -> str:
        return str(model_files(self.model)[0])


@dataclass(frozen=True)
class Peer:
    """`start` gets the setting and the Python of the environment. `few`: it scores only as many rows as --few-rows says."""

    name: str
    durable: str
    start: Callable[[Setting, str], Run]
    environment: str | None = None
    packages: tuple[str, ...] = ()
    few: bool = False


@dataclass
class Measured:
    """What a peer gave with one model: each repeat, and how its first results compare with those of the pandas script."""

    peer: str
    model: str
    durable: str
    rows: int
    repeats: list[Seconds] = field(default_factory=list)
    comparison: Comparison | None = None
    failure: str | None = None


def main() -> int:
    given = _arguments()
    peers = [peer for peer in ALL if peer.name in given.peers or peer is PANDAS]
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory(prefix="scorehouse-benchmark-") as name, running_stack(None, 2) as stack:
        versions = _versions(peers)
        deploy(stack, given.models)
        for model in given.models:
            folder = Path(name) / model
            folder.mkdir()
            with ExitStack() as ends:
                setting = Setting(model, folder, ends, stack, environments.settings(folder))
                measured += _measure(setting, peers, given)
            _write(measured, versions, given)
    print((REPORTS / "bulk_peers.md").read_text())
    return 0 if all(one.comparison and one.comparison.equal and not one.failure for one in measured) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the file")
    parser.add_argument("--forest-rows", type=int, default=200_000, help="at most, of the file for the random forest")
    parser.add_argument("--few-rows", type=int, default=5_000, help="for the peer with a task per row")
    parser.add_argument("--repeats", type=int, default=5, help="turns of each peer with each model")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), help="models to score with")
    names = [peer.name for peer in ALL]
    parser.add_argument("--peers", nargs="+", choices=names, default=names, help="the pandas script always takes part")
    return parser.parse_args()


def _versions(peers: list[Peer]) -> dict[str, dict[str, str]]:
    """Of each peer's tool and libraries; environments are made here, and one that cannot be is told when the peer's turn comes."""
    found = {}
    for peer in peers:
        try:
            python = environments.python_of(peer.environment)
            found[peer.name] = environments.versions(python, [*peer.packages, *LIBRARIES])
        except RuntimeError as error:
            print(f"{peer.name}: {error}", flush=True)
    return found


def _measure(setting: Setting, peers: list[Peer], given: argparse.Namespace) -> list[Measured]:
    rows = min(given.rows, given.forest_rows) if setting.model == "forest" else given.rows
    few = min(rows, given.few_rows)
    found = [Measured(peer.name, setting.model, peer.durable, few if peer.few else rows) for peer in peers]
    runs: dict[str, Run] = {}
    for peer, one in zip(peers, found, strict=True):
        with _failure_of(one):
            runs[peer.name] = peer.start(setting, environments.python_of(peer.environment))
    wanted = {number: setting.folder / f"wanted-{number}.csv" for number in (few, rows)}
    for number, file in wanted.items():
        runs[PANDAS.name](csv_file(number), file)
    for repeat in range(given.repeats):
        for one in found if repeat % 2 == 0 else found[::-1]:
            if one.failure:
                continue
            with _failure_of(one), tempfile.TemporaryDirectory(dir=setting.folder) as name:
                out = Path(name) / "scored.csv"
                one.repeats.append(runs[one.peer](csv_file(one.rows), out))
                one.comparison = one.comparison or compare(out, wanted[one.rows], COLUMNS.key)
                print(
                    f"{one.model}, {one.rows:,} rows, {repeat + 1}/{given.repeats}, {one.peer}: {one.repeats[-1]}",
                    flush=True,
                )
    return found


@contextmanager
def _failure_of(one: Measured) -> Iterator[None]:
    """A peer that fails is told, and the others go on."""
    try:
        yield
    except Exception as error:  # whatever it is that a tool cannot do
        one.failure = str(error)
        print(f"{one.model}, {one.peer} failed: {error}", flush=True)


def _script(script: Path) -> Callable[[Setting, str], Run]:
    """A script that takes FILE MODEL OUT."""

    def start(setting: Setting, python: str) -> Run:
        return lambda file, out: _run([python, str(script), str(file), setting.artefact, str(out)], setting.variables)

    return start


def _run(command: list[str], variables: Mapping[str, str]) -> Seconds:
    ended = run(command, variables)
    return Seconds(float(json.loads(ended.stdout.splitlines()[-1])["work"]), ended.seconds)


def _scorehouse(setting: Setting, _: str) -> Run:
    def scored(file: Path, out: Path) -> Seconds:
        seconds = score(setting.stack, file, setting.model, out)
        return Seconds(seconds.work, seconds.whole)

    return scored


def _ray(setting: Setting, python: str) -> Run:
    """Its files come in no order, and are put in that of the keys afterwards."""

    def scored(file: Path, out: Path) -> Seconds:
        parts = out.with_suffix(".parts")
        seconds = _run(
            [python, str(PEERS / "ray_script.py"), str(file), setting.artefact, str(parts)], setting.variables
        )
        pacsv.write_csv(ds.dataset(parts, format="csv").to_table().sort_by(COLUMNS.key), out)
        return seconds

    return scored


def _mlflow_function(setting: Setting, python: str) -> Run:
    model = _mlflow_model(setting, python)
    return lambda file, out: _run(
        [python, str(PEERS / "mlflow_script.py"), str(file), model, str(out)], setting.variables
    )


def _mlflow_command(setting: Setting, python: str) -> Run:
    """It tells no times, and answers probabilities as JSON, which get their keys afterwards."""
    command = [python, "-m", "mlflow", "models", "predict", "--env-manager", "local", "--content-type", "csv"]
    model = _mlflow_model(setting, python)

    def scored(file: Path, out: Path) -> Seconds:
        answers = out.with_suffix(".json")
        ended = run([*command, "-m", model, "-i", str(file), "-o", str(answers)], setting.variables)
        probability = np.array(json.loads(answers.read_text())["predictions"])
        keys = pacsv.read_csv(file, convert_options=pacsv.ConvertOptions(include_columns=[COLUMNS.key]))[COLUMNS.key]
        columns = {COLUMNS.key: keys, "prediction": probability.argmax(axis=1), "probability": probability[:, 1]}
        pacsv.write_csv(pa.table(columns), out)
        return Seconds(None, ended.seconds)

    return scored


def _mlflow_model(setting: Setting, python: str) -> str:
    """The folder of the model as MLflow has it."""
    folder = setting.folder / "mlflow-model"
    if not folder.exists():
        artefact, reference = model_files(setting.model)
        run([python, str(PEERS / "mlflow_save.py"), str(artefact), str(reference), str(folder)], setting.variables)
    return str(folder)


def _celery_chunks(setting: Setting, python: str) -> Run:
    database = Postgres(setting.folder / "postgres")
    setting.ends.callback(database.discard)
    database.start()
    variables = {"PEER_DATABASE": database.url}
    return _celery(setting, python, "benchmarks.peers.celery_chunks", "benchmarks.peers.celery_chunks", variables)


def _celery_rows(setting: Setting, python: str) -> Run:
    return _celery(setting, python, "benchmarks.usual_design", "benchmarks.peers.celery_rows", {})


def _celery(setting: Setting, python: str, tasks: str, module: str, variables: Mapping[str, str]) -> Run:
    """A broker, a worker with two processes, and the module that submits to it."""
    broker = Valkey(setting.folder / tasks)
    setting.ends.callback(broker.stop)
    broker.start()
    names = {
        f"{prefix}_{name}": value
        for prefix in ("PEER", "USUAL_DESIGN")
        for name, value in (("BROKER", broker.url), ("ARTEFACT", setting.artefact))
    }
    variables = {**setting.variables, **variables, **names}
    command = [python, "-m", "celery", f"--app={tasks}:tasks", "worker", "--concurrency=2", "--loglevel=WARNING"]
    setting.ends.enter_context(running(tasks, command, {**command_lines.ONE_THREAD, **variables}, setting.folder))

    def scored(file: Path, out: Path) -> Seconds:
        return _run([python, "-m", module, str(file), str(out)], variables)

    scored(csv_file(WARM_ROWS), setting.folder / "warm.csv")  # the worker is there, and each process has its model
    return scored


PANDAS = Peer("pandas script", "no", _script(HERE / "pandas_script.py"))
ALL = (
    PANDAS,
    Peer("expert's script", "no", _script(HERE / "expert_script.py"), packages=("pyarrow",)),
    Peer("Scorehouse", "inputs and results", _scorehouse),
    Peer("MLflow pyfunc", "no", _mlflow_function, "mlflow", ("mlflow",)),
    Peer("MLflow command", "no", _mlflow_command, "mlflow", ("mlflow",)),
    Peer("Dask", "no", _script(PEERS / "dask_script.py"), "dask", ("dask", "distributed", "pyarrow")),
    Peer("Ray Data", "no", _ray, "ray", ("ray", "pyarrow")),
    Peer("Celery, chunks", "results", _celery_chunks, packages=("celery", "sqlalchemy")),
    Peer("Celery, a task per row", "no", _celery_rows, packages=("celery",), few=True),
)


def _write(measured: list[Measured], versions: dict[str, dict[str, str]], given: argparse.Namespace) -> None:
    content = {
        "options": vars(given),
        "cores": os.cpu_count(),
        "versions": versions,
        "measured": [asdict(one) for one in measured],
    }
    REPORTS.mkdir(exist_ok=True)
    (REPORTS / "bulk_peers.json").write_text(json.dumps(content, indent=2) + "\n")
    (REPORTS / "bulk_peers.md").write_text("\n".join(_lines(measured, versions, given)))


def _lines(measured: list[Measured], versions: dict[str, dict[str, str]], given: argparse.Namespace) -> list[str]:
    scripts = {one.model: one for one in measured if one.peer == PANDAS.name}
    return [
        "# Bulk scoring against other tools",
        "",
        f"{given.repeats} repeats by turns on {os.cpu_count()} cores; two processes score where a tool has several. Work is reading + "
        "predicting + writing, of Scorehouse from the start of the upload to the end of the download; without imports, start of "
        "clusters and workers, and the model's loading, except that Ray's actors start and load within it, and that MLflow's "
        "command has no such time. Seconds are medians, ratios those to the pandas script in the same repeat, the median with "
        "the lowest and highest, and per row: a task for each row scores few, the script many.",
        "",
        "| model | peer | rows | work s | ratio | whole process s | ratio | durable | equal |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- | --- |",
        *(_line(one, scripts[one.model]) for one in measured),
        "",
        "Ray Data writes a folder of files in no order, MLflow's command JSON without keys; both are put right after the clock "
        "has stopped. Celery's chunks are JSON in the broker until a worker takes them, and lost with that worker.",
        "",
        "| peer | versions |",
        "| --- | --- |",
        *(f"| {name} | {', '.join(f'{package} {version}' for package, version in each.items())} |" for name, each in versions.items()),
        "",
    ]  # fmt: skip


def _line(one: Measured, script: Measured) -> str:
    start = f"| {one.model} | {one.peer} | {one.rows:,} "
    if one.failure:
        return f"{start}| FAILED: {' '.join(one.failure.split()).replace('|', '/')} |" + " |" * 5
    told = [_told(one, script, measure) for measure in ("work", "whole")]
    return f"{start}| {' | '.join(told)} | {one.durable} | {_equality(one.comparison)} |"


def _told(one: Measured, script: Measured, measure: str) -> str:
    """The median of the seconds, and the ratios; those of whole processes only for as many rows, as their start counts once."""
    if any(getattr(each, measure) is None for each in one.repeats):
        return " | "
    seconds, script_seconds = ([float(getattr(each, measure)) for each in these.repeats] for these in (one, script))
    ratios = per_row(seconds, one.rows, script_seconds, script.rows)
    if measure == "whole" and one.rows != script.rows:
        return f"{statistics.median(seconds):.2f} | "
    median, lowest, highest = map(_short, (statistics.median(ratios), min(ratios), max(ratios)))
    return f"{statistics.median(seconds):.2f} | {median} ({lowest} to {highest})"


def _short(ratio: float) -> str:
    return f"{ratio:,.0f}" if ratio >= 100 else f"{ratio:.2f}"


def per_row(seconds: list[float], rows: int, script: list[float], script_rows: int) -> list[float]:
    """Of each repeat, the ratio of the seconds for a row to the script's."""
    return [(one / rows) / (other / script_rows) for one, other in zip(seconds, script, strict=True)]


def _equality(found: Comparison | None) -> str:
    if found is None:
        return "not compared"
    return f"yes, within {found.largest_probability_difference:.0e}" if found.equal else f"NO: {found}"


if __name__ == "__main__":
    sys.exit(main())
