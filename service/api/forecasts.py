"""
Forecasts: the request becomes arrays, the network computes, the arrays become the answer.

A forecast reads live states, or warms up states on histories that the request brings; it never
changes a state.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from forecast.errors import ForecastError
from forecast.inference.states import States
from service.api import answers, schemas
from service.api.forecast_requests import (
    CheckedRequest,
    live_rows,
    read_cold_request,
    read_live_request,
)
from service.engine.engine import Engine
from service.engine.warm_up import replayed
from service.errors import Abandoned, Refused, ServiceError
from service.metrics import Metrics
from service.serving.serving import Serving
from service.settings import Limits

Flags = Bool[np.ndarray, " series"]
Values = Float[np.ndarray, "series horizon output"]


@dataclass(frozen=True, slots=True)
class _LiveItem:
    """The part of a live forecast that may be computed together with those of other requests."""

    rows: Int[np.ndarray, " series"]
    """Rows of the engine."""
    numbers: Int[np.ndarray, " series"]
    """Numbers of the series that had these rows when they were looked up."""
    last_ds: Int[np.ndarray, " series"]
    """Last stamps of the states when `known_future` was read."""
    known_future: Float[np.ndarray, "series horizon known"] | None


@dataclass(frozen=True, slots=True)
class _Forecast:
    """Forecasts of some series and the states that they were result from."""

    states: States
    origin: list[str]
    """`live`, `rebuilt` or `cold` for each series."""
    values: Values


def forecast(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits, metrics: Metrics
) -> schemas.ForecastResponse:
    """
    Answer a forecast request and count it.

    Raises:
        Refused: The request does not fit the model or the limits.
        ForecastError: The forecast cannot be result; the metrics count why.
    """
    labels = (metrics.model, serving.source.version or "")
    try:
        series = _answer(serving, body, limits)
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
    metrics.inference_series.labels(*labels).inc(len(series))
    metrics.batches.labels(*labels).inc()
    metrics.batch_size.labels(metrics.model).observe(len(series))
    return schemas.ForecastResponse(model=answers.model_of(serving.source), forecasts=series)


def _answer(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits
) -> list[schemas.SeriesForecast]:
    if body.series:
        request = read_cold_request(body, serving, limits)
        result = _forecast_cold(serving.engine, request)
    else:
        serving.write_queue.catch_up()
        serving.write_queue.need(body.unique_ids or [])
        request = read_live_request(body, serving, limits)
        result = _forecast_live(serving.engine, request)
    return answers.forecasts(
        request, result.states, result.origin, result.values, serving.bundle.calendar
    )


def _forecast_cold(engine: Engine, request: CheckedRequest) -> _Forecast:
    history = request.history
    assert history is not None

    def work() -> tuple[States, Values]:
        states = replayed(engine.bundle, request.unique_ids, request.static, history)
        known_future = request.future.after(states.last_ds)
        quantiles = request.quantile_plan.quantiles
        return states, engine.forecast(states, request.horizon, known_future, quantiles)

    states, values = engine.executor.run(work)
    return _Forecast(states, ["cold"] * len(request.unique_ids), values)


def _forecast_live(engine: Engine, request: CheckedRequest) -> _Forecast:
    horizon, quantiles = request.horizon, request.quantile_plan.quantiles

    def work(items: list[_LiveItem]) -> list[_Forecast | None]:
        return _forecast_together(engine, horizon, quantiles, items)

    while True:
        rows = live_rows(request.unique_ids, engine)
        _, last_ds = engine.spans(rows)
        known_future = request.future.after(last_ds)
        item = _LiveItem(rows, engine.numbers[rows], last_ds, known_future)
        result = engine.executor.run_batched((engine, horizon, quantiles), item, work)
        if result is not None:
            return result
        # A step came in between: the covariates must be read for the new stamps.


def _forecast_together(
    engine: Engine, horizon: int, quantiles: tuple[float, ...], items: list[_LiveItem]
) -> list[_Forecast | None]:
    """Forecast for several requests in one call; None for those whose states have moved."""
    states, rebuilt = engine.snapshot(np.concatenate([item.rows for item in items]))
    known_future = None
    if items[0].known_future is not None:
        parts = [item.known_future for item in items if item.known_future is not None]
        known_future = np.concatenate(parts)
    values = engine.forecast(states, horizon, known_future, quantiles)
    forecasts: list[_Forecast | None] = []
    ends = np.cumsum([len(item.rows) for item in items])
    for item, end in zip(items, ends.tolist(), strict=True):
        part = np.arange(end - len(item.rows), end)
        own = states if len(items) == 1 else states.take(part)
        moved = item.known_future is not None and (own.last_ds != item.last_ds).any()
        moved |= (engine.numbers[item.rows] != item.numbers).any()
        origin = answers.state_labels(rebuilt[part])
        forecasts.append(None if moved else _Forecast(own, origin, values[part]))
    return forecasts


def _count_failure(metrics: Metrics, labels: tuple[str, str], reason: str) -> None:
    metrics.inferences.labels(*labels, "failure").inc()
    metrics.failures.labels(metrics.model, reason).inc()
