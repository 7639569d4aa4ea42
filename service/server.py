"""Runs the application in this process: a socket, uvicorn and a graceful stop."""

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
"""Longest time that running requests have to end when the server stops, in seconds."""


def run(settings: Settings, *, on_ready: Callable[[str], None] | None = None) -> None:
    """
    Serve until SIGINT or SIGTERM; running requests are finished first.

    Args:
        settings: Settings of the server.
        on_ready: Called once with the base URL when forecasts can be answered.

    Raises:
        OpenBind: The address is reachable from other machines and no API key is set.
        PortInUse: Another program listens on the port.
        ForecastError: No model can be served; raised after an orderly stop.
    """
    settings.check_bind()
    _set_up_logging(settings.log_level)
    torch.set_num_threads(1)
    listener = bind(settings)
    url = base_url(listener)
    settled: list[Catalog] = []

    def when_settled(catalog: Catalog) -> None:
        settled.append(catalog)
        if catalog.failure is not None:
            server.should_exit = True
        elif on_ready is not None:
            on_ready(url)

    app = create_app(settings, on_settled=when_settled)
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
    gc.freeze()  # Scanning the modules at each collection would stop all requests for 0.15 s.
    try:
        logging.getLogger("service").info("listening on %s", url)
        server.run(sockets=[listener])
    finally:
        listener.close()
    if settled and settled[0].failure is not None:
        raise settled[0].failure


def bind(settings: Settings) -> socket.socket:
    """
    Return a socket that listens on the port, or on one of the next if `next_port` is set.

    Raises:
        PortInUse: The port is busy, or this process may not use it.
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
    """Return the base URL for callers on this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _listen(host: str, port: int) -> socket.socket | None:
    """Return a listening socket, or None if the port is busy."""
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
    """Log our events and those of uvicorn to stderr, one line each; leave other loggers alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    for name in ("service", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
    if level != "debug":
        logging.getLogger("uvicorn").setLevel("WARNING")
