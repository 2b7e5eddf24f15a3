"""Errors over gRPC: every class comes back as itself, on streams and as status with metadata."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from redfs.core.errors import BY_CODE, CommitRefused, FsError, InternalError, RedfsError, Unavailable, WrongFormat
from redfs.proto.rpc_errors import (
    MAX_MISSING,
    error_from_rpc,
    error_of,
    failure_of,
    from_rpc,
    status_of,
    trailing_metadata,
)

CLASSES = [cls for cls in BY_CODE.values() if cls not in (FsError, CommitRefused)]


class Failed(grpc.RpcError):
    """A call that ended with a status."""

    def __init__(self, code: grpc.StatusCode, details: str = "", metadata: Any = ()) -> None:
        super().__init__()
        self._found = (code, details, metadata)

    def code(self) -> grpc.StatusCode:
        return self._found[0]

    def details(self) -> str:
        return self._found[1]

    def trailing_metadata(self) -> Any:
        return self._found[2]


@pytest.mark.parametrize("cls", CLASSES, ids=[cls.__name__ for cls in CLASSES])
def test_every_class_comes_back_as_itself(cls: type[RedfsError]) -> None:
    error = cls("what is wrong")
    over_status = error_from_rpc(Failed(status_of(error), str(error), trailing_metadata(error)))
    for found in (over_status, error_of(failure_of(error))):
        assert type(found) is cls
        assert str(found) == "what is wrong"
    assert status_of(error) is not grpc.StatusCode.OK


def test_missing_blocks_come_along() -> None:
    error = CommitRefused("gone", range(1000))
    on_stream = error_of(failure_of(error))
    assert isinstance(on_stream, CommitRefused)
    assert on_stream.missing_blocks == tuple(range(1000))
    over_status = error_from_rpc(Failed(status_of(error), "gone", trailing_metadata(error)))
    assert isinstance(over_status, CommitRefused)
    assert over_status.missing_blocks == tuple(range(MAX_MISSING))


def test_calls_without_an_answer() -> None:
    lost = Failed(grpc.StatusCode.UNAVAILABLE, "connection refused")
    assert error_from_rpc(lost) is None
    assert isinstance(from_rpc(lost), Unavailable)
    assert isinstance(from_rpc(Failed(grpc.StatusCode.DEADLINE_EXCEEDED)), Unavailable)
    assert isinstance(from_rpc(Failed(grpc.StatusCode.UNIMPLEMENTED)), WrongFormat)
    assert isinstance(from_rpc(Failed(grpc.StatusCode.UNKNOWN, "boom")), InternalError)


def test_a_code_from_a_newer_peer_is_a_plain_error() -> None:
    found = error_from_rpc(Failed(grpc.StatusCode.ABORTED, "new", (("redfs-error", "newer"),)))
    assert type(found) is RedfsError
