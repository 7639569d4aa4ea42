"""
Errors that Statecast raises on purpose. The `code` of an error is stable; its text is not.

* ForecastError
  - DataError                     the given series cannot be used as they are
    . UnreadableSource            data.unreadable          the file or query is not a table
    . MissingColumns              data.missing_columns     a named column is missing
    . WrongType                   data.wrong_type          a column holds values of a wrong type
    . BadStamps                   data.bad_stamps          stamps cannot be read, or mix time zones
    . DuplicateStamps             data.duplicate           one series has a stamp twice
    . MissingSteps                data.gap                 a series skips steps of its frequency
    . WrongFrequency              data.frequency           stamps do not follow the frequency
    . MissingValues               data.missing_values      NaN or Inf where a number must be
    . TooShort                    data.too_short           empty, or not enough observations
    . NegativeValues              data.negative            a value that the kind does not allow
    . ConstantSeries              data.constant            every series repeats one value
    . MissingFuture               data.missing_future      known-future covariates are missing
    . LateValues                  data.late                observations before the end of a state
  - ConfigError                   config.invalid           the settings contradict each other
    . UnknownSetting              config.unknown_key       an unknown setting
    . ShuffledState               config.shuffled_state    shuffled time with carried state
    . OverlappingState            config.overlapping_state overlapping chunks with carried state
    . BackwardState               config.backward_state    a backward layer with carried state
  - StateError                    state.invalid            a state cannot be read
    . ForeignState                state.foreign            a state made by another model
  - UnknownSeries                 series.unknown           nothing is known about this series
  - UnseenHorizon                 forecast.horizon         more steps than the model can forecast
  - UnknownQuantile               forecast.quantile        a quantile outside the learned range
  - BundleError                   bundle.invalid           a saved model cannot be loaded
    . DamagedBundle               bundle.damaged           a file is missing or altered
    . NewerBundle                 bundle.version           written in another format version
  - CheckpointError               checkpoint.invalid       a run cannot be resumed from it
  - NotFitted                     forecaster.not_fitted    predict before fit
  - ModelSourceError              registry.unavailable     the model registry cannot be reached
    . UnknownModel                model.unknown            no such model, version, alias or folder
    . NothingBefore               model.no_previous        no earlier model to roll back to
  - PortInUse                     cli.port_busy            another program listens on the port
"""

import difflib
from bisect import bisect_left
from collections.abc import Sequence


class ForecastError(Exception):
    """
    Base of every error raised on purpose.

    Args:
        message: One sentence that says what is wrong, what was expected and what was found.
        where: The place: file, series or first stamp. Empty if there is none.
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
        """Return message, place and help, each on its own line."""
        lines = [self.message]
        if self.where:
            lines.append(f"  --> {self.where}")
        if self.help:
            lines.append(f"  help: {self.help}")
        return "\n".join(lines)


class DataError(ForecastError):
    """The given series cannot be used as they are."""

    code = "data.invalid"


class UnreadableSource(DataError):
    """The file, object or query is not a table."""

    code = "data.unreadable"


class MissingColumns(DataError):
    """A column that is named in the settings, or always needed, is missing."""

    code = "data.missing_columns"


class WrongType(DataError):
    """A column holds values of a wrong type."""

    code = "data.wrong_type"


class BadStamps(DataError):
    """Time stamps cannot be read, or mix time zones."""

    code = "data.bad_stamps"


class DuplicateStamps(DataError):
    """One series has a stamp more than once."""

    code = "data.duplicate"


class MissingSteps(DataError):
    """A series skips steps of its frequency."""

    code = "data.gap"


class WrongFrequency(DataError):
    """Stamps do not follow the declared or inferred frequency."""

    code = "data.frequency"


class MissingValues(DataError):
    """A value is NaN or infinite where a number is required."""

    code = "data.missing_values"


class TooShort(DataError):
    """There are no rows, or not enough observations to learn from."""

    code = "data.too_short"


class NegativeValues(DataError):
    """A value is negative, or 0, and the kind of the data does not allow it."""

    code = "data.negative"


class ConstantSeries(DataError):
    """Every series repeats one value, so there is nothing to learn."""

    code = "data.constant"


class MissingFuture(DataError):
    """Known-future covariates do not cover every step of the horizon."""

    code = "data.missing_future"


class LateValues(DataError):
    """Observations lie at or before the last step that a state has seen."""

    code = "data.late"


class ConfigError(ForecastError):
    """The settings contradict each other, or ask for something impossible."""

    code = "config.invalid"


class UnknownSetting(ConfigError):
    """A key is not the name of a setting."""

    code = "config.unknown_key"


class ShuffledState(ConfigError):
    """Time is shuffled although state is carried."""

    code = "config.shuffled_state"


class OverlappingState(ConfigError):
    """Chunks overlap, or leave gaps, although state is carried."""

    code = "config.overlapping_state"


class BackwardState(ConfigError):
    """A layer reads backward although state is carried."""

    code = "config.backward_state"


class StateError(ForecastError):
    """A state cannot be read."""

    code = "state.invalid"


class ForeignState(StateError):
    """A state was made by another model."""

    code = "state.foreign"


class UnknownSeries(ForecastError):
    """Nothing is known about this series."""

    code = "series.unknown"


class UnseenHorizon(ForecastError):
    """The horizon is more than ten times the one that the model learned."""

    code = "forecast.horizon"


class UnknownQuantile(ForecastError):
    """A quantile lies outside the range that the model learned."""

    code = "forecast.quantile"


class BundleError(ForecastError):
    """A saved model cannot be loaded."""

    code = "bundle.invalid"


class DamagedBundle(BundleError):
    """A file of the bundle is missing, truncated or altered."""

    code = "bundle.damaged"


class NewerBundle(BundleError):
    """A bundle was written in a format that this version does not read."""

    code = "bundle.version"


class CheckpointError(ForecastError):
    """A training run cannot be resumed from this checkpoint."""

    code = "checkpoint.invalid"


class ModelSourceError(ForecastError):
    """The model registry or its store cannot be reached, and there is no local copy."""

    code = "registry.unavailable"


class UnknownModel(ModelSourceError):
    """No model has this name, version, alias or folder."""

    code = "model.unknown"


class NothingBefore(ModelSourceError):
    """A rollback was requested, but no earlier model is known."""

    code = "model.no_previous"


class PortInUse(ForecastError):
    """Another program listens on the port."""

    code = "cli.port_busy"


class NotFitted(ForecastError):
    """A forecaster was asked for a forecast before it was fitted."""

    code = "forecaster.not_fitted"


_MOST_COMPARED = 400
"""Most known names that are compared with a misspelled one, at up to 0.2 ms each."""
_LONGEST = 200
"""Longest misspelled name, in characters, for which a known name is suggested."""


def nearest(name: str, names: Sequence[str], *, cutoff: float = 0.6) -> str | None:
    """
    Return the known name that is most similar to a misspelled one, or None.

    Args:
        name: The unknown name.
        names: The known names. If there are more than 400, they must be sorted: only those near
            `name` in the alphabet are compared.
        cutoff: Smallest similarity, from 0 to 1, as in `difflib.get_close_matches`.

    >>> nearest("stroe-7", ("store-6", "store-7")), nearest("x", ("store-7",))
    ('store-7', None)
    """
    if len(name) > _LONGEST:
        return None
    if len(names) > _MOST_COMPARED:
        position = bisect_left(names, name)
        half = _MOST_COMPARED // 2
        names = names[max(0, position - half) : position + half]
    matches = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return matches[0] if matches else None
