"""The usual design, which most tutorials arrive at: Flask takes a record, a Celery task scores it, its result lies in Redis.

Run by `benchmarks.singles_against`: gunicorn serves `benchmarks.usual_design:web()`, Celery runs `benchmarks.usual_design:tasks`.
`POST /submit` answers an id, `GET /result/<id>` the state and, once it is there, the prediction. What has been scored is in
Redis, for as long as Redis keeps it.
"""

from __future__ import annotations

import os
from typing import Any

import joblib
import pandas as pd
from celery import Celery
from celery.signals import worker_process_init
from flask import Flask, jsonify, request

URL = os.environ.get("USUAL_DESIGN_BROKER", "redis://127.0.0.1:6379/0")
ARTEFACT = os.environ.get("USUAL_DESIGN_ARTEFACT", "")

tasks = Celery("usual", broker=URL, backend=URL)
tasks.conf.update(worker_prefetch_multiplier=1, result_expires=600)
_loaded: dict[str, Any] = {}


@worker_process_init.connect
def load(**_: object) -> None:
    """Each child holds the model."""
    _loaded["model"] = joblib.load(ARTEFACT)


@tasks.task(name="usual.score")
def score(record: dict[str, Any]) -> dict[str, Any]:
    model = _loaded["model"]
    frame = pd.DataFrame([record])
    return {"prediction": int(model.predict(frame)[0]), "probability": model.predict_proba(frame)[0].tolist()}


def web() -> Flask:
    app = Flask(__name__)

    @app.post("/submit")
    def submit() -> Any:
        return jsonify(id=score.delay(request.get_json()).id), 202

    @app.get("/result/<task_id>")
    def result(task_id: str) -> Any:
        found = tasks.AsyncResult(task_id)
        return jsonify(state=found.state, result=found.result if found.successful() else None)

    return app
