"""
Errors that only the service raises. Like all errors they have a stable `code`.

* ForecastError
  - RequestError                  request.invalid          the request cannot be served as it is
    . RequestTooLarge             request.too_large        more bytes, series or rows than allowed
    . Unauthorized                request.unauthorized     no API key, or an unknown one
    . WrongHost                   request.host             a Host header this server does not serve
    . Abandoned                   request.abandoned        the client hung up before its turn
    . NoSuchModel                 request.model            an address without a model of this server
  - ServiceError                  service.unavailable      the service cannot answer now
    . NotReady                    service.not_ready        the model or the states are still loading
    . Overloaded                  service.overloaded       as many requests as it takes are running
    . DeadlinePassed              service.deadline         the answer took longer than allowed
  - LogError                      log.invalid              the observation log cannot be used
    . DamagedLog                  log.damaged              a part of it is damaged
    . LogLocked                   log.locked               another process writes to it
    . LogFrequency                log.frequency            it holds series of another frequency
  - ModelSourceError
    . ShadowRefused               model.refused            a new model that must not take over
  - LateValues
    . PrunedValues                data.pruned              before the step at which the log begins
  - ConfigError
    . OpenBind                    config.open_bind         other machines could call, without keys
"""

from collections.abc import Sequence

from forecast.errors import ConfigError, ForecastError, LateValues, ModelSourceError


class RequestError(ForecastError):
    """The request cannot be served as it is."""

    code = "request.invalid"


class RequestTooLarge(RequestError):
    """More bytes, series, rows or numbers than one request may hold or ask for."""

    code = "request.too_large"


class Unauthorized(RequestError):
    """No API key, or one that is not known."""

    code = "request.unauthorized"


class WrongHost(RequestError):
    """A Host header that this server does not serve."""

    code = "request.host"


class Abandoned(RequestError):
    """The client hung up before its request was computed."""

    code = "request.abandoned"


class NoSuchModel(RequestError):
    """The path does not name a model of this server."""

    code = "request.model"


class ServiceError(ForecastError):
    """The service cannot answer now."""

    code = "service.unavailable"


class NotReady(ServiceError):
    """The model or the states are still being loaded."""

    code = "service.not_ready"


class Overloaded(ServiceError):
    """The largest number of requests that the server accepts is running."""

    code = "service.overloaded"


class DeadlinePassed(ServiceError):
    """The answer took longer than allowed."""

    code = "service.deadline"


class LogError(ForecastError):
    """The observation log cannot be used."""

    code = "log.invalid"


class DamagedLog(LogError):
    """A part of the observation log is damaged; the rest of it can be read."""

    code = "log.damaged"


class LogLocked(LogError):
    """Another process writes to the observation log."""

    code = "log.locked"


class LogFrequency(LogError):
    """The observation log holds series of another frequency."""

    code = "log.frequency"


class ShadowRefused(ModelSourceError):
    """A new model was refused and does not replace the one in service."""

    code = "model.refused"


class PrunedValues(LateValues):
    """Observations of steps that were pruned from the observation log."""

    code = "data.pruned"


class OpenBind(ConfigError):
    """The address is reachable from other machines and no API key is set."""

    code = "config.open_bind"


class Refused(Exception):
    """
    An error together with the items of the request that caused it.

    Args:
        error: The error.
        items: JSON pointer and one sentence for each of the first items.
    """

    def __init__(self, error: ForecastError, items: Sequence[tuple[str, str]]) -> None:
        super().__init__(str(error))
        self.error = error
        self.items = tuple(items)


def sentence(error: ForecastError, *, place: bool = False) -> str:
    """
    Return message and help of an error on one line.

    Args:
        error: The error.
        place: Whether to add the place. Files and hosts are for the operator only.

    >>> sentence(LogError("it is damaged", where="a.db", help="put a backup there"), place=True)
    'it is damaged (a.db); put a backup there'
    """
    where = f" ({error.where})" if place and error.where else ""
    return "; ".join(part for part in (f"{error.message}{where}", error.help) if part)
