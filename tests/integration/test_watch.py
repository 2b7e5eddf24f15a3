"""Push and figures with real processes: what a mount does reaches who watches, through `Pool.watch`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from redfs.client.api import Pool
from redfs.core.errors import Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.integration.pools import WAIT_S, RunningPool

pytestmark = [pytest.mark.mount, pytest.mark.slow]


class Watching:
    """Reads `Pool.watch` in a thread."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._news = threading.Condition()
        self._messages: list[pb.Changed] = []
        self.error: Unavailable | None = None
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for changed in self._pool.watch():
                with self._news:
                    self._messages.append(changed)
                    self._news.notify()
        except Unavailable as error:
            self.error = error

    def wait_for(self, wanted: Callable[[pb.Changed], bool], what: str) -> pb.Changed:
        """The first message that fits; it and those before it are done with."""
        deadline = time.monotonic() + WAIT_S
        with self._news:
            while True:
                for at, message in enumerate(self._messages):
                    if wanted(message):
                        del self._messages[: at + 1]
                        return message
                assert self._news.wait(deadline - time.monotonic()), f"was not told: {what}"

    def ended(self) -> None:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()


def test_what_a_mount_does_is_told_to_who_watches(pool: RunningPool) -> None:
    with pool.api() as api:
        watching = Watching(api)
        first = watching.wait_for(lambda m: True, "everything, at once")
        assert first.tree
        assert first.nodes
        assert first.jobs
        assert first.schedules
        before = first.figures
        pool.redfs("volume", "create", "watched")
        watching.wait_for(lambda m: m.tree, "a new volume")
        where = pool.mount("watched")
        (where / "file").write_bytes(b"x" * 1_000_000)
        written = watching.wait_for(
            lambda m: m.figures.written_bytes == before.written_bytes + 1_000_000, "bytes written"
        ).figures
        assert written.operations > before.operations
        assert written.busy_us > before.busy_us
        assert (where / "file").read_bytes() == b"x" * 1_000_000
        pool.umount(where)
        where = pool.mount("watched")
        assert (where / "file").read_bytes() == b"x" * 1_000_000
        pool.umount(where)
        total = api.status().figures
        assert total.read_bytes >= before.read_bytes + 1_000_000, "also what ended mounts did in their last second"
        assert total.written_bytes == written.written_bytes
        api.close()
        watching.ended()
        assert watching.error is not None
