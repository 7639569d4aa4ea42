"""One process that serves: a socket of its own, uvicorn on it, a graceful stop."""

import errno
import gc
import logging
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack

import torch
import uvicorn

from forecast.errors import PortInUse
from service.app import create_app
from service.serving.catalog import Catalog
from service.settings import Settings

_NEXT_PORTS = 50
_GRACE = 20
"""Seconds that running requests have to end once the server is asked to stop."""


def run(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """
    Serve until interrupted (SIGINT, SIGTERM); running requests are finished first.

    Args:
        settings: All of them.
        on_ready: Called once with the base URL when forecasts can be answered.

    Raises:
        OpenBind: Other machines could call, and no API key is set.
        PortInUse: Another program listens there.
        ForecastError: The model or the log cannot be used, or those of no model; told after an
            orderly stop.
    """
    settings.check_bind()
    _set_up_logging(settings.log_level)
    torch.set_num_threads(1)
    listener = bind(settings)
    url = base_url(listener)
    settled: list[Catalog] = []

    def tell(slots: Catalog) -> None:
        settled.append(slots)
        if slots.failure is not None:
            server.should_exit = True
        elif on_ready is not None:
            on_ready(url)

    app = create_app(settings, on_settled=tell)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            proxy_headers=False,
            timeout_graceful_shutdown=_GRACE,
            lifespan="on",
        )
    )
    gc.freeze()  # modules stay: to look through them at each collection stops all for 0.15 s
    try:
        logging.getLogger("service").info("listening on %s", url)
        server.run(sockets=[listener])
    finally:
        listener.close()
    if settled and settled[0].failure is not None:
        raise settled[0].failure


def bind(settings: Settings) -> socket.socket:
    """
    Take the port, or one of the next if that is allowed.

    Raises:
        PortInUse: It is taken, or may not be taken.
    """
    tries = _NEXT_PORTS if settings.next_port and settings.port else 1
    for port in range(settings.port, min(settings.port + tries, 65_536)):
        listener = _listen(settings.host, port)
        if listener is not None:
            return listener
    where = f"{settings.host}:{settings.port}"
    raise PortInUse(
        "another program listens on this port",
        where=where,
        help=f"choose another: --port {settings.port + 1} (STATECAST_PORT), or stop the other",
    )


def base_url(listener: socket.socket) -> str:
    """How to call the server from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket | None:
    """A listening socket, or None when the port is taken."""
    with ExitStack() as on_failure:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = on_failure.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return None
            raise PortInUse(
                f"cannot listen: {error.strerror}",
                where=f"{host}:{port}",
                help="check --host and --port",
            ) from error
        on_failure.pop_all()
        return listener


def _set_up_logging(level: str) -> None:
    """One line an event to stderr, for our loggers and uvicorn's; others are left alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("service", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    if level != "debug":
        logging.getLogger("uvicorn").setLevel("WARNING")
