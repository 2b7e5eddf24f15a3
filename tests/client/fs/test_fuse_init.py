"""The kernel's offer, libfuse's answer, and what is added to it."""

import os
import socket
import struct

import pytest

from redfs.client.fs.fuse_init import Negotiation

INIT, GETATTR = 26, 3
EXT, ALLOW_MMAP, OTHERS = 1 << 30, 1 << 4, 0b1101


def offer(flags: int, flags2: int, opcode: int = INIT) -> bytes:
    body = struct.pack("=IIIII44x", 7, 45, 131072, flags, flags2)
    return struct.pack("=IIQQIIII", 40 + len(body), opcode, 2, 0, 0, 0, 0, 0) + body


def answer(flags: int, flags2: int) -> bytes:
    body = struct.pack("=IIIIHHIIHHI28x", 7, 38, 131072, flags, 12, 9, 1 << 20, 1, 256, 0, flags2)
    return struct.pack("=IiQ", 16 + len(body), 0, 2) + body


@pytest.mark.parametrize(
    ("offered", "given", "is_offered"),
    [
        (offer(EXT | OTHERS, ALLOW_MMAP | OTHERS), answer(EXT | OTHERS, ALLOW_MMAP | OTHERS), True),
        (offer(EXT | OTHERS, OTHERS & ~ALLOW_MMAP), answer(OTHERS, OTHERS), False),
        (offer(OTHERS, ALLOW_MMAP), answer(OTHERS, OTHERS), False),
        (offer(EXT, ALLOW_MMAP, GETATTR), answer(OTHERS, OTHERS), False),
        (offer(EXT, ALLOW_MMAP)[:56], answer(OTHERS, OTHERS), False),
    ],
)
def test_mapping_is_asked_for_where_the_kernel_offers_it(offered: bytes, given: bytes, is_offered: bool) -> None:
    kernel, device = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    fd = device.detach()
    negotiation = Negotiation()
    try:
        kernel.send(offered)
        negotiation.begin(fd)
        assert negotiation.is_under_way
        assert os.read(fd, 1 << 16) == offered, "libfuse gets it as it is"
        os.write(fd, answer(OTHERS, OTHERS))
        negotiation.end(fd)
        assert kernel.recv(1 << 16) == given
        assert (negotiation.is_offered, negotiation.is_under_way) == (is_offered, False)
        kernel.send(b"the next request")
        assert os.read(fd, 100) == b"the next request"
        os.write(fd, b"its answer")
        assert kernel.recv(100) == b"its answer"
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)
        kernel.close()
