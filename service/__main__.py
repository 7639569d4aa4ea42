"""`python -m service`: serve with settings from the environment only."""

import sys

from pydantic import ValidationError

from forecast.errors import ForecastError
from service.server import run
from service.settings import Settings


def main() -> int:
    """Serve and return the exit code."""
    try:
        run(Settings())
    except ForecastError as error:
        sys.stderr.write(f"error[{error.code}]: {error}\n")
        return 2
    except ValidationError as error:
        sys.stderr.write(f"error[config.invalid]: {_describe(error)}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _describe(error: ValidationError) -> str:
    """Name the wrong settings without their values, which may be secret."""
    return "; ".join(
        f"STATECAST_{'__'.join(str(part) for part in e['loc']).upper()}: {e['msg']}"
        for e in error.errors(include_url=False, include_input=False)
    )


if __name__ == "__main__":
    sys.exit(main())
