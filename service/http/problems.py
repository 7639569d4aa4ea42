"""
Answers every failure with `application/problem+json` (RFC 9457), also those of the framework.

`code` is stable and shared with the command line and docs/errors.md; the text may change. Of a
request only names are repeated: ids, columns, stamps.
"""

import inspect
import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import Scope

from forecast.errors import ForecastError
from service.errors import LogError, Refused, sentence

MEDIA_TYPE = "application/problem+json"
ERRORS_SHOWN = 20
STATUSES = {
    "data": 422,
    "data.gap": 409,
    "data.late": 409,
    "data.pruned": 409,
    "forecast": 422,
    "config": 422,
    "series.unknown": 404,
    "state": 409,
    "request": 400,
    "request.abandoned": 499,
    "request.model": 404,
    "request.too_large": 413,
    "request.unauthorized": 401,
    "request.validation": 422,
    "model": 503,
    "model.no_previous": 409,
    "registry": 503,
    "bundle": 503,
    "log": 503,
    "service": 503,
    "service.deadline": 504,
}
"""HTTP status of each code, or of the family before its dot if the code is not listed."""
FRAMEWORK = {
    400: ("request.malformed", "The request cannot be read"),
    401: ("request.unauthorized", "No API key, or an unknown one"),
    404: ("request.not_found", "No such path"),
    405: ("request.method", "This path does not allow this method"),
    406: ("request.not_acceptable", "No answer in this media type"),
    408: ("request.slow", "The body of the request did not arrive in time"),
    413: ("request.too_large", "More bytes than one request may hold"),
    415: ("request.media_type", "Not a media type that the server reads"),
    422: ("request.validation", "The request does not fit its schema"),
    500: ("internal", "Internal error"),
}
"""Code and title for each status with which the framework refuses a request."""
logger = logging.getLogger("service.problems")


class Item(BaseModel):
    """A place in the request and what is wrong there."""

    pointer: str = Field(description="JSON pointer into the body, or `query:NAME`, `path:NAME`.")
    detail: str


class Problem(BaseModel):
    """A problem document as RFC 9457 defines it."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field(description="`urn:statecast:problem:` and the code.")
    title: str
    status: int
    detail: str = Field(description="One sentence: what is wrong, expected and found.")
    instance: str = Field(description="Path of the request.")
    code: str = Field(description="Stable; listed in docs/errors.md.")
    request_id: str
    where: str = Field("", description="Series, first stamp, file.")
    help: str = Field("", description="What to do about it.")
    errors: list[Item] = []


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the documented failures of a route: these statuses and those of every route."""
    schema = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    common = {400, 401, 500, 503, *statuses}
    return {s: {"description": describe(s), "content": schema} for s in sorted(common)}


def describe(status: int) -> str:
    """Describe in a few words what a status means."""
    words = {409: "Conflicts with what is stored", 503: "Not ready, or overloaded", 504: "Too slow"}
    return words.get(status) or FRAMEWORK[status][1]


def status_of(code: str) -> int:
    """
    Return the HTTP status of an error code.

    >>> status_of("data.gap"), status_of("data.missing_values"), status_of("internal")
    (409, 422, 500)
    """
    return STATUSES.get(code) or STATUSES.get(code.partition(".")[0], 500)


def title_of(error: ForecastError) -> str:
    """Return the first sentence of the docstring of the error's class."""
    return (inspect.getdoc(type(error)) or "Error").split("\n\n")[0].replace("\n", " ").rstrip(".")


def answer(
    scope: Scope,
    status: int,
    code: str,
    title: str,
    detail: str,
    *,
    where: str = "",
    help: str = "",
    errors: Sequence[tuple[str, str]] = (),
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """Build the problem document of a failure."""
    problem = Problem(
        type=f"urn:statecast:problem:{code}",
        title=title,
        status=status,
        detail=detail,
        instance=scope.get("raw_path", b"/").decode("latin-1"),
        code=code,
        request_id=str(scope.get("state", {}).get("request_id", "")),
        where=where,
        help=help,
        errors=[Item(pointer=at, detail=text) for at, text in errors[:ERRORS_SHOWN]],
    )
    return JSONResponse(problem.model_dump(), status, headers, media_type=MEDIA_TYPE)


def of_error(
    scope: Scope,
    error: ForecastError,
    items: Sequence[tuple[str, str]] = (),
    *,
    retry_after: int = 1,
) -> JSONResponse:
    """Build the problem document of one of our errors."""
    status = status_of(error.code)
    headers = {"Retry-After": str(retry_after)} if status in {429, 503} else {}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return answer(
        scope,
        status,
        error.code,
        title_of(error),
        error.message,
        where="" if isinstance(error, LogError) else error.where,
        help=error.help,
        errors=items,
        headers=headers,
    )


def internal(scope: Scope) -> JSONResponse:
    """Build the problem document of an unexpected error: nothing but the request id."""
    code, title = FRAMEWORK[500]
    return answer(
        scope,
        500,
        code,
        title,
        "internal error",
        help="report the request_id; the server's log has the details",
    )


def install(app: FastAPI, *, retry_after: int) -> None:
    """Answer every error of the library and of the framework with a problem document."""

    def known(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ForecastError)
        return _logged(of_error(request.scope, error, retry_after=retry_after), error)

    def refused(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Refused)
        return of_error(request.scope, error.error, error.items, retry_after=retry_after)

    def framework(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code, title = FRAMEWORK.get(error.status_code, ("request.invalid", "Refused"))
        headers = dict(error.headers or {})
        return answer(
            request.scope,
            error.status_code,
            code,
            title,
            _sentence(error, request),
            help=_hint(error.status_code, request),
            headers=headers,
        )

    def invalid(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        errors = error.errors()
        if errors[0]["loc"] == ("body",) and not _says_json(request):
            code, title = FRAMEWORK[415]
            return answer(
                request.scope,
                415,
                code,
                title,
                "the body is not sent as JSON",
                help="send the header Content-Type: application/json",
            )
        status = 400 if any(e["type"] == "json_invalid" for e in errors) else 422
        code, title = FRAMEWORK[status]
        items = [(pointer_of(e["loc"]), _plain(e)) for e in errors]
        detail = f"{items[0][0] or 'the body'}: {items[0][1]}"
        if len(items) > 1:
            detail += f" (and {len(items) - 1} more)"
        return answer(
            request.scope,
            status,
            code,
            title,
            detail,
            help="see /docs for what this path takes",
            errors=items,
        )

    app.add_exception_handler(ForecastError, known)
    app.add_exception_handler(Refused, refused)
    app.add_exception_handler(HTTPException, framework)
    app.add_exception_handler(RequestValidationError, invalid)


def pointer_of(loc: Sequence[str | int]) -> str:
    """
    Return a JSON pointer into the body, or the name of a parameter.

    >>> pointer_of(("body", "observations", 0, "y")), pointer_of(("query", "limit"))
    ('/observations/0/y', 'query:limit')
    """
    head, *rest = loc
    if head != "body":
        return ":".join(str(part) for part in loc)
    return "".join("/" + str(p).replace("~", "~0").replace("/", "~1")[:100] for p in rest)


def _says_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _plain(error: dict[str, Any]) -> str:
    if error["type"] == "json_invalid":
        return f"not JSON: {error.get('ctx', {}).get('error', 'cannot be read')}"
    return str(error["msg"]).removeprefix("Value error, ")


def _sentence(error: HTTPException, request: Request) -> str:
    if error.status_code == 404:
        return f"nothing is at {request.scope.get('raw_path', b'').decode('latin-1')[:200]}"
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "others")
        return f"{request.method[:20]} is not allowed here; allowed: {allowed}"
    return str(error.detail)


def _hint(status: int, request: Request) -> str:
    if status not in {404, 405}:
        return ""
    advice = "see /docs for all paths"
    if request.url.path.startswith("/models/") and "models" not in request.scope["root_path"]:
        return f"this server has one model: leave out /models/NAME; {advice}"
    return advice


def _logged(response: JSONResponse, error: ForecastError) -> JSONResponse:
    if response.status_code == 500:
        logger.error("unmapped error %s", error.code, exc_info=error)
    elif isinstance(error, LogError):
        logger.error("%s", sentence(error, place=True))
    return response
