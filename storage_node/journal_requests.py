"""The journal's requests on one data-plane connection: decoded, handed to the journal, answered.

See `proto/journal_plane.py` for the words. A connection that opened a writer keeps it until it ends or another one
follows; what it has sent of a frame so far is bounded by the largest frame that there is.
"""

from __future__ import annotations

from collections.abc import Callable

from redfs.core.errors import InvalidArgument, NotAllowed
from redfs.core.journal import FRAME_HEADER_BYTES, MAX_FRAME_BYTES, CheckpointEnd, JournalSet, Point, pack_points
from redfs.core.journal import unpack_points as unpack
from redfs.proto.frames import Frame, Header
from redfs.proto.journal_plane import MAX_POINTS, one_point
from redfs.storage_node.journal import Journal, Writer


class JournalRequests:
    """See the module."""

    def __init__(self, journal: Journal, send: Callable[..., None], check_may_write: Callable[[], None]) -> None:
        self._journal = journal
        self._send = send
        self._check_may_write = check_may_write
        self._writer: Writer | None = None
        self._parts = bytearray()
        self.by_name: dict[str, Callable[[Frame], None]] = {
            "jset": self._set,
            "jfence": self._fence,
            "jopen": self._open,
            "jreset": self._reset,
            "jappend": self._append,
            "jbegin": self._begin,
            "jpiece": self._piece,
            "jend": self._end,
            "jdrop": self._drop,
            "jstate": self._state,
            "jread": self._read,
        }

    def _set(self, frame: Frame) -> None:
        self._check_may_write()
        self._send({"set": self._journal.note_set(JournalSet.from_fields(frame.header.get("set"))).to_fields()})

    def _fence(self, frame: Frame) -> None:
        self._check_may_write()
        self._journal.fence(_number(frame.header, "term"))
        self._send({})

    def _open(self, frame: Frame) -> None:
        self._check_may_write()
        points = unpack(_bytes(frame.header, "points"))
        if len(points) > MAX_POINTS:
            raise InvalidArgument(f"at most {MAX_POINTS} points of the journal in one request")
        self._writer, opened = self._journal.open_writer(_number(frame.header, "term"), points)
        self._parts.clear()
        self._send(
            {
                "match": _packed(opened.match),
                "end": _packed(opened.end),
                "whole": opened.whole,
                "lists": opened.lists_bytes,
                "checkpoint": opened.checkpoint_bytes,
            }
        )

    def _reset(self, frame: Frame) -> None:
        point = _point(frame.header)
        self._own().reset(point)
        self._send({"at": pack_points([point])})

    def _append(self, frame: Frame) -> None:
        if len(self._parts) + len(frame.payload) > MAX_FRAME_BYTES + FRAME_HEADER_BYTES:
            raise InvalidArgument("a frame of the journal is over the limit")
        if frame.header.get("more"):
            self._parts += frame.payload
            return
        whole = bytes(self._parts) + frame.payload if self._parts else frame.payload
        self._parts.clear()
        self._send({"at": pack_points([self._own().append(_point(frame.header), whole)])})

    def _begin(self, frame: Frame) -> None:
        self._check_may_write()
        self._journal.begin_checkpoint(_number(frame.header, "term"), _point(frame.header))
        self._send({})

    def _piece(self, frame: Frame) -> None:
        self._journal.add_piece(_number(frame.header, "term"), frame.payload)
        self._send({})

    def _end(self, frame: Frame) -> None:
        end = frame.header.get("end")
        if not isinstance(end, list) or len(end) != 3 or not all(isinstance(part, int) for part in end):
            raise InvalidArgument("the request names no end of a checkpoint")
        self._journal.end_checkpoint(_number(frame.header, "term"), CheckpointEnd(*end))
        self._send({})

    def _drop(self, frame: Frame) -> None:
        self._check_may_write()
        self._journal.drop(_number(frame.header, "term"), _number(frame.header, "before"))
        self._send({})

    def _state(self, _: Frame) -> None:
        self._send({"state": self._journal.state()})

    def _read(self, frame: Frame) -> None:
        name = str(frame.header.get("name"))
        self._send({}, self._journal.read(name, _number(frame.header, "o"), _number(frame.header, "n")))

    def _own(self) -> Writer:
        if self._writer is None:
            raise NotAllowed("this connection has not opened the journal")
        return self._writer


def _number(header: Header, name: str) -> int:
    value = header.get(name)
    if not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise InvalidArgument(f"the request's {name!r} is {value!r}, not a number of 64 bits")
    return value


def _bytes(header: Header, name: str) -> bytes:
    value = header.get(name)
    if not isinstance(value, bytes):
        raise InvalidArgument(f"the request's {name!r} is no bytes")
    return value


def _point(header: Header) -> Point:
    point = one_point(header.get("to"))
    if point is None:
        raise InvalidArgument("the request names no point of the journal")
    return point


def _packed(point: Point | None) -> bytes:
    return b"" if point is None else pack_points([point])
