"""Agrees with the kernel on what libfuse does not know: shared mappings of files whose pages the kernel does not keep.

A file that other hosts write to is read and written through this process, never from the kernel's pages (`direct_io`):
the kernel learns that its pages are old from an answer about attributes, and leaves that out when a write on this host
was answered since it asked. Without FUSE_DIRECT_IO_ALLOW_MMAP (Linux 6.6) it refuses shared mappings of such files, and
pyfuse3 has no way to ask for that.

While the first request is answered, a socket is in the place of the FUSE descriptor: the kernel's offer goes to libfuse
through it, and libfuse's answer back, with one bit more. Format: `struct fuse_init_in` and `fuse_init_out` of
<linux/fuse.h>.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Final

MESSAGE_BYTES: Final = 1 << 20
"""The kernel wants room for the largest request."""
_INIT: Final = 26
_OPCODE_AT: Final = 4
_OFFER_FLAGS_AT: Final = 40 + 12
_ANSWER_FLAGS_AT: Final = 16 + 12
_ANSWER_FLAGS2_AT: Final = 16 + 32
_INIT_EXT: Final = 1 << 30
_DIRECT_IO_ALLOW_MMAP: Final = 1 << (36 - 32)
"""In the second word of flags."""


class Negotiation:
    """Of one mount. `begin`, then libfuse answers the one request, then `end`."""

    def __init__(self) -> None:
        self.is_offered = False
        """The kernel can map files whose pages it does not keep."""
        self.is_begun = False
        self._kernel = -1
        self._socket: socket.socket | None = None

    @property
    def is_under_way(self) -> bool:
        """Between `begin` and `end`."""
        return self._socket is not None

    def begin(self, fd: int) -> None:
        """The first request can be read from the descriptor: afterwards libfuse finds it there."""
        self.is_begun = True
        self._kernel = os.dup(fd)
        offer = os.read(self._kernel, MESSAGE_BYTES)
        self.is_offered = _offers(offer)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.dup2(theirs.fileno(), fd, inheritable=False)
        theirs.close()
        ours.send(offer)
        self._socket = ours

    def end(self, fd: int) -> None:
        """libfuse has answered: from now on the descriptor is the kernel's again."""
        assert self._socket is not None
        with self._socket:
            answer = bytearray(self._socket.recv(MESSAGE_BYTES))
        if self.is_offered and len(answer) >= _ANSWER_FLAGS2_AT + 4:
            _add(answer, _ANSWER_FLAGS_AT, _INIT_EXT)
            _add(answer, _ANSWER_FLAGS2_AT, _DIRECT_IO_ALLOW_MMAP)
        os.write(self._kernel, answer)
        os.dup2(self._kernel, fd, inheritable=False)
        os.close(self._kernel)
        self._socket = None


def _offers(request: bytes) -> bool:
    if len(request) < _OFFER_FLAGS_AT + 8 or struct.unpack_from("=I", request, _OPCODE_AT) != (_INIT,):
        return False
    flags, flags2 = struct.unpack_from("=II", request, _OFFER_FLAGS_AT)
    return bool(flags & _INIT_EXT and flags2 & _DIRECT_IO_ALLOW_MMAP)


def _add(message: bytearray, at: int, flags: int) -> None:
    (before,) = struct.unpack_from("=I", message, at)
    struct.pack_into("=I", message, at, before | flags)
