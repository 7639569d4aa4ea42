"""AutoETS, AutoTheta and the seasonal naive of statsforecast, in a process of their own."""

import sys
from pathlib import Path

from exchange import LEVELS, Clock, PeerInput, read_input, rename_levels, write_output
from statsforecast import StatsForecast
from statsforecast.models import AutoETS, AutoTheta, SeasonalNaive

MODELS = {"AutoETS": AutoETS, "AutoTheta": AutoTheta, "SeasonalNaive": SeasonalNaive}


def run(data: PeerInput) -> None:
    """Fit one model to each series and forecast."""
    task = data.task
    model = MODELS[task.model](season_length=task.season_length)
    fallback = SeasonalNaive(season_length=1)
    clock = Clock()
    forecaster = StatsForecast(models=[model], freq=task.freq, n_jobs=1, fallback_model=fallback)
    forecaster.fit(data.train[["unique_id", "ds", "y"]])
    clock.lap("fit")
    forecasts = forecaster.predict(h=task.horizon, level=list(LEVELS))
    clock.lap("predict")
    forecasts = rename_levels(forecasts, task.model)
    write_output(data, forecasts, clock, settings=f"season_length={task.season_length}")


if __name__ == "__main__":
    run(read_input(Path(sys.argv[1])))
