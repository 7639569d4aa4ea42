"""LSTM, GRU and NHITS of neuralforecast, in a process of their own."""

import sys
from pathlib import Path

import pandas as pd
import pytorch_lightning as pl
import torch
from exchange import MEDIAN, QUANTILES, Clock, PeerInput, TrainingBudget, read_input, write_output
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import MAE, MQLoss
from neuralforecast.models import GRU, LSTM, NHITS

MODELS = {
    "neuralforecast-lstm": LSTM,
    "neuralforecast-lstm-mae": LSTM,
    "neuralforecast-gru": GRU,
    "neuralforecast-nhits": NHITS,
}
MAX_STEPS = 1000
"""The default of the library."""


class Training(TrainingBudget, pl.Callback):
    """Counts and stops the only training of this process."""


def run(data: PeerInput) -> None:
    """Train on windows of every series and forecast the steps after the last."""
    torch.set_num_threads(1)
    task = data.task
    input_size = 3 * task.horizon
    pad = int(data.lengths.min()) < input_size + task.horizon
    static = one_hot(data)
    plain = task.model.endswith("-mae")
    scaler = {"scaler_type": "robust"} if task.model == "neuralforecast-nhits" else {}
    Training.budget_s = task.budget_s
    model = MODELS[task.model](
        h=task.horizon,
        input_size=input_size,
        max_steps=MAX_STEPS,
        loss=MAE() if plain else MQLoss(quantiles=list(QUANTILES)),
        futr_exog_list=list(task.known_future) or None,
        stat_exog_list=[c for c in static.columns if c != "unique_id"] or None,
        start_padding_enabled=pad,
        random_seed=task.seed,
        alias="m",
        accelerator="cpu",
        logger=False,
        callbacks=[Training()],
        enable_progress_bar=False,
        enable_model_summary=False,
        **scaler,
    )
    columns = ["unique_id", "ds", "y", *task.known_future]
    clock = Clock()
    forecaster = NeuralForecast(models=[model], freq=task.freq)
    forecaster.fit(data.train[columns], static_df=static if len(static) else None)
    clock.lap("fit")
    forecasts = forecaster.predict(futr_df=data.future if task.known_future else None)
    clock.lap("predict")
    settings = (
        f"input_size={input_size}, max_steps={MAX_STEPS}, loss={'MAE' if plain else 'MQLoss'}"
    )
    settings += ", scaler_type=robust" if scaler else ""
    settings += ", start_padding_enabled" if pad else ""
    write_output(
        data,
        rename_quantiles(forecasts),
        clock,
        settings=settings,
        steps=Training.steps,
        stopped=Training.steps < MAX_STEPS,
    )


def one_hot(data: PeerInput) -> pd.DataFrame:
    """Return static covariates with a 0/1 column for each category; no rows if there are none."""
    task = data.task
    names = list(task.static_categories)
    if not names and not task.static_real:
        return data.static.iloc[:0][["unique_id"]]
    real = data.static[["unique_id", *task.static_real]]
    indicators = pd.get_dummies(data.static[names].astype("category"), dtype="float32")
    return pd.concat([real, indicators], axis=1)


def rename_quantiles(forecasts: pd.DataFrame) -> pd.DataFrame:
    """Rename the columns of the library (`m_ql0.1`, `m-lo-80.0`, `m-median`, `m`) to quantiles."""
    names = {f"m_ql{q}": str(q) for q in QUANTILES} | {"m": MEDIAN, "m-median": MEDIAN}
    for q in QUANTILES:
        side, level = ("lo", 100 - 200 * q) if q < 0.5 else ("hi", 200 * q - 100)
        names |= {f"m-{side}-{level:.1f}": str(q), f"m-{side}-{level:g}": str(q)}
    return forecasts.rename(columns=names)


if __name__ == "__main__":
    run(read_input(Path(sys.argv[1])))
