"""
The MLflow `pyfunc` model of a bundle. MLflow runs this file when it loads the model.

The input is a long table with the history of each series, the output a long table of forecasts.
`params` are `h` (0 stands for the horizon the model was trained for) and `level` (in percent).
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
    """Warms up a state on the history of each series and forecasts from it; keeps no state."""

    bundle: Bundle

    def load_context(self, context: PythonModelContext) -> None:
        self.bundle = load_bundle(Path(context.artifacts["bundle"]))

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        options = params or {}
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
            horizon=int(options.get("h") or 0) or None,
            level=tuple(float(percent) for percent in options.get("level", ())),
            data=data,
        )


mlflow.models.set_model(StatecastModel())
