"""The analyst's object: fit, predict, observe, cross-validate, save and load."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.config import Config, DataConfig, Fill
from forecast.data.future_covariates import check_future
from forecast.data.io import read_table, to_native
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths, kind_before
from forecast.data.validation import validate
from forecast.errors import NotFitted, UnknownSetting
from forecast.evaluation.backtest import backtest
from forecast.inference import forecasting, observing, sampling
from forecast.inference.gaps import fill_gap, last_values
from forecast.inference.output import MODEL, as_numbers, as_stamps, forecast_frame, level_quantiles
from forecast.inference.states import (
    SavedForecaster,
    States,
    initial_states,
    load_saved,
    save_saved,
)
from forecast.training.progress import TrainEvent
from forecast.training.train import train


class Forecaster(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """
    Trains one stateful network on many series and forecasts each from its live state.

    Frames are long: `unique_id`, `ds`, `y` and covariates; pandas, polars or Arrow, and what
    comes out is of the kind that went in. Columns are named as in the Nixtla libraries, so that
    `utilsforecast` evaluates and plots them as they are. Parameters follow scikit-learn:
    `sklearn.base.clone` makes an unfitted copy, and each setting of `config` has a name of its
    own for `get_params` and `set_params`, such as `config__train__max_steps`.

    Args:
        h: Steps ahead; None takes the usual horizon of the frequency.
        freq: pandas offset, integer step or exchange (`"XNYS"`); None infers it.
        config: All other settings; `h` and `freq` go before what it says. None is `Config()`.

    Attributes:
        bundle_: The trained model, after `fit`.
        states_: What it remembers of each series, one row for each of `ids_`.
        ids_: The series, in the order of `states_`.

    >>> months = pd.date_range("2015-01-01", periods=60, freq="MS")
    >>> sales = pd.DataFrame({"unique_id": "shop", "ds": months, "y": 10.0 + months.month})
    >>> config = Config.from_dict({"train": {"max_steps": 20}, "model": {"hidden_size": 8}})
    >>> forecaster = Forecaster(h=3, config=config).fit(sales)
    >>> forecaster.predict(level=[80]).columns.tolist()
    ['unique_id', 'ds', 'statecast', 'statecast-lo-80', 'statecast-hi-80']
    """

    def __init__(
        self, h: int | None = None, freq: str | int | None = None, *, config: Config | None = None
    ) -> None:
        self.h = h
        self.freq = freq
        self.config = config

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """
        `h`, `freq` and `config`; with `deep` also every setting of `config` by its own name.

        >>> Forecaster(h=3).get_params()["config__model__hidden_size"]
        64
        """
        params: dict[str, Any] = super().get_params(deep=False)
        if deep:
            config = self.config or Config()
            for part in fields(config):
                table = getattr(config, part.name)
                params |= {
                    f"config__{part.name}__{setting.name}": getattr(table, setting.name)
                    for setting in fields(table)
                }
        return params

    def set_params(self, **params: Any) -> "Forecaster":
        """
        Change parameters by the names that `get_params` gives; all of them or none.

        What was learned stays as it is until the next `fit`.

        Raises:
            UnknownSetting: A name that is no parameter.
            ConfigError: The settings contradict themselves.

        >>> Forecaster().set_params(h=3, config__model__hidden_size=8).config.model.hidden_size
        8
        """
        names = self.get_params()
        unknown = [name for name in params if name not in names]
        if unknown:
            raise UnknownSetting(
                f"{unknown[0]!r} is no parameter of a Forecaster",
                help=f"parameters: {', '.join(names)}",
            )
        config = params.get("config", self.config)
        tables: dict[str, dict[str, Any]] = {}
        for name, value in params.items():
            if name.startswith("config__"):
                _, part, setting = name.split("__", 2)
                tables.setdefault(part, {})[setting] = value
        if tables:
            config = _changed(config or Config(), tables)
        self.h, self.freq = params.get("h", self.h), params.get("freq", self.freq)
        self.config = config
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Whether `fit` or `load` gave it a model."""
        return hasattr(self, "bundle_")

    def fit(
        self,
        df: Any,
        static_df: Any = None,
        *,
        val_size: int | None = None,
        fill: Fill | None = None,
        id_col: str | None = None,
        time_col: str | None = None,
        target_col: str | None = None,
        on_event: Callable[[TrainEvent], None] | None = None,
    ) -> "Forecaster":
        """
        Learn from all of `df` and remember where each series stands.

        Args:
            df: Long frame of the history.
            static_df: One row a series: the id column and the static covariates.
            val_size: Last steps of each series kept from learning; see `TrainConfig`.
            fill: What a missing step means; see `DataConfig`.
            id_col: Name of the column with the series' names.
            time_col: Name of the column with the stamps.
            target_col: Name of the column with the values.
            on_event: Called about a hundred times with the progress.

        Raises:
            DataError: The data cannot be used as they are.
            ConfigError: The settings contradict themselves.
        """
        config = self._config(id_col=id_col, time_col=time_col, target_col=target_col, fill=fill)
        if val_size is not None:
            config = replace(config, train=replace(config.train, val_size=val_size))
        panel, config = _read(df, static_df, config)
        self._like = _like(df, config.data)
        trained = train(panel, config, on_event=on_event)
        self.bundle_, self.history_ = trained.bundle, trained.history
        self.ids_ = panel.ids
        self.states_ = observing.warm_up(trained.bundle, panel)
        return self

    def predict(
        self,
        h: int | None = None,
        level: float | int | Sequence[float | int] | None = None,
        quantiles: float | int | Sequence[float | int] | None = None,
        futr_df: Any = None,
    ) -> Any:
        """
        Forecast every series from where its state stands. Pure: nothing is remembered of it.

        Args:
            h: Steps ahead, up to ten times the trained horizon, which is the default.
            level: Central intervals in percent: 80 gives `statecast-lo-80`, `statecast-hi-80`.
            quantiles: Fractions: 0.9 gives `statecast_ql0.9`.
            futr_df: Known-future covariates of each series and step, if the model has any.

        Raises:
            NotFitted: Before `fit` or `load`.
            UnseenHorizon, UnknownQuantile: The model did not learn what was asked.
            MissingFuture: `futr_df` does not cover every series and step.
        """
        bundle, states = self._fitted()
        forecasting.check_horizon(bundle, horizon := bundle.horizon if h is None else h)
        levels, asked = as_numbers(level), as_numbers(quantiles)
        outputs = forecasting.forecast(
            bundle,
            states,
            horizon=horizon,
            quantiles=(*level_quantiles(levels), *asked),
            known_future=check_future(
                futr_df,
                ids=self.ids_,
                last_ds=states.last_ds,
                horizon=horizon,
                calendar=bundle.calendar,
                columns=bundle.config.data.known_future,
                data=bundle.config.data,
            ),
        )
        ds = bundle.calendar.after(states.last_ds, horizon)
        frame = forecast_frame(self.ids_, ds, outputs, levels, bundle.calendar)
        for i, quantile in enumerate(asked):
            frame[f"{MODEL}_ql{quantile:g}"] = outputs[..., 1 + 2 * len(levels) + i].ravel()
        return _native(frame, bundle.config.data, self._like)

    def sample(
        self, paths: int = 100, h: int | None = None, futr_df: Any = None, *, seed: int = 0
    ) -> Any:
        """
        Draw sample paths of every series, whose sums over steps have quantiles of their own.

        Args:
            paths: How many a series.
            h: Steps ahead; None takes the trained horizon.
            futr_df: Known-future covariates of each series and step, if the model has any.
            seed: Of the draws; the same gives the same paths.

        Returns:
            Columns unique_id, sample (from 0), ds, statecast.

        Raises:
            NotFitted: Before `fit` or `load`.
        """
        bundle, states = self._fitted()
        forecasting.check_horizon(bundle, horizon := bundle.horizon if h is None else h)
        drawn = sampling.sample(
            bundle,
            states,
            paths=paths,
            seed=seed,
            horizon=horizon,
            known_future=check_future(
                futr_df,
                ids=self.ids_,
                last_ds=states.last_ds,
                horizon=horizon,
                calendar=bundle.calendar,
                columns=bundle.config.data.known_future,
                data=bundle.config.data,
            ),
        )
        series, number = drawn.shape[:2]
        ds = bundle.calendar.after(states.last_ds, horizon)
        frame = pd.DataFrame(
            {
                "unique_id": np.repeat(np.asarray(self.ids_, dtype=object), number * horizon),
                "sample": np.tile(np.repeat(np.arange(number), horizon), series),
                "ds": as_stamps(np.repeat(ds[:, None], number, axis=1).ravel(), bundle.calendar),
                MODEL: drawn.ravel(),
            }
        )
        return _native(frame, bundle.config.data, self._like)

    def observe(self, df: Any, static_df: Any = None) -> "Forecaster":
        """
        Commit new observations: one recurrent step each; weights stay as they are.

        Series not seen before begin cold. Steps without a row or a value are what `fill` makes of
        them, also those before the first new row. Nothing is committed when anything is refused.

        Raises:
            LateValues: A series begins at or before the last step it has.
            MissingSteps: A series does not go on where it stopped, and `fill` is `refuse`.
        """
        bundle, states = self._fitted()
        config = bundle.config
        if static_df is None and not {*config.data.static} <= {*read_table(df).columns}:
            config = replace(config, data=replace(config.data, static=()))
        last = dict(zip(self.ids_, last_values(bundle, states).tolist(), strict=True))
        panel, _ = _read(df, static_df, config, to_learn=False, last=last)
        new = tuple(name for name in panel.ids if name not in last)
        if new:
            static = bundle.spec.static.encode(panel.static, new)
            states = States.concat([states, initial_states(bundle, len(new), static)])
        ids = (*self.ids_, *new)
        rows = pd.Index(ids).get_indexer(pd.Index(panel.ids))
        there = states.take(rows)
        stands = np.where(there.count > 0, there.last_ds, panel.ds[panel.indptr[:-1]])
        value = np.array([last.get(name, 0.0) for name in panel.ids])
        moved = observing.observe(bundle, there, fill_gap(bundle, panel, stands, value))
        self.ids_, self.states_ = ids, states.put(rows, moved)
        return self

    def cross_validation(
        self,
        df: Any,
        static_df: Any = None,
        *,
        n_windows: int = 1,
        step_size: int = 1,
        h: int | None = None,
        refit: bool = False,
        level: float | int | Sequence[float | int] | None = None,
        id_col: str | None = None,
        time_col: str | None = None,
        target_col: str | None = None,
        on_event: Callable[[TrainEvent], None] | None = None,
    ) -> Any:
        """
        Train on what precedes the first cutoff and forecast from each cutoff in one pass.

        Cutoffs count back from each series' own end. Every scaler, weight and calibration sees only
        what precedes them, and so does the kind of the values where none is declared. The
        forecaster is left as it was. With `refit`, a network is trained anew for each cutoff.

        Returns:
            Columns unique_id, ds, cutoff, y, statecast, and two for each level.
        """
        config = self._config(id_col=id_col, time_col=time_col, target_col=target_col)
        panel, config = _read(df, static_df, config)
        like = _like(df, config.data)
        if h is not None:
            config = replace(config, model=replace(config.model, horizon=h))
        assert config.data.freq is not None
        horizon = config.model.horizon or Calendar(config.data.freq).default_horizon
        config = replace(config, model=replace(config.model, horizon=horizon))
        known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
        if (self.config or Config()).data.kind == "auto":
            config = replace(config, data=replace(config.data, kind=kind_before(panel, known[0])))
        groups = known if refit else known[:1]
        frames = []
        for i, lengths in enumerate(groups):
            bundle = train(panel.head(lengths), config, on_event=on_event).bundle
            seen = panel.head(known[i if refit else -1] + horizon)
            frames.append(
                backtest(
                    bundle,
                    seen,
                    horizon=horizon,
                    n_windows=1 if refit else n_windows,
                    step_size=step_size,
                    levels=as_numbers(level),
                )
            )
        return _native(pd.concat(frames, ignore_index=True), config.data, like)

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """Write model and states as one directory; a bundle in itself, no history needed."""
        bundle, states = self._fitted()
        live = SavedForecaster(bundle, states, self.ids_, integer_ids=self._like[1])
        save_saved(live, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: Path | str) -> "Forecaster":
        """Read what `save` wrote; raises `BundleError` and its kin."""
        live = load_saved(Path(path))
        made = cls(h=live.bundle.horizon, freq=live.bundle.calendar.freq, config=live.bundle.config)
        made.bundle_, made.states_, made.ids_ = live.bundle, live.states, live.ids
        made._like = pd.DataFrame(), live.integer_ids
        return made

    def __repr__(self) -> str:
        """Settings, and what it has learned from."""
        if not self.__sklearn_is_fitted__():
            return f"Forecaster(h={self.h}, freq={self.freq!r}), not fitted"
        model = self.bundle_.config.model
        return (
            f"Forecaster(h={self.bundle_.horizon}, freq={self.bundle_.calendar.freq!r}): "
            f"{model.cell}-{model.hidden_size}, {len(self.ids_)} series, "
            f"model {self.bundle_.digest[:12]}"
        )

    def _config(self, **columns: Any) -> Config:
        given = {name: value for name, value in columns.items() if value is not None}
        if self.freq is not None:
            given["freq"] = self.freq
        config = self.config or Config()
        model = config.model if self.h is None else replace(config.model, horizon=_plain(self.h))
        return replace(config, data=replace(config.data, **given), model=model)

    def _fitted(self) -> tuple[Bundle, States]:
        if not self.__sklearn_is_fitted__():
            raise NotFitted("this forecaster has not learned anything yet", help="call fit first")
        return self.bundle_, self.states_


def _like(df: Any, data: DataConfig) -> tuple[Any, bool]:
    """Of which kind a frame is, and whether its series are numbered: answers are in kind."""
    return df, pd.api.types.is_integer_dtype(read_table(df, data=data)[data.id_col])


def _native(frame: pd.DataFrame, data: DataConfig, like: tuple[Any, bool]) -> Any:
    if like[1] and frame["unique_id"].astype(str).str.fullmatch(r"0|-?[1-9]\d{0,17}").all():
        frame["unique_id"] = frame["unique_id"].astype(np.int64)
    names = {"unique_id": data.id_col, "ds": data.time_col, "y": data.target_col}
    return to_native(frame.rename(columns=names), like[0])


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value  # JSON knows no NumPy


def _changed(config: Config, tables: Mapping[str, Mapping[str, Any]]) -> Config:
    """Some settings changed; each table is put together anew, so that its checks run."""
    parts = {}
    for part, given in tables.items():
        plain = {name: _plain(value) for name, value in given.items()}
        parts[part] = replace(getattr(config, part), **plain)
    return replace(config, **parts)


def _read(
    df: Any,
    static_df: Any,
    config: Config,
    *,
    to_learn: bool = True,
    last: Mapping[str, float] | None = None,
) -> tuple[Panel, Config]:
    """Check a frame; also return the settings with frequency, kind and static columns known."""
    series = validate(df, config.data, static_df=static_df, to_learn=to_learn, last=last)
    return Panel.from_frame(series), replace(config, data=series.data)
