"""A Ray Serve deployment of two replicas with batching: requests that come together are scored in one call.

    PEER_ARTEFACT=MODEL python benchmarks/peers/ray_server.py PORT FOLDER

FOLDER takes what Ray writes. Serves until SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import joblib
import pandas as pd
import ray
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=2, max_ongoing_requests=100)
class Scorer:
    def __init__(self, model_file: str) -> None:
        self.model = joblib.load(model_file)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def score(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"probability": one} for one in self.model.predict_proba(pd.DataFrame(records)).tolist()]

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.score(await request.json())


def main(port: str, folder: str) -> None:
    ray.init(num_cpus=2, include_dashboard=False, _temp_dir=folder)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    serve.run(Scorer.bind(os.environ["PEER_ARTEFACT"]), route_prefix="/predict")
    try:
        signal.pause()  # Ray's own handler of SIGTERM raises SystemExit
    finally:
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
