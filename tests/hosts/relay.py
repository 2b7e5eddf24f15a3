"""A cable that delays and loses packets, for kernels without netem: `python -m tests.hosts.relay A B DELAY LOSS SEED`.

Passes Ethernet frames between two network interfaces, each after DELAY seconds (and up to half as much again), and
loses the fraction LOSS of them. Frames come and go with the kernel's notes on checksums and segmentation, which
interfaces of one machine leave undone. Prints one line when it is ready; ends when it is killed, or who started it
has ended. Needs root.
"""

from __future__ import annotations

import heapq
import os
import random
import select
import socket
import sys
import time

SOL_PACKET = 263
PACKET_VNET_HDR = 15
PACKET_OUTGOING = 4
ETH_P_ALL = 3
FRAME_BYTES = 66_000
"""The largest: 64 KiB that are left to be cut up, and headers."""
MAX_WAITING = 20_000
"""Frames under way; more are lost, as in any queue."""
MAX_WAIT_S = 1.0


def _open(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind((name, ETH_P_ALL))
    sock.setblocking(False)
    return sock


def main() -> None:
    """Passes frames on."""
    names, delay_s, loss = sys.argv[1:3], float(sys.argv[3]), float(sys.argv[4])
    rng = random.Random(int(sys.argv[5]))
    ends = [_open(name) for name in names]
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    waiting: list[tuple[float, int, bytes, socket.socket]] = []
    count = 0
    print("ready", flush=True)
    parent = os.getppid()
    while os.getppid() == parent:
        now_s = time.monotonic()
        while waiting and waiting[0][0] <= now_s:
            _, _, frame, out = heapq.heappop(waiting)
            try:
                out.send(frame)
            except OSError:
                continue  # the interface is down, or its queue is full: lost
        wait_s = min(max(waiting[0][0] - now_s, 0.0), MAX_WAIT_S) if waiting else MAX_WAIT_S
        for end in select.select(ends, [], [], wait_s)[0]:
            try:
                frame, where = end.recvfrom(FRAME_BYTES)
            except OSError:
                continue
            if where[2] == PACKET_OUTGOING or rng.random() < loss or len(waiting) >= MAX_WAITING:
                continue
            count += 1
            due_s = time.monotonic() + delay_s * (1 + rng.random() / 2)
            heapq.heappush(waiting, (due_s, count, frame, other[end]))


if __name__ == "__main__":
    main()
