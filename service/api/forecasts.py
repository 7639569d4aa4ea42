"""A forecast request, from live states or from the history it brings."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.errors import ForecastError
from forecast.inference.states import States
from service.api import answers, requests, schemas
from service.engine.engine import Engine
from service.engine.warm_up import replayed
from service.errors import Abandoned, Refused, ServiceError
from service.metrics import Metrics
from service.serving.slot import Serving
from service.settings import Limits

Flags = Bool[np.ndarray, " series"]
Values = Float[np.ndarray, "series horizon output"]


def forecast(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits, metrics: Metrics
) -> schemas.ForecastResponse:
    """
    Answer a request and count it.

    Raises:
        ForecastError, Refused: As they say.
    """
    labels = (metrics.model, serving.source.version or "")
    try:
        made = _cold(serving, body, limits) if body.series else _live(serving, body, limits)
    except Abandoned:
        _count_failure(metrics, labels, "abandoned")
        raise
    except ServiceError:
        _count_failure(metrics, labels, "rejected")
        raise
    except (ForecastError, Refused):
        _count_failure(metrics, labels, "request")
        raise
    except Exception:
        _count_failure(metrics, labels, "other")
        raise
    metrics.inferences.labels(*labels, "success").inc()
    metrics.inference_series.labels(*labels).inc(len(made))
    metrics.batches.labels(*labels).inc()
    metrics.batch_size.labels(metrics.model).observe(len(made))
    return schemas.ForecastResponse(model=answers.model_of(serving.source), forecasts=made)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request to forecast live states, as arrays."""

    rows: Int[np.ndarray, " series"]
    numbers: Int[np.ndarray, " series"]
    """Of the series that had these rows when they were looked up."""
    last_ds: Int[np.ndarray, " series"]
    """Where the states stood when `known` was laid out."""
    known: Float[np.ndarray, "series horizon known"] | None


@dataclass(frozen=True, slots=True)
class _Made:
    """Its forecasts, and where the states stand that made them."""

    states: States
    rebuilt: Flags
    values: Values


def _live(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits
) -> list[schemas.SeriesForecast]:
    engine, bundle = serving.engine, serving.bundle
    serving.write_queue.catch_up()
    ids = body.unique_ids or []
    serving.write_queue.need(ids)
    requests.live_rows(ids, engine, limits)
    horizon = body.h or bundle.horizon
    data, calendar = bundle.config.data, bundle.calendar
    quantiles, _, _ = requests.quantile_plan(body)
    engine.check_horizon(horizon)
    requests.check_answer(requests.numbers_of(body, series=len(ids), horizon=horizon), limits)
    known = requests.future(body.futr, data, calendar, limits, ids, horizon)

    def work(asked: list[_Asked]) -> list[_Made | None]:
        return _forecast_together(engine, horizon, quantiles, asked)

    made = None
    while made is None:  # a step that came in between has moved the stamps of the covariates
        rows = requests.live_rows(ids, engine, limits)
        _, last_ds = engine.spans(rows)
        asked = _Asked(rows, engine.numbers[rows], last_ds, known(last_ds))
        made = engine.executor.run_batched((engine, horizon, quantiles), asked, work)
    words = answers.state_words(made.rebuilt)
    return answers.forecasts(ids, made.states, words, made.values, body, calendar)


def _forecast_together(
    engine: Engine, horizon: int, quantiles: tuple[float, ...], asked: list[_Asked]
) -> list[_Made | None]:
    """One call of the network for several requests; None where other states stand there now."""
    states, rebuilt = engine.snapshot(np.concatenate([one.rows for one in asked]))
    known = None
    if asked[0].known is not None:
        known = np.concatenate([one.known for one in asked if one.known is not None])
    values = engine.forecast(states, horizon, known, quantiles)
    made: list[_Made | None] = []
    ends = np.cumsum([len(one.rows) for one in asked])
    for one, end in zip(asked, ends.tolist(), strict=True):
        part = np.arange(end - len(one.rows), end)
        own = states if len(asked) == 1 else states.take(part)
        moved = one.known is not None and (own.last_ds != one.last_ds).any()
        moved |= (engine.numbers[one.rows] != one.numbers).any()
        made.append(None if moved else _Made(own, rebuilt[part], values[part]))
    return made


def _cold(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits
) -> list[schemas.SeriesForecast]:
    engine, bundle = serving.engine, serving.bundle
    series = body.series or []
    ids = [one.unique_id for one in series]
    horizon = body.h or bundle.horizon
    data, calendar = bundle.config.data, bundle.calendar
    quantiles, _, _ = requests.quantile_plan(body)
    engine.check_horizon(horizon)
    requests.check_answer(requests.numbers_of(body, series=len(ids), horizon=horizon), limits)
    requests.check_static(series, bundle.spec.static)
    rows = requests.cold_rows(series, data, calendar, limits)
    known = requests.future(body.futr, data, calendar, limits, ids, horizon)

    def work() -> tuple[States, Values]:
        states = replayed(bundle, ids, [one.static for one in series], rows)
        return states, engine.forecast(states, horizon, known(states.last_ds), quantiles)

    states, values = engine.executor.run(work)
    return answers.forecasts(ids, states, ["cold"] * len(ids), values, body, calendar)


def _count_failure(metrics: Metrics, labels: tuple[str, str], reason: str) -> None:
    metrics.inferences.labels(*labels, "failure").inc()
    metrics.failures.labels(metrics.model, reason).inc()
