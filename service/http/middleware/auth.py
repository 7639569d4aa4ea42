"""Who may call: API keys and served Host names. Pure ASGI, before the body is read."""

import hashlib
import hmac
from collections.abc import Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import Unauthorized, WrongHost
from service.http.middleware.model_path import parted
from service.http.problems import of_error
from service.settings import Settings, is_loopback

OPEN_PATHS = frozenset({"/livez", "/readyz", "/healthz", "/openapi.json", "/docs", "/"})
OPEN_FOLDERS = ("/docs/",)
_LOOPBACK_NAMES = ("127.0.0.1", "localhost", "::1")


def authorized(header: dict[bytes, bytes], digests: Sequence[str]) -> bool:
    """Whether the request carries one of the keys; takes as long for a near miss as for a far."""
    key = header.get(b"x-api-key", b"")
    scheme, _, token = header.get(b"authorization", b"").partition(b" ")
    if not key and scheme.lower() == b"bearer":
        key = token.strip()
    found = hashlib.sha256(key).hexdigest()
    return any([hmac.compare_digest(found, digest) for digest in digests])  # noqa: C419 - all of them


def served_hosts(settings: Settings, digests: Sequence[str]) -> tuple[str, ...]:
    """Names that a Host header may have; empty for any."""
    if settings.allowed_hosts or digests or not is_loopback(settings.host):
        return settings.allowed_hosts
    return _LOOPBACK_NAMES  # no keys: no page from elsewhere may call under a name of its own


class ApiKeyAuth:
    """Refuses what carries no known key (401), or asks for a name that is not ours (400)."""

    def __init__(self, app: ASGIApp, *, settings: Settings) -> None:
        self._app = app
        self._digests = settings.key_digests
        self._hosts = served_hosts(settings, self._digests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        header = dict(scope["headers"])
        _, path = parted(scope["path"])
        free = path in OPEN_PATHS or path.startswith(OPEN_FOLDERS)
        if self._hosts and _host_name(header) not in self._hosts:
            error = WrongHost(
                "the Host header names no host that this server serves",
                help="call it by 127.0.0.1 or localhost, or set STATECAST_ALLOWED_HOSTS",
            )
            await of_error(scope, error)(scope, receive, send)
        elif self._digests and not free and not authorized(header, self._digests):
            refused = Unauthorized(
                "no API key, or one that is not known",
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
