"""AutoETS, AutoTheta and the seasonal naive of statsforecast, in a process of their own."""

import sys
from pathlib import Path

from exchange import LEVELS, Clock, Given, from_levels, hand_back, receive
from statsforecast import StatsForecast
from statsforecast.models import AutoETS, AutoTheta, SeasonalNaive

MODELS = {"AutoETS": AutoETS, "AutoTheta": AutoTheta, "SeasonalNaive": SeasonalNaive}


def run(given: Given) -> None:
    """Fit one model to each series and forecast."""
    task = given.task
    model = MODELS[task.model](season_length=task.season_length)
    fallback = SeasonalNaive(season_length=1)
    clock = Clock()
    forecaster = StatsForecast(models=[model], freq=task.freq, n_jobs=1, fallback_model=fallback)
    forecaster.fit(given.train[["unique_id", "ds", "y"]])
    clock.lap("fit")
    forecasts = forecaster.predict(h=task.horizon, level=list(LEVELS))
    clock.lap("predict")
    forecasts = from_levels(forecasts, task.model)
    hand_back(given, forecasts, clock, settings=f"season_length={task.season_length}")


if __name__ == "__main__":
    run(receive(Path(sys.argv[1])))
