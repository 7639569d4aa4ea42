"""Figures and tables of a run, as plain values: what MLflow shows beside the numbers."""

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
"""A Plotly figure as JSON knows it: `data` and `layout`."""
FANS = 6
COLORS = ("#1f6f8b", "#c0504d", "#7f8c8d", "#8e6c3a", "#5b7f3b", "#7d5ba6")
LOSSES: dict[Kind, str] = {"count": "Poisson deviance / mean", "volatility": "QLIKE"}
"""What the loss of a kind counts, where it is not relative to the seasonal naive."""
_POWERS = {"type": "log", "exponentformat": "power"}
_MAX_HISTORY = 200


def fan_chart(cv: pd.DataFrame, history: pd.DataFrame, unique_id: str, *, horizon: int) -> Figure:
    """What one series did, and the forecasts from the last cutoff with their intervals."""
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
    """MASE at each step ahead, one line a model."""
    mase = scores[scores["metric"] == "mase"]
    traces = [
        _line(rows["horizon"].tolist(), _numbers(rows["value"]), str(model), COLORS[i % 6])
        for i, (model, rows) in enumerate(mase.groupby("model", sort=False))
    ]
    figure = _figure(traces, title="Error by step ahead", x="steps ahead", y="MASE")
    figure["layout"]["yaxis"]["type"] = "log"
    return figure


def coverage_chart(scores: pd.DataFrame, levels: Sequence[int] = LEVELS) -> Figure:
    """Share of values inside each interval, beside the share there should be."""
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
    """Loss, mean loss of each epoch, and gradient norm by step; the unit is that of the kind."""
    steps = [event.step for event in history]
    loss = _line(steps, [event.loss for event in history], "loss", COLORS[0])
    ended = [event for event in history if event.epoch_loss is not None]
    at, values = [event.step for event in ended], [event.epoch_loss for event in ended]
    traces = [{**loss, "opacity": 0.35}, _line(at, values, "loss of the epoch", COLORS[0])]
    checked = [event for event in history if event.val_loss is not None]
    if checked:
        at, values = [e.step for e in checked], [e.val_loss for e in checked]
        traces.append(_line(at, values, "validation loss", COLORS[1]))
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
    """Every figure of a run by its name."""
    made = {
        "training": training_curve(events, kind=kind),
        "error_by_horizon": error_by_horizon(by_horizon),
        "coverage": coverage_chart(scores),
    }
    for i, unique_id in enumerate(some_series(cv)):
        made[f"fan_{i + 1}"] = fan_chart(cv, history, unique_id, horizon=horizon)
    return made


def memory_chart(found: MemoryProfile) -> Figure:
    """Dependence of the forecast on each past step, both axes logarithmic; lag 0 stands at 1."""
    at = [lag + 1 for lag in found.table["lag"]]
    traces = [
        _line(at, _positive(found.table[name]), name, COLORS[i])
        for i, name in enumerate(("total", "filters", "network"))
    ]
    far = "beyond what was looked at" if found.reach is None else _back(found.reach)
    figure = _figure(
        traces,
        title=f"Memory: under 1 % from {far}",
        x="steps back (1 = the last value)",
        y="change of the forecast per unit",
    )
    figure["layout"]["xaxis"]["type"] = "log"
    figure["layout"]["yaxis"] |= _POWERS
    return figure


def gradient_chart(found: GradientProfile) -> Figure:
    """Gradient norm of the loss by step back, a line a layer; the chunk's end is marked."""
    traces = [
        _line(
            rows["back"].tolist(),
            _positive(rows["ratio"]),
            f"layer {layer}: {found.flow[int(str(layer))]}",
            COLORS[i % 6],
        )
        for i, (layer, rows) in enumerate(found.table.groupby("layer"))
    ]
    figure = _figure(
        traces,
        title="Gradient through time",
        x="steps back from the loss",
        y="norm (1 = at the loss)",
    )
    figure["layout"]["yaxis"] |= _POWERS
    edge = found.chunk_length - 1
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


def carry_chart(found: CarryGain) -> Figure:
    """MASE of each way of keeping the state."""
    bars = {
        "type": "bar",
        "x": found.scores["way"].tolist(),
        "y": _numbers(found.scores["mase"]),
        "marker": {"color": COLORS[0]},
        "name": "MASE",
        "texttemplate": "%{y:.3f}",
    }
    figure = _figure([bars], title="What carrying the state is worth", x="state", y="MASE")
    figure["layout"]["xaxis"]["type"] = "category"
    figure["layout"]["showlegend"] = False
    return figure


def worst_chart(found: ErrorTables) -> Figure:
    """The series with the largest errors, worst at the top, with their bias."""
    rows = found.by_series.head(len(found.worst)).iloc[::-1]
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
    """What the forecast of one series is made of, by step: the parts add up to the line."""
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


def some_series(cv: pd.DataFrame, limit: int = FANS) -> list[str]:
    """A few series from large to small, evenly spaced by their mean."""
    size = cv.groupby("unique_id", sort=False, observed=True)["y"].mean().sort_values()
    picks = np.unique(np.linspace(0, len(size) - 1, min(limit, len(size))).round().astype(int))
    return [str(size.index[i]) for i in reversed(picks)]


def to_html(figures: dict[str, Figure], *, title: str) -> str:
    """One page that holds its figures and Plotly itself: it asks no other host for anything."""
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
    if numbers and max(map(abs, numbers)) < 0.01:  # variances: powers of ten, not millionths
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


def _back(steps: int) -> str:
    return f"{steps:,} step{'' if steps == 1 else 's'} back"


def _positive(column: pd.Series) -> list[float | None]:
    """For a logarithmic axis, which has no place for 0."""
    return _numbers(column.where(column > 0))


def _value(scores: pd.DataFrame, metric: str, model: str) -> float | None:
    found = scores[(scores["metric"] == metric) & (scores["model"] == model)]["value"]
    return None if found.empty or not np.isfinite(found.iloc[0]) else float(found.iloc[0])


def _json(value: Any) -> str:
    """JSON that may stand inside a script element."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")
