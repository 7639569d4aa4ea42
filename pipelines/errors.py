"""
What the pipelines and the command line raise on purpose, beside the tree of `forecast.errors`.

* ForecastError
  - UsageError              cli.usage              options that contradict or name nothing
    . UnusableFile          cli.file               a file cannot be written: no room, no right
    . NotInstalled          cli.not_installed      a part of Statecast is not installed here
  - Unreachable             service.unreachable    no server answers at this address
  - ServerRefused           (the server's code)    the server answered with a problem
"""

from forecast.errors import ForecastError


class UsageError(ForecastError):
    """Options or arguments that contradict each other, or name nothing."""

    code = "cli.usage"


class UnusableFile(UsageError):
    """A file or folder cannot be read or written: no room, no right, a failing disk."""

    code = "cli.file"


class NotInstalled(UsageError):
    """A part of Statecast, or a package that it needs, is not installed here."""

    code = "cli.not_installed"


class Unreachable(ForecastError):
    """No server answers at this address."""

    code = "service.unreachable"


class ServerRefused(ForecastError):
    """
    The server answered with a problem document.

    Args:
        message: The problem's detail.
        code: The problem's own code, from the same catalogue as ours.
        status: The HTTP status.
    """

    def __init__(
        self, message: str, *, code: str, status: int, where: str = "", help: str = ""
    ) -> None:
        super().__init__(message, where=where, help=help)
        self.code = code
        self.status = status
