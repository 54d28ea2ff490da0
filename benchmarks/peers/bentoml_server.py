"""A BentoML service with adaptive batching: requests that come together are scored in one call.

PEER_ARTEFACT=MODEL bentoml serve benchmarks.peers.bentoml_server:Scorer
"""

from __future__ import annotations

import os
from typing import Any

import bentoml
import joblib
import pandas as pd


@bentoml.service(workers=2, traffic={"timeout": 60})
class Scorer:
    def __init__(self) -> None:
        self.model = joblib.load(os.environ["PEER_ARTEFACT"])

    @bentoml.api(batchable=True)
    def predict(self, records: list[dict[str, Any]]) -> list[list[float]]:
        probability: list[list[float]] = self.model.predict_proba(pd.DataFrame(records)).tolist()
        return probability
