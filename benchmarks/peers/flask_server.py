"""A synchronous Flask service: the request's own thread scores its record.

PEER_ARTEFACT=MODEL gunicorn --workers=2 --threads=4 benchmarks.peers.flask_server:app
"""

from __future__ import annotations

import os
from typing import Any

import joblib
import pandas as pd
from flask import Flask, jsonify, request

app = Flask(__name__)
model = joblib.load(os.environ["PEER_ARTEFACT"])


@app.post("/predict")
def predict() -> Any:
    probability = model.predict_proba(pd.DataFrame([request.get_json()]))
    return jsonify(probability=probability[0].tolist())


@app.get("/ready")
def ready() -> Any:
    return jsonify(ready=True)
