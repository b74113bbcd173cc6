"""What every request passes: the key, limits on its body, errors as answers, the log."""

from __future__ import annotations

import asyncio
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from napari_medgs._util.memory import free_bytes
from napari_medgs.errors import MedGSError, MemoryEstimateError
from napari_medgs.server.leases import FullError, LeaseGoneError
from napari_medgs.server.packing import TooLargeError
from napari_medgs.server.preparation import BusyError
from napari_medgs.server.settings import MEGABYTE, ServerSettings, is_loopback

log = logging.getLogger("napari_medgs.server")

OPEN = "/healthz"  # answers without a key
RETRY_SECONDS = 10
SHARE_OF_FREE = 0.5  # of the free memory may be the body of a request
JSON_BYTES = MEGABYTE
TOO_LARGE = "The body is larger than {:.1f} MB."
STATUS: tuple[tuple[type[MedGSError], int], ...] = (
    (LeaseGoneError, 410),
    (FullError, 503),
    (BusyError, 503),
    (TooLargeError, 413),
    (MemoryEstimateError, 413),
    (MedGSError, 400),
)
QUIET = ("/heartbeat", "/lease_status", "/healthz", "/v1/progress")  # debug messages only

Scope: TypeAlias = dict[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Any]]
Send: TypeAlias = Callable[[Any], Awaitable[Any]]


def status_of(error: MedGSError) -> int:
    """Return the HTTP status of an error."""
    return next(status for kind, status in STATUS if isinstance(error, kind))


def error_response(status: int, detail: str) -> JSONResponse:
    """Return an error as clients of the protocol expect it."""
    headers = {}
    if status == 503:
        headers["Retry-After"] = str(RETRY_SECONDS)
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"detail": detail}, status, headers)


async def read_body(request: Request, most: int) -> bytes:
    """Return the body of a request; larger ones are refused as soon as that is known.

    Parameters
    ----------
    request : Request
    most : int
        Bytes.

    Raises
    ------
    TooLargeError
        When it is larger, or would not fit into memory.
    MedGSError
        When the client leaves before all of it has come.
    """
    most = min(most, int(SHARE_OF_FREE * free_bytes()))
    says = TOO_LARGE.format(most / MEGABYTE)
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > most:
        raise TooLargeError(says)
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise MedGSError("The client left before all of its request had come.")
        chunk, more = message.get("body", b""), message.get("more_body", False)
        if len(body) + len(chunk) > most:
            raise TooLargeError(says)
        body += chunk
    return bytes(body)


async def read_json(request: Request) -> Any:
    """Return the JSON body of a request; an empty one is an empty object.

    Raises
    ------
    MedGSError
        When it is no JSON.
    """
    body = await read_body(request, JSON_BYTES)
    return parse_object(body or b"{}", "body")


def parse_object(text: bytes | str, what: str) -> dict[str, Any]:
    """Return a JSON object.

    Parameters
    ----------
    text : bytes or str
    what : str
        Where it stands, for the message.

    Raises
    ------
    MedGSError
        When it is none.

    Examples
    --------
    >>> parse_object('{"a": 1}', "body")
    {'a': 1}
    """
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        raise MedGSError(f"The {what} is not JSON.") from None
    if not isinstance(record, dict):
        raise MedGSError(f"The {what} must be a JSON object.")
    return record


class Gate:
    """Lets requests in that have the key, and writes one line a request into the log.

    Bodies larger than ``max_body_mb`` are refused, on every path.

    Where there is no key, web pages of other sites are kept out: a request must name the own
    machine as its host, and none as its origin but it.

    Parameters
    ----------
    app : ASGI application
    settings : ServerSettings
    paths : set of str
        Those that there are; others are not written into the log.
    """

    def __init__(self, app: Any, settings: ServerSettings, paths: frozenset[str]) -> None:
        self._app, self._paths = app, paths
        self._key = settings.api_key.encode()
        self._most = settings.max_body_mb * MEGABYTE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, came = time.perf_counter(), 0, 0

        async def sending(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        async def receiving() -> Any:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came > self._most:
                raise TooLargeError(TOO_LARGE.format(self._most / MEGABYTE))
            return message

        refused = self._refused(scope)
        try:
            if refused is not None:
                await refused(scope, receive, sending)
            else:
                await self._app(scope, receiving, sending)
        except asyncio.CancelledError:
            # At its end the server cancels requests that take longer than it waits, and logs a
            # traceback of those that do not take that.
            if status:
                raise
            await error_response(503, "The server was stopped.")(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            # A route's path names no session.
            path = getattr(scope.get("route"), "path", "-")
            if scope["path"] in self._paths:
                path = scope["path"]
            level = logging.DEBUG if path in QUIET else logging.INFO
            log.log(level, "%s %s %d %.3f s", scope["method"], path, status, seconds)

    def _refused(self, scope: Scope) -> JSONResponse | None:
        headers = dict(scope["headers"])
        if self._key:
            given = headers.get(b"authorization", b"")
            wanted = b"Bearer " + self._key
            if scope["path"] != OPEN and not hmac.compare_digest(given, wanted):
                return error_response(401, "The key is missing or wrong.")
            return self._too_large(headers)
        host = headers.get(b"host", b"").decode("latin-1")
        if not is_loopback(_name_of(host)):
            return error_response(403, "Without a key the server answers its own machine alone.")
        if headers.get(b"sec-fetch-site", b"none") in (b"cross-site", b"same-site"):
            return error_response(403, "Without a key the server answers no web pages.")
        origin = headers.get(b"origin", b"").decode("latin-1")
        if origin and not is_loopback(_name_of(origin.partition("://")[2])):
            return error_response(403, "Without a key the server answers no web pages.")
        return self._too_large(headers)

    def _too_large(self, headers: dict[bytes, bytes]) -> JSONResponse | None:
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._most:
            return error_response(413, TOO_LARGE.format(self._most / MEGABYTE))
        return None


def _name_of(host: str) -> str:
    """Return a host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if host.count(":") == 1 else host


def add_error_answers(app: FastAPI) -> None:
    """Make errors of the package, of requests and of the server into answers.

    Parameters
    ----------
    app : FastAPI
    """

    @app.exception_handler(MedGSError)
    async def known(request: Request, error: MedGSError) -> JSONResponse:
        log.info("refused: %s", error)
        return error_response(status_of(error), str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place = " ".join(str(part) for part in first["loc"] if part != "body")
        return error_response(400, f"{place or 'The body'}: {first['msg']}.")

    @app.exception_handler(MemoryError)
    async def full(request: Request, error: MemoryError) -> JSONResponse:
        log.error("out of memory")
        return error_response(413, "The server has too little memory for this.")

    @app.exception_handler(Exception)
    async def unknown(request: Request, error: Exception) -> JSONResponse:
        log.error("a request failed", exc_info=error)
        return error_response(500, "The server failed; its log says why.")
