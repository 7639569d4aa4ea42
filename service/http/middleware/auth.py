"""Checks API keys and Host names before the body of a request is read."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized, WrongHost
from service.http.middleware.model_path import split_model_path
from service.http.problems import of_error
from service.settings import Settings, is_loopback

OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/openapi.json", "/docs", "/"})
OPEN_FOLDERS = ("/docs/",)
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


def authorized(header: dict[bytes, bytes], digests: Sequence[str]) -> bool:
    """
    Whether the request carries one of the keys.

    The comparison takes the same time for every wrong key, so that its length tells nothing.
    """
    key = header.get(b"x-api-key", b"")
    scheme, _, token = header.get(b"authorization", b"").partition(b" ")
    if not key and scheme.lower() == b"bearer":
        key = token.strip()
    sent = hashlib.sha256(key).hexdigest()
    return any([hmac.compare_digest(sent, digest) for digest in digests])  # noqa: C419 - all of them


def served_hosts(settings: Settings, digests: Sequence[str]) -> tuple[str, ...]:
    """Return the names that a Host header may have; empty allows any."""
    if settings.allowed_hosts or digests or not is_loopback(settings.host):
        return settings.allowed_hosts
    # Without keys, a web page from elsewhere must not reach us under a name of its own (DNS
    # rebinding).
    return _LOOPBACK_NAMES


class ApiKeyAuth:
    """Refuses requests without a known key (401), or for a Host that is not served (400)."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._digests = settings.key_digests
        self._hosts = served_hosts(settings, self._digests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = dict(scope["headers"])
        _, path = split_model_path(scope["path"])
        is_open = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
        if self._hosts and _host_name(header) not in self._hosts:
            error = WrongHost(
                "the Host header names a host that this server does not serve",
                help="call it by 127.0.0.1 or localhost, or set STATECAST_ALLOWED_HOSTS",
            )
            await of_error(scope, error)(scope, receive, send)
        elif self._digests and not is_open and not authorized(header, self._digests):
            refused = Unauthorized(
                "no API key, or an unknown one",
                help="send X-API-Key: KEY, or Authorization: Bearer KEY",
            )
            await of_error(scope, refused)(scope, receive, send)
        else:
            await self._app(scope, receive, send)


def _host_name(header: dict[bytes, bytes]) -> str:
    host = header.get(b"host", b"").decode("latin-1").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]
