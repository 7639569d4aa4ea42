"""
Exceptions that the pipelines and the command line raise in addition to `forecast.errors`.

* ForecastError
  - UsageError              cli.usage              options contradict each other or name nothing
    . UnusableFile          cli.file               a file cannot be read or written
    . NotInstalled          cli.not_installed      a part of Statecast is not installed
  - Unreachable             service.unreachable    no server answers at this address
  - ServerRefused           (the server's code)    the server answered with a problem
"""

from forecast.errors import ForecastError


class UsageError(ForecastError):
    """Options or arguments contradict each other, or name something that does not exist."""

    code = "cli.usage"


class UnusableFile(UsageError):
    """A file or folder cannot be read or written: a full or failing disk, or no permission."""

    code = "cli.file"


class NotInstalled(UsageError):
    """A part of Statecast, or a package that it needs, is not installed."""

    code = "cli.not_installed"


class Unreachable(ForecastError):
    """No server answers at this address."""

    code = "service.unreachable"


class ServerRefused(ForecastError):
    """
    The server answered with a problem document.

    Args:
        message: Detail of the problem.
        code: Error code of the problem, which is one of ours or `http.STATUS`.
        status: HTTP status.
        where: What the problem is about, and the path and id of the request.
        help: What to do.
    """

    def __init__(
        self, message: str, *, code: str, status: int, where: str = "", help: str = ""
    ) -> None:
        super().__init__(message, where=where, help=help)
        self.code = code
        self.status = status
