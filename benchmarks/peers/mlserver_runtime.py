"""A runtime of MLServer's for records as JSON, with adaptive batching: requests that come together are scored in one call.

    mlserver start FOLDER

with a settings.json and a model-settings.json in the folder, as `benchmarks.singles_peers` writes them.
"""

from __future__ import annotations

import json
import os

import joblib
import pandas as pd
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse


class Scorer(MLModel):
    async def load(self) -> bool:
        self.model = joblib.load(os.environ["PEER_ARTEFACT"])
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        records = [json.loads(text) for text in self.decode(payload.inputs[0], default_codec=StringCodec)]
        probability = self.model.predict_proba(pd.DataFrame(records))
        return InferenceResponse(
            id=payload.id, model_name=self.name, outputs=[NumpyCodec.encode_output("probability", probability)]
        )
