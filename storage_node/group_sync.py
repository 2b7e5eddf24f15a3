"""Group commit: many writers of one file share the fdatasync calls that make their writes durable.

Every caller's write has returned before it asks. The first caller becomes the leader and syncs for all who asked before
the sync began; whoever asks meanwhile waits for the next one. So each is covered by a sync that began after its write.
Once a sync failed, every caller gets `DiskFailed`, now and later: the same sync may not be tried again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from redfs.storage_node.disk import DiskFailed


class GroupSync:
    """The syncs of one file."""

    def __init__(self, sync: Callable[[], None]) -> None:
        self._sync = sync
        self._changed = threading.Condition(threading.Lock())
        self._asked = 0
        self._synced = 0
        self._running = False
        self._failure: OSError | None = None

    def wait(self) -> None:
        """Returns when everything that the caller wrote before is durable. Raises DiskFailed."""
        with self._changed:
            self._asked += 1
            ticket = self._asked
            while self._synced < ticket:
                if self._failure is not None:
                    raise DiskFailed(f"fdatasync failed: {self._failure}") from self._failure
                if self._running:
                    self._changed.wait()
                else:
                    self._lead()

    def _lead(self) -> None:
        """Syncs once for all who asked so far. Called and returns with the lock held."""
        covered = self._asked
        self._running = True
        self._changed.release()
        failure: OSError | None = None
        finished = False
        try:
            self._sync()
            finished = True
        except OSError as error:
            failure = error
        finally:
            self._changed.acquire()
            self._running = False
            if finished:
                self._synced = covered
            elif failure is None:  # an error of another kind passes on; others must not wait for ever
                failure = OSError("the sync was broken off")
            self._failure = failure
            self._changed.notify_all()
