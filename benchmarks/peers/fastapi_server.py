"""A FastAPI service: a record is validated, and scored by a thread of the pool.

PEER_ARTEFACT=MODEL uvicorn --workers=2 benchmarks.peers.fastapi_server:app
"""

from __future__ import annotations

import os

import joblib
import pandas as pd
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()
model = joblib.load(os.environ["PEER_ARTEFACT"])


class Record(BaseModel):
    contract_type: str | None
    internet_service: str | None
    payment_method: str | None
    region: str | None
    tenure: float | None
    monthly_charges: float | None
    total_charges: float | None
    support_calls: float | None


class Scored(BaseModel):
    probability: list[float]


@app.post("/predict")
def predict(record: Record) -> Scored:
    probability = model.predict_proba(pd.DataFrame([record.model_dump()]))
    return Scored(probability=probability[0].tolist())
