"""DeepAR of GluonTS, in a process of its own."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from exchange import QUANTILES, Clock, PeerInput, TrainingBudget, read_input, write_output
from gluonts.torch import DeepAREstimator
from gluonts.torch.distributions import NegativeBinomialOutput, StudentTOutput

MAX_EPOCHS = 100
BATCHES = 50
"""Batches of an epoch; both are defaults of the library."""


class Training(TrainingBudget, pl.Callback):
    """Counts and stops the only training of this process."""


def run(data: PeerInput) -> None:
    """Train on windows of every series and sample the steps after the last."""
    torch.set_num_threads(1)
    pl.seed_everything(data.task.seed)
    task = data.task
    Training.budget_s = task.budget_s
    estimator = DeepAREstimator(
        freq=task.period,
        prediction_length=task.horizon,
        num_feat_dynamic_real=len(task.known_future),
        num_feat_static_cat=len(task.static_categories),
        num_feat_static_real=len(task.static_real),
        cardinality=list(task.static_categories.values()) or None,
        distr_output=NegativeBinomialOutput() if task.counts else StudentTOutput(),
        trainer_kwargs={
            "accelerator": "cpu",
            "logger": False,
            "callbacks": [Training()],
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "default_root_dir": str(data.folder),
        },
    )
    clock = Clock()
    predictor = estimator.train(list(entries(data, future=False)), cache_data=True)
    clock.lap("fit")
    parts = []
    for forecast in predictor.predict(list(entries(data, future=True))):
        quantiles = np.quantile(forecast.samples, QUANTILES, axis=0)
        parts.append(np.vstack([forecast.samples.mean(axis=0), quantiles]).T)
    clock.lap("predict")
    columns = ["mean", *(str(q) for q in QUANTILES)]
    forecasts = pd.DataFrame(np.concatenate(parts), columns=columns)
    write_output(
        data,
        pd.concat([data.future[["unique_id", "ds"]], forecasts], axis=1),
        clock,
        settings=f"freq={task.period}, {'NegativeBinomial' if task.counts else 'StudentT'}Output",
        steps=Training.steps,
        stopped=Training.steps < MAX_EPOCHS * BATCHES,
    )


def entries(data: PeerInput, *, future: bool) -> Iterator[dict[str, Any]]:
    """Yield the GluonTS entry of each series, with NaN at unobserved steps."""
    task = data.task
    static = data.static.set_index("unique_id")
    ahead = dict(iter(data.future.groupby("unique_id", sort=False)))
    origin = pd.Period("2000-01-01", freq=task.period)
    for name, part in data.train.groupby("unique_id", sort=False):
        first = part["ds"].iloc[0]
        target = part["y"].where(part["observed"]).to_numpy(dtype=np.float32)
        known = part[list(task.known_future)]
        if future:
            known = pd.concat([known, ahead[name][list(task.known_future)]])
        entry: dict[str, Any] = {
            "item_id": name,
            "start": origin + int(first) if task.freq == 1 else pd.Period(first, freq=task.period),
            "target": target,
        }
        if task.known_future:
            entry["feat_dynamic_real"] = known.to_numpy(dtype=np.float32).T
        if task.static_categories:
            entry["feat_static_cat"] = static.loc[name, list(task.static_categories)].to_numpy(int)
        if task.static_real:
            real = static.loc[name, list(task.static_real)]
            entry["feat_static_real"] = real.to_numpy(dtype=np.float32)
        yield entry


if __name__ == "__main__":
    run(read_input(Path(sys.argv[1])))
