"""Plotly figures of a run as plain JSON values, and the HTML page that shows them."""

import json
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from forecast.config import Kind
from forecast.diagnostics.attribution import PARTS
from forecast.diagnostics.carry_gain import CarryGain
from forecast.diagnostics.error_tables import ErrorTables
from forecast.diagnostics.gradients import GradientProfile
from forecast.diagnostics.memory import MemoryProfile
from forecast.inference.output import MODEL
from forecast.training.progress import TrainEvent
from pipelines.promotion.plan import LEVELS

Figure = dict[str, Any]
"""A Plotly figure as JSON values: `data` and `layout`."""
FANS = 6
"""Series of which a fan chart is drawn."""
COLORS = ("#1f6f8b", "#c0504d", "#7f8c8d", "#8e6c3a", "#5b7f3b", "#7d5ba6")
LOSSES: dict[Kind, str] = {"count": "Poisson deviance / mean", "volatility": "QLIKE"}
"""Unit of the training loss, for kinds whose loss is not relative to the seasonal naive."""
_POWERS = {"type": "log", "exponentformat": "power"}
_MAX_HISTORY = 200
"""Most steps of history in a fan chart."""


def fan_chart(cv: pd.DataFrame, history: pd.DataFrame, unique_id: str, *, horizon: int) -> Figure:
    """Draw a series and its forecasts from the last cutoff with their intervals."""
    known = history[history["unique_id"] == unique_id].tail(min(5 * horizon + 20, _MAX_HISTORY))
    rows = cv[cv["unique_id"] == unique_id]
    rows = rows[rows["cutoff"] == rows["cutoff"].max()].sort_values("ds")
    ds = _stamps(rows["ds"])
    traces: list[dict[str, Any]] = []
    for level, alpha in ((95, 0.15), (80, 0.3)):
        if f"{MODEL}-lo-{level}" not in rows:
            continue
        low, high = (_numbers(rows[f"{MODEL}-{side}-{level}"]) for side in ("lo", "hi"))
        traces.append(
            {
                "type": "scatter",
                "x": [*ds, *reversed(ds)],
                "y": [*high, *reversed(low)],
                "fill": "toself",
                "fillcolor": f"rgba(31,111,139,{alpha})",
                "mode": "none",
                "name": f"{level} %",
                "hoverinfo": "skip",
            }
        )
    traces.append(_line(_stamps(known["ds"]), _numbers(known["y"]), "observed", "#222222"))
    traces.append(_line(ds, _numbers(rows[MODEL]), MODEL, COLORS[0]))
    if "SeasonalNaive" in rows:
        naive = _line(ds, _numbers(rows["SeasonalNaive"]), "SeasonalNaive", COLORS[1])
        traces.append({**naive, "line": {"color": COLORS[1], "dash": "dot", "width": 2}})
    return _figure(traces, title=unique_id, x="", y="")


def error_by_horizon(scores: pd.DataFrame) -> Figure:
    """Draw MASE at each step ahead, one line for each model."""
    mase = scores[scores["metric"] == "mase"]
    traces = [
        _line(rows["horizon"].tolist(), _numbers(rows["value"]), str(model), COLORS[i % 6])
        for i, (model, rows) in enumerate(mase.groupby("model", sort=False))
    ]
    figure = _figure(traces, title="Error by step ahead", x="steps ahead", y="MASE")
    figure["layout"]["yaxis"]["type"] = "log"
    return figure


def coverage_chart(scores: pd.DataFrame, levels: Sequence[int] = LEVELS) -> Figure:
    """Draw the share of values inside each interval beside its nominal level."""
    places = list(range(len(levels)))
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "name": str(model),
            "x": places,
            "marker": {"color": COLORS[i % 6]},
            "y": [_value(scores, f"coverage_{level}", str(model)) for level in levels],
        }
        for i, model in enumerate(scores["model"].unique())
        if _value(scores, f"coverage_{levels[0]}", str(model)) is not None
    ]
    nominal = _line(
        [x for place in places for x in (place - 0.45, place + 0.45, None)],
        [y for level in levels for y in (level / 100, level / 100, None)],
        "nominal",
        "#222222",
    )
    figure = _figure([*traces, nominal], title="Coverage of the intervals", x="level", y="share")
    ticks = {"tickvals": places, "ticktext": [f"{level} %" for level in levels]}
    figure["layout"]["xaxis"] |= ticks
    figure["layout"]["yaxis"]["range"] = [0, 1]
    return figure


def training_curve(history: Sequence[TrainEvent], *, kind: Kind = "positive") -> Figure:
    """Draw the training loss, the validation loss and the gradient norm by step."""
    steps = [event.step for event in history]
    loss = _line(steps, [event.loss for event in history], "loss", COLORS[0])
    epochs = [event for event in history if event.epoch_loss is not None]
    x, y = [event.step for event in epochs], [event.epoch_loss for event in epochs]
    traces = [{**loss, "opacity": 0.35}, _line(x, y, "loss of the epoch", COLORS[0])]
    checks = [event for event in history if event.val_loss is not None]
    if checks:
        x, y = [event.step for event in checks], [event.val_loss for event in checks]
        traces.append(_line(x, y, "validation loss", COLORS[1]))
    norm = _line(steps, [event.grad_norm for event in history], "gradient norm", COLORS[2])
    traces.append({**norm, "yaxis": "y2", "opacity": 0.5})
    unit = LOSSES.get(kind, "1 = seasonal naive")
    figure = _figure(traces, title="Training", x="step", y=f"loss ({unit})")
    figure["layout"]["yaxis2"] = {
        "title": {"text": "gradient norm"},
        "overlaying": "y",
        "side": "right",
        "type": "log",
        "showgrid": False,
        "tickformat": ".1~g",
        "nticks": 5,
    }
    return figure


def figures(
    cv: pd.DataFrame,
    history: pd.DataFrame,
    scores: pd.DataFrame,
    by_horizon: pd.DataFrame,
    events: Sequence[TrainEvent],
    *,
    horizon: int,
    kind: Kind = "positive",
) -> dict[str, Figure]:
    """Return every figure of a run by its name."""
    charts = {
        "training": training_curve(events, kind=kind),
        "error_by_horizon": error_by_horizon(by_horizon),
        "coverage": coverage_chart(scores),
    }
    for i, unique_id in enumerate(sample_series(cv)):
        charts[f"fan_{i + 1}"] = fan_chart(cv, history, unique_id, horizon=horizon)
    return charts


def memory_chart(profile: MemoryProfile) -> Figure:
    """Draw how much the forecast depends on each past step, on logarithmic axes; lag 0 is at 1."""
    x = [lag + 1 for lag in profile.table["lag"]]
    traces = [
        _line(x, _positive(profile.table[name]), name, COLORS[i])
        for i, name in enumerate(("total", "filters", "network"))
    ]
    reach = "beyond the steps examined" if profile.reach is None else _steps_back(profile.reach)
    figure = _figure(
        traces,
        title=f"Memory: under 1 % from {reach}",
        x="steps back (1 = the last value)",
        y="change of the forecast per unit",
    )
    figure["layout"]["xaxis"]["type"] = "log"
    figure["layout"]["yaxis"] |= _POWERS
    return figure


def gradient_chart(profile: GradientProfile) -> Figure:
    """Draw the gradient norm of the loss by step back, one line for each layer."""
    traces = [
        _line(
            rows["back"].tolist(),
            _positive(rows["ratio"]),
            f"layer {layer}: {profile.flow[int(str(layer))]}",
            COLORS[i % 6],
        )
        for i, (layer, rows) in enumerate(profile.table.groupby("layer"))
    ]
    figure = _figure(
        traces,
        title="Gradient through time",
        x="steps back from the loss",
        y="norm (1 = at the loss)",
    )
    figure["layout"]["yaxis"] |= _POWERS
    edge = profile.chunk_length - 1
    figure["layout"]["shapes"] = [
        {
            "type": "line",
            "x0": edge,
            "x1": edge,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": "#7f8c8d", "dash": "dot", "width": 1},
            "label": {
                "text": "chunk of training",
                "textangle": 0,
                "textposition": "end",
                "xanchor": "left",
                "font": {"color": "#7f8c8d"},
            },
        }
    ]
    return figure


def carry_chart(gain: CarryGain) -> Figure:
    """Draw the MASE of each way of keeping the state."""
    bars = {
        "type": "bar",
        "x": gain.scores["way"].tolist(),
        "y": _numbers(gain.scores["mase"]),
        "marker": {"color": COLORS[0]},
        "name": "MASE",
        "texttemplate": "%{y:.3f}",
    }
    figure = _figure([bars], title="What carrying the state is worth", x="state", y="MASE")
    figure["layout"]["xaxis"]["type"] = "category"
    figure["layout"]["showlegend"] = False
    return figure


def worst_chart(errors: ErrorTables) -> Figure:
    """Draw the series with the largest errors, worst at the top, with their bias."""
    rows = errors.by_series.head(len(errors.worst)).iloc[::-1]
    bars = {
        "type": "bar",
        "orientation": "h",
        "x": _numbers(rows["mase"]),
        "y": [str(name) for name in rows["unique_id"]],
        "name": "MASE",
        "marker": {"color": COLORS[0]},
        "customdata": _numbers(rows["bias"]),
        "hovertemplate": "MASE %{x:.3f}, bias %{customdata:.1%}<extra></extra>",
    }
    figure = _figure([bars], title="Series with the largest errors", x="MASE", y="")
    figure["layout"]["hovermode"] = "closest"
    figure["layout"]["yaxis"] |= {"type": "category", "automargin": True, "ticksuffix": "  "}
    figure["layout"]["showlegend"] = False
    return figure


def attribution_chart(table: pd.DataFrame, unique_id: str) -> Figure:
    """Draw the parts of one series' forecast by step; they add up to the line."""
    rows = table[table["unique_id"] == unique_id]
    ds = _stamps(rows["ds"])
    traces: list[dict[str, Any]] = [
        {
            "type": "bar",
            "x": ds,
            "y": _numbers(rows[name]),
            "name": name,
            "marker": {"color": color},
        }
        for name, color in zip(PARTS, COLORS, strict=False)
        if rows[name].abs().max() > 0
    ]
    traces.append(_line(ds, _numbers(rows[MODEL]), MODEL, "#222222"))
    figure = _figure(traces, title=f"Parts of the forecast: {unique_id}", x="", y="")
    figure["layout"]["barmode"] = "relative"
    return figure


def sample_series(cv: pd.DataFrame, limit: int = FANS) -> list[str]:
    """Choose up to `limit` series, from large to small, evenly spaced by rank of their mean."""
    size = cv.groupby("unique_id", sort=False, observed=True)["y"].mean().sort_values()
    picks = np.unique(np.linspace(0, len(size) - 1, min(limit, len(size))).round().astype(int))
    return [str(size.index[i]) for i in reversed(picks)]


def to_html(figures: dict[str, Figure], *, title: str) -> str:
    """Return a page that holds the figures and Plotly itself, so that it loads nothing else."""
    from plotly.offline import get_plotlyjs

    charts = "\n".join(
        f'<div id="{name}" class="chart"></div>\n'
        f"<script>Plotly.newPlot({json.dumps(name)}, {_json(figure['data'])}, "
        f"{_json(figure['layout'])}, {{responsive: true, displaylogo: false}});</script>"
        for name, figure in figures.items()
    )
    title = escape(title)
    style = "body{font-family:sans-serif;margin:1rem}.chart{height:22rem;max-width:70rem}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{style}</style><script>{get_plotlyjs()}</script></head>\n"
        f"<body><h1>{title}</h1>\n{charts}\n</body></html>\n"
    )


def _figure(traces: list[dict[str, Any]], *, title: str, x: str, y: str) -> Figure:
    layout: dict[str, Any] = {
        "title": {"text": title},
        "hovermode": "x unified",
        "xaxis": {"title": {"text": x}, "gridcolor": "#eeeeee"},
        "yaxis": {"title": {"text": y}, "gridcolor": "#eeeeee"},
        "plot_bgcolor": "#ffffff",
        "margin": {"t": 50, "r": 60, "b": 70, "l": 60},
        "legend": {"orientation": "h", "y": -0.25 if x else -0.15},
        "showlegend": True,
    }
    numbers = [v for trace in traces for v in trace["y"] if isinstance(v, int | float)]
    if (
        numbers and max(map(abs, numbers)) < 0.01
    ):  # Variances read better as powers of ten than as millionths.
        layout["yaxis"] |= {"exponentformat": "power"}
    return {"data": traces, "layout": layout}


def _line(x: Sequence[Any], y: Sequence[float | None], name: str, color: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "name": name,
        "line": {"color": color, "width": 2},
    }


def _stamps(column: pd.Series) -> list[Any]:
    if pd.api.types.is_integer_dtype(column):
        return [int(stamp) for stamp in column]
    return [stamp.isoformat() for stamp in column]


def _numbers(column: pd.Series) -> list[float | None]:
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in column.to_numpy(float)]


def _steps_back(steps: int) -> str:
    return f"{steps:,} step{'' if steps == 1 else 's'} back"


def _positive(column: pd.Series) -> list[float | None]:
    """Return the numbers for a logarithmic axis, without those that are not positive."""
    return _numbers(column.where(column > 0))


def _value(scores: pd.DataFrame, metric: str, model: str) -> float | None:
    values = scores[(scores["metric"] == metric) & (scores["model"] == model)]["value"]
    return None if values.empty or not np.isfinite(values.iloc[0]) else float(values.iloc[0])


def _json(value: Any) -> str:
    """Return JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
