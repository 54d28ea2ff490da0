"""What a chunk's profile costs beside the parsing and scoring of the chunk, as a worker does them: on one thread."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from statistics import median

from benchmarks.files import csv_file, model_files
from examples.churn.data import COLUMNS
from examples.package import one_thread
from monitoring.profile import profile_of
from monitoring.reference import reference_of
from monitoring.schema import ProfileSchema
from registry.examine import examine
from registry.parse import parse_csv
from registry.runtime import Scores, load
from registry.scoring import score
from settings import Settings

MODEL = "histgb"
ROWS = 30_000
REPEATS = 15
WANTED_SHARE = 0.15


@dataclass(frozen=True)
class ProfileCost:
    """Medians in seconds, for one chunk of `ROWS` rows."""

    parse_seconds: float
    score_seconds: float
    profile_seconds: float
    profile_bytes: int

    @property
    def share(self) -> float:
        return self.profile_seconds / (self.parse_seconds + self.score_seconds)


def measure() -> ProfileCost:
    artefact, reference = model_files(MODEL)
    digest = f"sha256:{hashlib.sha256(artefact.read_bytes()).hexdigest()}"
    header, _, data = csv_file(ROWS).read_bytes().partition(b"\n")
    times: list[tuple[float, ...]] = []
    with one_thread():
        package = examine(
            artefact, format="joblib", digest=digest, reference=reference, key=COLUMNS.key, target=COLUMNS.label
        )
        assert package.sample is not None
        schema = ProfileSchema.model_validate(reference_of(package.signature, package.sample).schema)
        runtime = load(artefact, format="joblib", digest=digest)
        for _ in range(REPEATS):
            began = time.perf_counter()
            parsed = parse_csv(
                data,
                header=header.decode().split(","),
                delimiter=",",
                signature=package.signature,
                key_column=COLUMNS.key,
                first_row=1,
                first_line=2,
                max_cell_chars=Settings().max_cell_chars,
            )
            parsed_at = time.perf_counter()
            scored = score(runtime, parsed, package.signature)
            scored_at = time.perf_counter()
            scores = Scores(scored.prediction, scored.probabilities)
            packed = profile_of(schema, parsed.features, scores, scored.errors).to_bytes()
            times.append((parsed_at - began, scored_at - parsed_at, time.perf_counter() - scored_at))
    assert len(scored.rows) == ROWS, "every customer can be scored"
    parsing, scoring, profiling = (median(column) for column in zip(*times, strict=True))
    return ProfileCost(parsing, scoring, profiling, len(packed))
