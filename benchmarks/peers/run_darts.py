"""RNNModel (LSTM) of Darts, in a process of its own."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch
from darts import TimeSeries
from darts.dataprocessing.transformers import Scaler
from darts.models import RNNModel
from darts.utils.likelihood_models.torch import GaussianLikelihood
from exchange import QUANTILES, Clock, PeerInput, TrainingBudget, read_input, write_output

EPOCHS = 100
"""The default of the library."""
SAMPLES = 100
ENCODERS = {
    "h": ["hour", "dayofweek"],
    "D": ["dayofweek", "month"],
    "W": ["week"],
    "M": ["month"],
    "Q": ["quarter"],
}


class Training(TrainingBudget, pl.Callback):
    """Counts and stops the only training of this process."""


def run(data: PeerInput) -> None:
    """Train one network on all scaled series and sample the steps after the last."""
    torch.set_num_threads(1)
    task = data.task
    Training.budget_s = task.budget_s
    context = max(task.season, task.horizon)
    training = context + task.horizon
    context, training = (
        min(steps, int(data.lengths.max()) - reserved)
        for steps, reserved in ((context, task.horizon), (training, 1))
    )
    names = ENCODERS.get(task.period.split("-")[0])
    model = RNNModel(
        input_chunk_length=context,
        training_length=training,
        model="LSTM",
        likelihood=GaussianLikelihood(),
        n_epochs=EPOCHS,
        random_state=task.seed,
        add_encoders={"cyclic": {"future": names}} if names and task.freq != 1 else None,
        pl_trainer_kwargs={
            "accelerator": "cpu",
            "callbacks": [Training()],
            "enable_progress_bar": False,
            "enable_model_summary": False,
        },
    )
    clock = Clock()
    scaler, scaler_known = Scaler(), Scaler()
    curves = to_series(data.train, ["y"], task.freq)
    missing = [max(training + 1 - len(curve), 0) for curve in curves]
    series = pad(scaler.fit_transform(curves), missing)
    known = None
    if task.known_future:
        table = pd.concat([data.train, data.future]).sort_values(["unique_id", "ds"])
        covariates = to_series(table, list(task.known_future), task.freq)
        known = pad(scaler_known.fit_transform(covariates), missing)
    model.fit(series, future_covariates=known, verbose=False)
    clock.lap("fit")
    paths = model.predict(
        task.horizon, series=series, future_covariates=known, num_samples=SAMPLES, verbose=False
    )
    samples = np.concatenate([s.all_values()[:, 0] for s in scaler.inverse_transform(paths)])
    clock.lap("predict")
    values = np.column_stack([samples.mean(axis=1), np.quantile(samples, QUANTILES, axis=1).T])
    forecasts = pd.DataFrame(values, columns=["mean", *(str(q) for q in QUANTILES)])
    write_output(
        data,
        pd.concat([data.future[["unique_id", "ds"]], forecasts], axis=1),
        clock,
        settings=f"LSTM, input_chunk_length={context}, training_length={training}, "
        f"GaussianLikelihood, Scaler a series, {sum(map(bool, missing))} series made longer",
        steps=Training.steps,
        stopped=Training.epochs < EPOCHS,
    )


def to_series(table: pd.DataFrame, columns: list[str], freq: str | int) -> list[TimeSeries]:
    """Return a `TimeSeries` for each series, in the order of the table."""
    return [
        TimeSeries.from_dataframe(
            part.astype(dict.fromkeys(columns, np.float32)), "ds", columns, freq=freq
        )
        for _, part in table.groupby("unique_id", sort=False)
    ]


def pad(curves: list[TimeSeries], missing: list[int]) -> list[TimeSeries]:
    """Extend series that are too short to train on, by repeating their first values."""
    return [
        curve.prepend_values(np.repeat(curve.values()[:1], steps, axis=0)) if steps else curve
        for curve, steps in zip(curves, missing, strict=True)
    ]


if __name__ == "__main__":
    run(read_input(Path(sys.argv[1])))
