"""RedFS errors over gRPC: class to status and trailing metadata on the server, and back to the class on the client.

The status is for tools that know gRPC only; the metadata "redfs-error" holds the error's code, which rebuilds the very
class. On streams an error is a `Failure` message. Errors that are not of RedFS become `InternalError` on the server and
`Unavailable` on the client (connection lost, deadline passed).
"""

from __future__ import annotations

from typing import Any, NoReturn

import grpc
import grpc.aio

from redfs.core.errors import (
    BY_CODE,
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
from redfs.proto.gen import cluster_pb2 as pb

ERROR_KEY = "redfs-error"
"""Trailing metadata with the code."""
MISSING_KEY = "redfs-missing-bin"
"""Trailing metadata of a refused commit: the missing block ids, 8 bytes each, big-endian."""
MAX_MISSING = 512
"""Missing blocks that metadata carries; gRPC allows some 8 KiB of it. Streams carry them all."""

STATUS: dict[type[RedfsError], grpc.StatusCode] = {
    InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    NotFound: grpc.StatusCode.NOT_FOUND,
    AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    Busy: grpc.StatusCode.FAILED_PRECONDITION,
    NotAllowed: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    NoSpace: grpc.StatusCode.RESOURCE_EXHAUSTED,
    TooFewNodes: grpc.StatusCode.FAILED_PRECONDITION,
    Corrupt: grpc.StatusCode.DATA_LOSS,
    WrongFormat: grpc.StatusCode.FAILED_PRECONDITION,
    LeaseLapsed: grpc.StatusCode.ABORTED,
    CommitRefused: grpc.StatusCode.ABORTED,
    RolledBack: grpc.StatusCode.ABORTED,
    Fenced: grpc.StatusCode.FAILED_PRECONDITION,
    FsError: grpc.StatusCode.FAILED_PRECONDITION,
    InternalError: grpc.StatusCode.INTERNAL,
    RedfsError: grpc.StatusCode.UNKNOWN,
}


def status_of(error: RedfsError) -> grpc.StatusCode:
    """The gRPC status of an error of the family."""
    for cls in type(error).__mro__:
        if cls in STATUS:
            return STATUS[cls]
    return grpc.StatusCode.UNKNOWN


def trailing_metadata(error: RedfsError) -> tuple[tuple[str, str | bytes], ...]:
    """What goes with the status."""
    found: tuple[tuple[str, str | bytes], ...] = ((ERROR_KEY, error.code),)
    if isinstance(error, CommitRefused) and error.missing_blocks:
        packed = b"".join(block.to_bytes(8, "big") for block in error.missing_blocks[:MAX_MISSING])
        found = (*found, (MISSING_KEY, packed))
    return found


async def abort(context: Any, error: RedfsError) -> NoReturn:
    """Ends a call of a grpc.aio server with this error."""
    await context.abort(status_of(error), str(error), trailing_metadata(error))
    raise AssertionError("abort raises")


def abort_with(context: grpc.ServicerContext, error: RedfsError) -> NoReturn:
    """Ends a call of a server with threads with this error."""
    context.set_trailing_metadata(trailing_metadata(error))
    context.abort(status_of(error), str(error))
    raise AssertionError("abort raises")


def rebuild(code: str, message: str, missing_blocks: tuple[int, ...] = (), errno: int = 0) -> RedfsError:
    """The error that the other side raised; a code from a newer peer becomes a plain `RedfsError`."""
    cls = BY_CODE.get(code, RedfsError)
    if issubclass(cls, CommitRefused):
        return cls(message, missing_blocks)
    if issubclass(cls, FsError):
        return FsError(errno, message) if errno else RedfsError(message)
    return cls(message)


def error_from_rpc(error: grpc.RpcError) -> RedfsError | None:
    """The error that the other side raised, of its own class; None where it never answered."""
    call: Any = error
    status: grpc.StatusCode = call.code()
    details: str = call.details() or ""
    metadata: dict[str, str | bytes] = dict(call.trailing_metadata() or ())
    code = metadata.get(ERROR_KEY)
    if isinstance(code, str):
        packed = metadata.get(MISSING_KEY, b"")
        raw = packed if isinstance(packed, bytes) else b""
        return rebuild(code, details, tuple(int.from_bytes(raw[at : at + 8], "big") for at in range(0, len(raw), 8)))
    if status in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED):
        return None
    if status == grpc.StatusCode.UNIMPLEMENTED:
        return WrongFormat("the other side does not know this call: it is of another version, or no RedFS")
    return InternalError(f"the call failed: {status.name} {details}")


def from_rpc(error: grpc.RpcError, peer: str = "the coordinator") -> RedfsError:
    """Like `error_from_rpc`; Unavailable where the other side never answered, a retry may help."""
    return error_from_rpc(error) or Unavailable(f"{peer} does not answer: is it running?")


def failure_of(error: RedfsError) -> pb.Failure:
    """The message of an error on a stream."""
    missing = error.missing_blocks if isinstance(error, CommitRefused) else ()
    errno = error.errno if isinstance(error, FsError) else 0
    return pb.Failure(code=error.code, message=str(error), missing_blocks=missing, errno=errno)


def error_of(failure: pb.Failure) -> RedfsError:
    """The error in a stream's message."""
    return rebuild(failure.code, failure.message, tuple(failure.missing_blocks), failure.errno)
