"""The object for use from Python: fit, predict, observe, cross-validate, save and load."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.base import BaseEstimator

from forecast.bundle import Bundle
from forecast.calendars.calendar import Calendar
from forecast.config import Config, Fill
from forecast.data.future_covariates import check_future
from forecast.data.io import read_table
from forecast.data.panel import Panel
from forecast.data.splits import cutoff_lengths, kind_before
from forecast.data.validation import validate
from forecast.errors import NotFitted, UnknownSetting
from forecast.evaluation.backtest import train_and_backtest
from forecast.inference import forecasting, observing, output, sampling
from forecast.inference.gaps import fill_gap, last_values
from forecast.inference.saved_forecaster import SavedForecaster, load_forecaster, save_forecaster
from forecast.inference.states import States, initial_states
from forecast.parameters import PREFIX, nested_parameters, replace_nested, to_python
from forecast.training.progress import TrainEvent
from forecast.training.train import train


class Forecaster(BaseEstimator):  # type: ignore[misc]  # scikit-learn ships no types
    """
    Trains one stateful network on many series and forecasts each of them from its live state.

    Tables are long: `unique_id`, `ds`, `y` and covariates, in pandas, polars or Arrow; forecasts
    come in the library of the table that `fit` was given. Columns are named as in the Nixtla
    libraries, so that `utilsforecast` evaluates and plots them as they are. Parameters follow
    scikit-learn: `sklearn.base.clone` makes an unfitted copy, and `get_params` and `set_params`
    name each setting of `config`, such as `config__train__max_steps`.

    Args:
        h: Steps ahead; None takes the usual horizon of the frequency.
        freq: pandas offset, integer step or exchange (`"XNYS"`); None infers it.
        config: All other settings; `h` and `freq` override it. None is `Config()`.

    Attributes:
        bundle_: The trained model, after `fit`.
        history_: Progress reports of the training, after `fit`.
        states_: What the model remembers of each series, one row for each of `ids_`.
        ids_: Names of the series, in the order of `states_`.

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
        Return `h`, `freq` and `config`; with `deep` also every setting of `config` by its name.

        >>> Forecaster(h=3).get_params()["config__model__hidden_size"]
        64
        """
        params: dict[str, Any] = super().get_params(deep=False)
        return params | nested_parameters(self.config or Config()) if deep else params

    def set_params(self, **params: Any) -> "Forecaster":
        """
        Change parameters, named as in `get_params`: all of them or, after an error, none.

        A fitted model stays as it is until the next `fit`.

        Raises:
            UnknownSetting: A name is not a parameter.
            ConfigError: The settings contradict themselves.

        >>> Forecaster().set_params(h=3, config__model__hidden_size=8).config.model.hidden_size
        8
        """
        names = self.get_params()
        unknown = [name for name in params if name not in names]
        if unknown:
            raise UnknownSetting(
                f"{unknown[0]!r} is not a parameter of a Forecaster",
                help=f"parameters: {', '.join(names)}",
            )
        config = params.get("config", self.config)
        nested = {name: value for name, value in params.items() if name.startswith(PREFIX)}
        if nested:
            config = replace_nested(config or Config(), nested)
        self.h, self.freq = params.get("h", self.h), params.get("freq", self.freq)
        self.config = config
        return self

    def __sklearn_is_fitted__(self) -> bool:
        """Return True once `fit` or `load` has given it a model."""
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
        Train on all of `df` and bring the state of each series to its last row.

        Args:
            df: Long table of the history.
            static_df: One row a series: the id column and the static covariates.
            val_size: Last steps of each series held out for validation; see `TrainConfig`.
            fill: What a missing step means; see `DataConfig`.
            id_col: Column with the names of the series.
            time_col: Column with the time stamps.
            target_col: Column with the values.
            on_event: Called with a progress report about a hundred times.

        Raises:
            DataError: The data cannot be used as they are.
            ConfigError: The settings contradict themselves.
        """
        config = self._config(id_col=id_col, time_col=time_col, target_col=target_col, fill=fill)
        if val_size is not None:
            config = replace(config, train=replace(config.train, val_size=val_size))
        checked = validate(df, config.data, static_df=static_df)
        panel, config = Panel.from_frame(checked), replace(config, data=checked.data)
        self._form = output.TableForm.of(df, config.data)
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
        Forecast every series from its state, which stays as it is.

        Args:
            h: Steps ahead, up to ten times the trained horizon, which is the default.
            level: Central intervals in percent: 80 gives `statecast-lo-80`, `statecast-hi-80`.
            quantiles: Fractions: 0.9 gives `statecast_ql0.9`.
            futr_df: Known-future covariates of each series and step, if the model has any.

        Returns:
            Columns unique_id, ds, statecast, then two for each level and one for each quantile.

        Raises:
            NotFitted: Before `fit` or `load`.
            UnseenHorizon, UnknownQuantile: Outside what the model learned.
            MissingFuture: `futr_df` does not cover every series and step.
        """
        bundle, states = self._fitted()
        forecasting.check_horizon(bundle, horizon := bundle.horizon if h is None else h)
        levels, fractions = output.as_numbers(level), output.as_numbers(quantiles)
        outputs = forecasting.forecast(
            bundle,
            states,
            horizon=horizon,
            quantiles=(*output.level_quantiles(levels), *fractions),
            known_future=self._known_future(futr_df, horizon),
        )
        ds = bundle.calendar.after(states.last_ds, horizon)
        frame = output.forecast_frame(
            self.ids_, ds, outputs, levels, bundle.calendar, quantiles=fractions
        )
        return self._form.apply(frame, bundle.config.data)

    def sample(
        self, paths: int = 100, h: int | None = None, futr_df: Any = None, *, seed: int = 0
    ) -> Any:
        """
        Draw sample paths of every series, for quantiles of sums over steps.

        Args:
            paths: Number of paths a series, at most 10,000.
            h: Steps ahead; None takes the trained horizon.
            futr_df: Known-future covariates of each series and step, if the model has any.
            seed: Seed of the random numbers; equal seeds give equal paths.

        Returns:
            Columns unique_id, sample (from 0), ds, statecast.

        Raises:
            NotFitted: Before `fit` or `load`.
            ConfigError: No path, or more than 10,000.
        """
        bundle, states = self._fitted()
        forecasting.check_horizon(bundle, horizon := bundle.horizon if h is None else h)
        known_future = self._known_future(futr_df, horizon)
        values = sampling.sample(
            bundle, states, paths=paths, seed=seed, horizon=horizon, known_future=known_future
        )
        ds = bundle.calendar.after(states.last_ds, horizon)
        frame = output.sample_frame(self.ids_, ds, values, bundle.calendar)
        return self._form.apply(frame, bundle.config.data)

    def observe(self, df: Any, static_df: Any = None) -> "Forecaster":
        """
        Commit new observations: one recurrent step for each, without training.

        A series that the model has not seen before begins with an empty state. Steps without a row
        or a value, also those before the first new row, become what `fill` makes of them. If
        anything is refused, no state moves.

        Raises:
            NotFitted: Before `fit` or `load`.
            LateValues: A series begins at or before the last step that its state has seen.
            MissingSteps: A series leaves a gap after its state, and `fill` is `refuse`.
        """
        bundle, states = self._fitted()
        config = bundle.config
        if static_df is None and not {*config.data.static} <= {*read_table(df).columns}:
            config = replace(config, data=replace(config.data, static=()))
        last = dict(zip(self.ids_, last_values(bundle, states).tolist(), strict=True))
        checked = validate(df, config.data, static_df=static_df, to_learn=False, last=last)
        panel = Panel.from_frame(checked)
        new_ids = tuple(name for name in panel.ids if name not in last)
        if new_ids:
            static = bundle.spec.static.encode(panel.static, new_ids)
            states = States.concat([states, initial_states(bundle, len(new_ids), static)])
        ids = (*self.ids_, *new_ids)
        rows = pd.Index(ids).get_indexer(pd.Index(panel.ids))
        before = states.take(rows)
        last_ds = np.where(before.count > 0, before.last_ds, panel.ds[panel.indptr[:-1]])
        values = np.array([last.get(name, 0.0) for name in panel.ids])
        after = observing.observe(bundle, before, fill_gap(bundle, panel, last_ds, values))
        self.ids_, self.states_ = ids, states.put(rows, after)
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
        Train on what precedes the first cutoff and forecast from every cutoff in one pass.

        Cutoffs are counted back from the end of each series. Scalers, weights, calibration and,
        unless it is declared, the kind of the values see only what precedes the cutoff. The
        forecaster itself does not change.

        Args:
            df: Long table of the history.
            static_df: One row a series: the id column and the static covariates.
            n_windows: Number of cutoffs.
            step_size: Steps from one cutoff to the next.
            h: Steps ahead; None takes the forecaster's `h`.
            refit: Train a new network for each cutoff instead of one for all.
            level: Central intervals in percent.
            id_col: Column with the names of the series.
            time_col: Column with the time stamps.
            target_col: Column with the values.
            on_event: Called with a progress report about a hundred times a training.

        Returns:
            Columns unique_id, ds, cutoff, y, statecast, and two for each level.

        Raises:
            DataError: The data cannot be used as they are.
            ConfigError: The settings contradict themselves.
        """
        config = self._config(id_col=id_col, time_col=time_col, target_col=target_col)
        checked = validate(df, config.data, static_df=static_df)
        panel, config = Panel.from_frame(checked), replace(config, data=checked.data)
        form = output.TableForm.of(df, config.data)
        if h is not None:
            config = replace(config, model=replace(config.model, horizon=h))
        assert config.data.freq is not None
        horizon = config.model.horizon or Calendar(config.data.freq).default_horizon
        config = replace(config, model=replace(config.model, horizon=horizon))
        known = cutoff_lengths(panel, horizon=horizon, n_windows=n_windows, step_size=step_size)
        if (self.config or Config()).data.kind == "auto":
            config = replace(config, data=replace(config.data, kind=kind_before(panel, known[0])))
        cv = train_and_backtest(
            panel,
            config,
            horizon=horizon,
            n_windows=n_windows,
            step_size=step_size,
            levels=output.as_numbers(level),
            refit=refit,
            on_event=on_event,
        )
        return form.apply(cv, config.data)

    def save(self, path: Path | str, *, overwrite: bool = False) -> None:
        """
        Write the model and the states as one directory, which is a bundle; no history is needed.

        Raises:
            NotFitted: Before `fit` or `load`.
            BundleError: The directory exists, and `overwrite` is False.
        """
        bundle, states = self._fitted()
        saved = SavedForecaster(bundle, states, self.ids_, self._form.integer_ids)
        save_forecaster(saved, Path(path), overwrite=overwrite)

    @classmethod
    def load(cls, path: Path | str) -> "Forecaster":
        """
        Read a directory that `save` wrote.

        Raises:
            NotFitted: The directory holds a model without states.
            BundleError: The directory cannot be read, is damaged or of a newer format.
        """
        saved = load_forecaster(Path(path))
        bundle = saved.bundle
        forecaster = cls(h=bundle.horizon, freq=bundle.calendar.freq, config=bundle.config)
        forecaster.bundle_, forecaster.states_ = bundle, saved.states
        forecaster.ids_ = saved.ids
        forecaster._form = output.TableForm(pd.DataFrame(), saved.integer_ids)
        return forecaster

    def __repr__(self) -> str:
        """Return the settings and, once fitted, the kind of network, the series and the digest."""
        if not self.__sklearn_is_fitted__():
            return f"Forecaster(h={self.h}, freq={self.freq!r}), not fitted"
        model = self.bundle_.config.model
        return (
            f"Forecaster(h={self.bundle_.horizon}, freq={self.bundle_.calendar.freq!r}): "
            f"{model.cell}-{model.hidden_size}, {len(self.ids_)} series, "
            f"model {self.bundle_.digest[:12]}"
        )

    def _config(self, **columns: Any) -> Config:
        """Return `config` with `h`, `freq` and the arguments that are not None put in."""
        data = {name: value for name, value in columns.items() if value is not None}
        if self.freq is not None:
            data["freq"] = self.freq
        config = self.config or Config()
        model = config.model
        if self.h is not None:
            model = replace(model, horizon=to_python(self.h))
        return replace(config, data=replace(config.data, **data), model=model)

    def _fitted(self) -> tuple[Bundle, States]:
        if not self.__sklearn_is_fitted__():
            raise NotFitted("this forecaster has not learned anything yet", help="call fit first")
        return self.bundle_, self.states_

    def _known_future(
        self, futr_df: Any, horizon: int
    ) -> Float[np.ndarray, "series horizon known"]:
        """Check the known-future covariates of the next `horizon` steps."""
        bundle, states = self._fitted()
        return check_future(
            futr_df,
            ids=self.ids_,
            last_ds=states.last_ds,
            horizon=horizon,
            calendar=bundle.calendar,
            columns=bundle.config.data.known_future,
            data=bundle.config.data,
        )
