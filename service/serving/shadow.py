"""A new model beside the one in service: its states brought to where the log is, then looked at."""

import numpy as np
from jaxtyping import Float, Int

from forecast.errors import ForecastError
from service.errors import ShadowRefused
from service.ingest.writer import Writer
from service.storage.records import Observations

SAMPLE = 256
"""Series whose forecasts are compared."""
FAR, MOST_FAR = 5.0, 0.1
"""Widths of the old interval beyond which a forecast is far off, and the share that may be."""


def check_forecasts(champion: Writer, shadow: Writer) -> None:
    """
    Whether the new model may answer: its forecasts of some series beside the old one's.

    Raises:
        ShadowRefused: They are not finite, or lie far from where they should.
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
    wrong = ~np.isfinite(new).all(axis=(1, 2))
    if wrong.any():
        raise ShadowRefused(
            f"the new model's forecasts of {int(wrong.sum())} of {len(names)} series are not "
            "finite",
            where=f"series {names[int(np.argmax(wrong))]!r}",
            help="train it again; the model in service stays",
        )
    middle, low, high = (old[..., i] for i in range(3))
    width = np.maximum(high - low, 0.02 * np.abs(middle) + 1e-9)
    far = (np.abs(new[..., 0] - middle) > FAR * width).mean(axis=1) > 0.5
    if far.mean() > MOST_FAR:
        raise ShadowRefused(
            f"the new model's forecasts of {int(far.sum())} of {len(names)} series lie further "
            f"than {FAR:g} widths of its 95 % interval from the forecast of the model in service",
            where=f"series {names[int(np.argmax(far))]!r}",
            help="see what it was trained on; the model in service stays",
        )


def _sample(champion: Writer, shadow: Writer) -> list[str]:
    """Series that both know, spread over all names."""
    both = [name for name in champion.engine.names() if name in shadow.engine.rows]
    return both[:: max(1, -(-len(both) // SAMPLE))]


def _forecasts(
    writer: Writer, names: list[str], horizon: int
) -> Float[np.ndarray, "series horizon three"]:
    """Point and outermost quantiles; covariates are taken to stay as they were last."""
    engine = writer.engine
    learned = engine.bundle.config.model.quantiles
    rows = np.array([engine.rows[name] for name in names], np.int64)
    _, ends = engine.spans(rows)
    known = _last_covariates(writer, engine.numbers[rows], ends, horizon)
    asked = (max(learned[0], 0.025), min(learned[-1], 0.975))

    def work() -> Float[np.ndarray, "series horizon three"]:
        states, _ = engine.snapshot(rows)
        return engine.forecast(states, horizon, known, asked)

    return engine.executor.run_idle(work)


def _last_covariates(
    writer: Writer,
    numbers: Int[np.ndarray, " series"],
    ends: Int[np.ndarray, " series"],
    horizon: int,
) -> Float[np.ndarray, "series horizon known"] | None:
    count = len(writer.engine.bundle.config.data.known_future)
    if not count:
        return None
    size = len(numbers)
    asked = Observations(
        np.arange(size), ends, np.zeros(size), np.zeros((size, 0)), np.zeros(size, bool)
    )
    with writer.log.read() as transaction:
        found = transaction.current(asked, numbers.tolist())
    last = np.zeros((size, count), np.float32)
    last[found.series] = np.nan_to_num(found.covariates[:, :count])
    return np.repeat(last[:, None], horizon, axis=1)
