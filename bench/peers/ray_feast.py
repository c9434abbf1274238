"""The scoring endpoint that one would put together of Ray Serve, FastAPI, Feast, ONNX Runtime and shap, as the
documentation of each shows it. `build` is what Ray Serve's config file names.

It is given a folder: `feature_store.yaml` with its registry, `model.onnx`, `trees.pickle` (the same trees as shap takes
them: its own code explains them faster than LightGBM does, which it calls for a booster) and `features.json` (the names
of the model's inputs, in order).

Annotations are objects here and no text: Ray Serve hands FastAPI's functions on without what their names mean.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import shap
from fastapi import FastAPI
from feast import FeatureStore
from pydantic import BaseModel
from ray import serve
from ray.serve import Application

SERVICE = "sixty"
TOP_REASONS = 5

api = FastAPI()


class Actors(BaseModel):
    """Whom to score."""

    advertiser_id: str
    creator_id: str
    ip: str
    device_id: str


class Reason(BaseModel):
    """A feature and its share of the margin."""

    feature: str
    value: float | None
    attribution: float


class Answer(BaseModel):
    """The score with its strongest reasons."""

    score: float
    reasons: list[Reason]


@serve.deployment
@serve.ingress(api)
class Scoring:
    """Fetches, scores, explains."""

    def __init__(self, folder: Path, threads: int) -> None:
        """`threads`: of ONNX Runtime, 0 for its default."""
        self.store = FeatureStore(repo_path=str(folder))
        self.service = self.store.get_feature_service(SERVICE)
        self.names = json.loads((folder / "features.json").read_text())
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self.explainer = shap.TreeExplainer({"trees": pickle.loads((folder / "trees.pickle").read_bytes())})

    @api.get("/readyz")
    def ready(self) -> str:
        """Answers when the replica is there."""
        return "ready"

    @api.post("/score")
    def score(self, actors: Actors) -> Answer:
        """One decision."""
        found = self.store.get_online_features(features=self.service, entity_rows=[actors.model_dump()]).to_dict()
        values = [found[name][0] for name in self.names]
        row = np.array([values], dtype=np.float64)
        (score,) = self.session.run(["score"], {"features": row})
        attributions = np.asarray(self.explainer.shap_values(row, check_additivity=False)).reshape(-1)
        strongest = np.argsort(-np.abs(attributions))[:TOP_REASONS]
        reasons = [Reason(feature=self.names[i], value=values[i], attribution=attributions[i]) for i in strongest]
        return Answer(score=score[0, 0], reasons=reasons)


def build(arguments: dict[str, Any]) -> Application:
    """The application, for Ray Serve's config file, which gives `folder` and `threads`."""
    return Scoring.bind(Path(arguments["folder"]), arguments["threads"])
