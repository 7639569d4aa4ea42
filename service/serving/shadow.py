"""Compare the forecasts of a new model with those of the model in service."""

import numpy as np
from jaxtyping import Float, Int

from forecast.errors import ForecastError
from service.errors import ShadowRefused
from service.ingest.writer import Writer
from service.storage.records import Observations

SAMPLE = 256
"""Most series whose forecasts are compared."""
FAR, MAX_FAR_SHARE = 5.0, 0.1
"""Widths of the old 95 % interval beyond which a forecast is far off, and the share that may be."""


def check_forecasts(champion: Writer, shadow: Writer) -> None:
    """
    Check a new model before it may answer.

    Both models forecast a sample of the series that they know. A series is far off if more than
    half of its steps are.

    Args:
        champion: The model in service.
        shadow: The new model, with its states where the log is.

    Raises:
        ShadowRefused: The new model cannot forecast, a forecast is not finite, or more than a tenth
            of the series are far off.
    """
    names = _sample(champion, shadow)
    if not names:
        return
    horizon = min(champion.engine.bundle.horizon, shadow.engine.bundle.horizon)
    try:
        old = _forecasts(champion, names, horizon)
        new = _forecasts(shadow, names, horizon)
    except ForecastError as error:
        raise ShadowRefused(f"the new model cannot forecast: {error.message}") from error
    not_finite = ~np.isfinite(new).all(axis=(1, 2))
    if not_finite.any():
        raise ShadowRefused(
            f"the new model's forecasts of {int(not_finite.sum())} of {len(names)} series are not "
            "finite",
            where=f"series {names[int(np.argmax(not_finite))]!r}",
            help="train it again; the model in service stays",
        )
    middle, low, high = (old[..., i] for i in range(3))
    width = np.maximum(high - low, 0.02 * np.abs(middle) + 1e-9)
    far = (np.abs(new[..., 0] - middle) > FAR * width).mean(axis=1) > 0.5
    if far.mean() > MAX_FAR_SHARE:
        raise ShadowRefused(
            f"the new model's forecasts of {int(far.sum())} of {len(names)} series lie further "
            f"than {FAR:g} widths of its 95 % interval from the forecast of the model in service",
            where=f"series {names[int(np.argmax(far))]!r}",
            help="check what it was trained on; the model in service stays",
        )


def _sample(champion: Writer, shadow: Writer) -> list[str]:
    """Return up to `SAMPLE` series that both models know, spread evenly over all names."""
    both = [name for name in champion.engine.names() if name in shadow.engine.rows]
    return both[:: max(1, -(-len(both) // SAMPLE))]


def _forecasts(
    writer: Writer, names: list[str], horizon: int
) -> Float[np.ndarray, "series horizon three"]:
    """
    Forecast some series from their states: the point, then the outermost quantiles.

    Known-future covariates are assumed to keep their last values.
    """
    engine = writer.engine
    learned = engine.bundle.config.model.quantiles
    rows = np.array([engine.rows[name] for name in names], np.int64)
    _, ends = engine.spans(rows)
    future = _last_covariates(writer, engine.numbers[rows], ends, horizon)
    quantiles = (max(learned[0], 0.025), min(learned[-1], 0.975))

    def work() -> Float[np.ndarray, "series horizon three"]:
        states, _ = engine.snapshot(rows)
        return engine.forecast(states, horizon, future, quantiles)

    return engine.executor.run_idle(work)


def _last_covariates(
    writer: Writer,
    numbers: Int[np.ndarray, " series"],
    ends: Int[np.ndarray, " series"],
    horizon: int,
) -> Float[np.ndarray, "series horizon known"] | None:
    """Return the known-future covariates of each series' last step, repeated over the horizon."""
    count = len(writer.engine.bundle.config.data.known_future)
    if not count:
        return None
    size = len(numbers)
    last_steps = Observations(
        np.arange(size), ends, np.zeros(size), np.zeros((size, 0)), np.zeros(size, bool)
    )
    with writer.log.read() as transaction:
        stored = transaction.current(last_steps, numbers.tolist())
    values = np.zeros((size, count), np.float32)
    values[stored.series] = np.nan_to_num(stored.covariates[:, :count])
    return np.repeat(values[:, None], horizon, axis=1)
