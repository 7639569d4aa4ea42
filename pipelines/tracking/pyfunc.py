"""
A bundle behind MLflow's `pyfunc`: MLflow runs this file when it loads the model.

It reads JSON and safetensors by the library's own code. The history goes in as a long table, the
forecasts come out as one; `params` are `h` (0: all the model learned) and `level` (in percent).
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from forecast.bundle import Bundle, load_bundle
from forecast.inference.batch import forecast_table


class StatecastModel(PythonModel):
    """Warms every series up on the history sent, and forecasts it; keeps nothing."""

    bundle: Bundle

    def load_context(self, context: PythonModelContext) -> None:
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        asked = params or {}
        data = replace(
            self.bundle.config.data,
            id_col="unique_id",
            time_col="ds",
            target_col="y",
            time_format=None,
        )
        return forecast_table(
            self.bundle,
            model_input,
            horizon=int(asked.get("h") or 0) or None,
            level=tuple(float(one) for one in asked.get("level", ())),
            data=data,
        )


mlflow.models.set_model(StatecastModel())
