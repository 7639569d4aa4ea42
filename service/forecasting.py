"""A forecast request, from live states or from the history it brings."""

import numpy as np
from jaxtyping import Bool, Float

from forecast.errors import ForecastError
from forecast.states import States
from service import answers, intake, schemas
from service.errors import Refused, ServiceError
from service.metrics import Metrics
from service.settings import Limits
from service.slot import Serving

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
    labels = (serving.source.name, serving.source.version or "")
    try:
        made = _cold(serving, body, limits) if body.series else _live(serving, body, limits)
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
    metrics.batch_size.observe(len(made))
    return schemas.ForecastResponse(model=answers.model_of(serving.source), forecasts=made)


def _live(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits
) -> list[schemas.SeriesForecast]:
    engine, bundle = serving.engine, serving.bundle
    ids = body.unique_ids or []
    rows = intake.live_rows(ids, engine, limits)
    horizon = body.h or bundle.horizon
    data, calendar = bundle.config.data, bundle.calendar
    quantiles, _, _ = answers.quantile_plan(body)
    engine.check_horizon(horizon)
    intake.check_answer(answers.numbers_of(body, series=len(ids), horizon=horizon), limits)
    known = intake.future(body.futr, data, calendar, limits, ids, horizon)

    def work() -> tuple[States, Flags, Values]:
        states, rebuilt = engine.snapshot(rows)
        values = engine.forecast(states, horizon, known(states.last_ds), quantiles)
        return states, rebuilt, values

    states, rebuilt, values = engine.compute.run(work)
    return answers.forecasts(ids, states, answers.state_words(rebuilt), values, body, calendar)


def _cold(
    serving: Serving, body: schemas.ForecastRequest, limits: Limits
) -> list[schemas.SeriesForecast]:
    engine, bundle = serving.engine, serving.bundle
    series = body.series or []
    ids = [one.unique_id for one in series]
    horizon = body.h or bundle.horizon
    data, calendar = bundle.config.data, bundle.calendar
    quantiles, _, _ = answers.quantile_plan(body)
    engine.check_horizon(horizon)
    intake.check_answer(answers.numbers_of(body, series=len(ids), horizon=horizon), limits)
    intake.check_static(series, bundle.spec.static)
    rows = intake.cold_rows(series, data, calendar, limits)
    known = intake.future(body.futr, data, calendar, limits, ids, horizon)

    def work() -> tuple[States, Values]:
        states = engine.replayed(ids, [one.static for one in series], rows)
        return states, engine.forecast(states, horizon, known(states.last_ds), quantiles)

    states, values = engine.compute.run(work)
    return answers.forecasts(ids, states, ["cold"] * len(ids), values, body, calendar)


def _count_failure(metrics: Metrics, labels: tuple[str, str], reason: str) -> None:
    metrics.inferences.labels(*labels, "failure").inc()
    metrics.failures.labels(reason).inc()
