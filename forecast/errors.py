"""
Everything Statecast raises on purpose. `code` is stable; the text is not.

* ForecastError
  - DataError                     the series handed in cannot be used as they are
    . UnreadableSource            data.unreadable          the file or query gives no table
    . MissingColumns              data.missing_columns     a column that was named is not there
    . WrongType                   data.wrong_type          a column holds what it cannot hold
    . BadStamps                   data.bad_stamps          `ds` cannot be read, or mixes zones
    . DuplicateStamps             data.duplicate           one series has a stamp twice
    . MissingSteps                data.gap                 a series skips steps of its frequency
    . WrongFrequency              data.frequency           stamps do not follow the frequency
    . MissingValues               data.missing_values      NaN or Inf where a number must be
    . TooShort                    data.too_short           empty, or not enough observations
    . NegativeValues              data.negative            below what the kind can be
    . ConstantSeries              data.constant            every series repeats one value
    . MissingFuture               data.missing_future      known-future values end too early
    . LateValues                  data.late                observations the state has passed
  - ConfigError                   config.invalid           the settings contradict themselves
    . UnknownSetting              config.unknown_key       a key no setting has
    . ShuffledState               config.shuffled_state    shuffled time with carried state
    . OverlappingState            config.overlapping_state overlapping chunks with carried state
    . BackwardState               config.backward_state    a backward layer with carried state
  - StateError                    state.invalid            a state cannot be read
    . ForeignState                state.foreign            a state made by another model
  - UnknownSeries                 series.unknown           nothing is known of this series
  - UnseenHorizon                 forecast.horizon         more steps than a model goes on for
  - UnknownQuantile               forecast.quantile        a quantile outside what the model learned
  - BundleError                   bundle.invalid           a saved model cannot be loaded
    . DamagedBundle               bundle.damaged           a file of it is missing or altered
    . NewerBundle                 bundle.version           written by another format version
  - CheckpointError               checkpoint.invalid       a run cannot be resumed from here
  - NotFitted                     forecaster.not_fitted    predict before fit
  - ModelSourceError              registry.unavailable     the model registry cannot be reached
    . UnknownModel                model.unknown            no such model, version, alias or folder
    . NothingBefore               model.no_previous        no earlier model to go back to
  - PortInUse                     cli.port_busy            another program listens on the port
"""

import difflib
from bisect import bisect_left
from collections.abc import Sequence


class ForecastError(Exception):
    """
    Base of every error raised on purpose.

    Args:
        message: One sentence: what is wrong, expected and found.
        where: The place: file, series, first stamp. Empty when there is none.
        help: What to do about it.

    >>> print(MissingSteps("1 of 3 series skips steps", where="series 'a'", help="fill it"))
    1 of 3 series skips steps
      --> series 'a'
      help: fill it
    """

    code = "internal"

    def __init__(self, message: str, *, where: str = "", help: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.help = help

    def __str__(self) -> str:
        """Message, place and way out, each on its own line."""
        lines = [self.message]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class DataError(ForecastError):
    """The series handed in cannot be used as they are."""

    code = "data.invalid"


class UnreadableSource(DataError):
    """The file, frame or query does not give a table."""

    code = "data.unreadable"


class MissingColumns(DataError):
    """A column that was named, or that every frame needs, is not there."""

    code = "data.missing_columns"


class WrongType(DataError):
    """A column holds something it cannot hold."""

    code = "data.wrong_type"


class BadStamps(DataError):
    """Time stamps that cannot be read, or that mix time zones."""

    code = "data.bad_stamps"


class DuplicateStamps(DataError):
    """One series has a stamp more than once."""

    code = "data.duplicate"


class MissingSteps(DataError):
    """A series skips steps of its frequency."""

    code = "data.gap"


class WrongFrequency(DataError):
    """Stamps that do not follow the frequency, declared or inferred."""

    code = "data.frequency"


class MissingValues(DataError):
    """NaN or infinite where a number must be."""

    code = "data.missing_values"


class TooShort(DataError):
    """No rows, or not enough observations to learn from."""

    code = "data.too_short"


class NegativeValues(DataError):
    """Values that the kind of data forbids: below 0, or 0 where only more than 0 can be."""

    code = "data.negative"


class ConstantSeries(DataError):
    """Every series repeats one value, so there is nothing to learn."""

    code = "data.constant"


class MissingFuture(DataError):
    """Known-future covariates that do not cover every step of the horizon."""

    code = "data.missing_future"


class LateValues(DataError):
    """Observations at or before the last one a state has seen."""

    code = "data.late"


class ConfigError(ForecastError):
    """The settings contradict themselves, or ask for what cannot be."""

    code = "config.invalid"


class UnknownSetting(ConfigError):
    """A key that no setting has."""

    code = "config.unknown_key"


class ShuffledState(ConfigError):
    """Shuffled time with carried state."""

    code = "config.shuffled_state"


class OverlappingState(ConfigError):
    """Overlapping chunks with carried state."""

    code = "config.overlapping_state"


class BackwardState(ConfigError):
    """A backward layer with carried state."""

    code = "config.backward_state"


class StateError(ForecastError):
    """A state that cannot be read."""

    code = "state.invalid"


class ForeignState(StateError):
    """A state that another model made."""

    code = "state.foreign"


class UnknownSeries(ForecastError):
    """Nothing is known of this series."""

    code = "series.unknown"


class UnseenHorizon(ForecastError):
    """More steps ahead than a model goes on for: ten times what it learned."""

    code = "forecast.horizon"


class UnknownQuantile(ForecastError):
    """A quantile outside the range the model learned."""

    code = "forecast.quantile"


class BundleError(ForecastError):
    """A saved model that cannot be loaded."""

    code = "bundle.invalid"


class DamagedBundle(BundleError):
    """A file of the bundle is missing, truncated or altered."""

    code = "bundle.damaged"


class NewerBundle(BundleError):
    """A bundle written in a format this version does not read."""

    code = "bundle.version"


class CheckpointError(ForecastError):
    """A training run that cannot be resumed from this checkpoint."""

    code = "checkpoint.invalid"


class ModelSourceError(ForecastError):
    """The model registry or its store cannot be opened or reached, and no copy is at hand."""

    code = "registry.unavailable"


class UnknownModel(ModelSourceError):
    """No model has this name, version, alias or folder."""

    code = "model.unknown"


class NothingBefore(ModelSourceError):
    """A rollback was asked for, but no earlier model is known."""

    code = "model.no_previous"


class PortInUse(ForecastError):
    """Another program listens on the port."""

    code = "cli.port_busy"


class NotFitted(ForecastError):
    """A forecast was asked of a forecaster that has learned nothing yet."""

    code = "forecaster.not_fitted"


_MOST_COMPARED = 400
"""Known names compared with a misspelled one; each comparison may take 0.2 ms."""
_LONGEST = 200
"""Longest misspelled name, in characters, for which a known name is suggested."""


def nearest(name: str, names: Sequence[str], *, cutoff: float = 0.6) -> str | None:
    """
    Return the known name that is most like a misspelled one, or None if none is like it.

    Args:
        name: The name that is not known.
        names: The known names. If there are more than 400 they must be sorted: only those near
            `name` in the alphabet are compared.
        cutoff: Least similarity, from 0 to 1, as in `difflib.get_close_matches`.

    >>> nearest("stroe-7", ("store-6", "store-7")), nearest("x", ("store-7",))
    ('store-7', None)
    """
    if len(name) > _LONGEST:
        return None
    if len(names) > _MOST_COMPARED:
        at = bisect_left(names, name)
        names = names[max(0, at - _MOST_COMPARED // 2) : at + _MOST_COMPARED // 2]
    matches = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return matches[0] if matches else None
