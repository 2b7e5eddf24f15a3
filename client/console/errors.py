"""Errors of RedFS over HTTP: the class decides the status, the body says the code and the one line.

    {"error": {"code": "not_found", "message": "no volume 'photos'"}}

Everything that the API refuses looks so, also what the framework refuses by itself (an unknown address, a body that
does not fit). What nobody expected becomes `internal`, with the traceback in the console's log and not in the answer.
"""

from __future__ import annotations

import errno
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from redfs.core.errors import (
    AlreadyExists,
    Busy,
    CommitRefused,
    Corrupt,
    Fenced,
    FsError,
    InternalError,
    InvalidArgument,
    LeaseLapsed,
    NoSpace,
    NotAllowed,
    NotFound,
    RedfsError,
    RolledBack,
    TooFewNodes,
    Unavailable,
    WrongFormat,
)

STATUS: dict[type[RedfsError], int] = {
    InvalidArgument: 400,
    NotFound: 404,
    AlreadyExists: 409,
    Busy: 409,
    NotAllowed: 403,
    NoSpace: 507,
    Unavailable: 503,
    TooFewNodes: 503,
    LeaseLapsed: 503,
    Fenced: 503,
    RolledBack: 409,
    CommitRefused: 503,
    Corrupt: 500,
    WrongFormat: 501,
    FsError: 409,
    InternalError: 500,
    RedfsError: 500,
}
MEANINGS = {
    400: "`invalid`: the request itself is wrong; the message says what to correct",
    403: "`not_allowed`: never allowed on this object; or the header or Host of the request is not as it must be",
    404: "`not_found`: what the request names does not exist",
    409: "`exists` or `busy`: a name is taken, or something in use stands in the way",
    413: "`invalid`: the body is too large",
    416: "the range lies behind the end of the file",
    500: "`corrupt` or `internal`: stored bytes are damaged, or a bug",
    503: "`unavailable`, `too_few_nodes` or `lease_lapsed`: the same request may succeed later",
    507: "`no_space`: the pool or a quota is full",
}
MAX_MESSAGE_CHARS = 2000
"""Messages name what the user named; a line that is longer helps nobody."""


def status_of(error: RedfsError) -> int:
    """The HTTP status of an error of the family."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return 500


def body(code: str, message: str) -> dict[str, Any]:
    """What an error looks like in JSON."""
    return {"error": {"code": code, "message": " ".join(message.split())[:MAX_MESSAGE_CHARS]}}


def answer(error: RedfsError) -> JSONResponse:
    """The whole answer for an error."""
    return JSONResponse(body(error.code, str(error)), status_code=status_of(error))


def from_fs(error: FsError, where: str) -> RedfsError:
    """What a user of the API is told of a file system's error at a path."""
    match error.errno:
        case errno.ENOENT:
            return NotFound(f"there is no {where}")
        case errno.ENOTDIR:
            return InvalidArgument(f"{where} is no folder, or leads through what is none")
        case errno.ENAMETOOLONG | errno.EINVAL:
            return InvalidArgument(f"{where} holds a name that no file can have")
    return error


def install(app: FastAPI) -> None:
    """Makes every refusal of the application look as said above."""

    async def family(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RedfsError)
        return answer(error)

    async def validation(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return JSONResponse(body(InvalidArgument.code, describe(error)), status_code=400)

    async def framework(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        code = NotFound.code if error.status_code == 404 else InvalidArgument.code
        told = {404: "there is nothing at this address", 405: "this cannot be done at this address"}
        message = told.get(error.status_code, str(error.detail))
        return JSONResponse(body(code, message), status_code=error.status_code, headers=dict(error.headers or {}))

    async def unexpected(_: Request, error: Exception) -> JSONResponse:
        return answer_to_unexpected(error)

    app.add_exception_handler(Exception, unexpected)
    app.add_exception_handler(RedfsError, family)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, framework)


def describe(error: RequestValidationError) -> str:
    """One line for the first thing that does not fit."""
    found = error.errors()
    first = found[0]
    place = ".".join(str(part) for part in first.get("loc", ())) or "the request"
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return f"{place}: {first.get('msg', 'does not fit')}{more}"


def answer_to_unexpected(error: Exception) -> JSONResponse:
    """For what nobody expected; that it is logged is left to the guard, which sees all of it."""
    return answer(InternalError(f"unexpected {type(error).__name__} in the console: see its log"))
