"""A storage node put together: disk, index, store, data plane, tasks, heartbeat; and how it starts and stops.

Start: lock the folder, check whose disk it is, mark the state as running (generation raised, not clean), open the
store, listen, attach. Stop: detach, give up tasks, finish requests, save the index, mark the state as clean. Dying
anywhere in between leaves the mark "not clean", and the next start reads the files.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import socket
from dataclasses import replace
from typing import Final

from redfs.core.errors import Busy, RedfsError
from redfs.proto import frames
from redfs.proto.frames import Hello, split_address
from redfs.storage_node import identity as ids
from redfs.storage_node import room
from redfs.storage_node.config import NodeConfig
from redfs.storage_node.disk import DiskFailed, FolderDisk, FolderLock
from redfs.storage_node.heartbeat import Heartbeat, NodeFacts
from redfs.storage_node.index import LmdbIndex
from redfs.storage_node.journal import FOLDER as JOURNAL_FOLDER
from redfs.storage_node.journal import Journal
from redfs.storage_node.pacing import Courtesy
from redfs.storage_node.peers import Peers
from redfs.storage_node.recovery import open_store
from redfs.storage_node.server import DataServer
from redfs.storage_node.tasks import Tasks

log = logging.getLogger(__name__)

INDEX_FOLDER: Final = "index.lmdb"
EXIT_DISK_FAILED: Final = 74
"""EX_IOERR of sysexits.h."""


class StorageNode:
    """One node, from `start` to `stop`. Not started again."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.exit_code = 0
        self.failure = ""
        """Why the node cannot go on; empty for a stop that was asked for."""
        self._ends: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def ask_to_stop(self) -> None:
        """Ends `wait`. May be called from a signal handler."""
        self._ends.put((0, ""))

    def wait(self) -> None:
        """Until somebody asks to stop, or the node cannot go on: `exit_code` and `failure` say why then."""
        self.exit_code, self.failure = self._ends.get()

    def start(self) -> None:
        """Serving when it returns. Raises Busy, WrongFormat, OSError, DiskFailed; nothing keeps running then."""
        with contextlib.ExitStack() as undo:
            self.disk = FolderDisk(self.config.data)
            self._lock = FolderLock(self.config.data)
            undo.callback(self._lock.release)
            self._identity = ids.load_identity(self.disk, os.urandom(16).hex())
            before = ids.load_state(self.disk)
            with room.lent(self.disk):
                self._state = replace(before, generation=before.generation + 1, clean=False)
                ids.save_state(self.disk, self._state)
                index_folder = self.config.data / INDEX_FOLDER
                if not before.clean:
                    log.info("the last stop was not a clean one")
                    LmdbIndex.discard(index_folder)
                index = LmdbIndex(index_folder)
                undo.callback(index.close)
                self.store = open_store(
                    self.disk,
                    index,
                    bytes.fromhex(self._identity.disk_uuid),
                    self._state.generation,
                    before.generation if before.clean else None,
                    self.config.limits,
                    self._on_disk_failure,
                )
                self.journal = Journal(
                    FolderDisk(self.config.data / JOURNAL_FOLDER), lambda: self._identity.pool_id, self._on_disk_failure
                )
                self.journal.open()
                undo.callback(self.journal.close)
                listener = self._listen(before.port)
                courtesy = Courtesy()
                self.server = DataServer(listener, self.store, self._hello, courtesy, self.journal)
                undo.callback(self.server.stop)
                self._remember_port()
            self.server.start()
            peers = Peers(lambda: self._identity.pool_id)
            self._tasks = Tasks(lambda: self._identity.node_id, self.store, peers, courtesy)
            undo.callback(self._tasks.stop)
            self._tasks.start()
            self._heartbeat = Heartbeat(
                self.config.coordinator,
                self.store,
                NodeFacts(self.address, self.config.domain, os.fspath(self.config.data), self._file_system()),
                lambda: self._identity,
                self._on_welcome,
                self._on_refused,
                self._tasks,
            )
            self._heartbeat.start()
            undo.pop_all()
        log.info("serving %s on %s, generation %d", self.config.data, self.address, self._state.generation)

    def stop(self) -> None:
        """Clean unless the disk failed."""
        self._heartbeat.stop()
        self._tasks.stop()
        self.server.stop()
        self.journal.close()
        with room.lent(self.disk):
            if self.store.close():
                ids.save_state(self.disk, replace(self._state, clean=True))
                log.info("stopped cleanly")
        self._lock.release()

    @property
    def address(self) -> str:
        """HOST:PORT that clients reach the node by."""
        host = self.config.advertise or split_address(self.config.listen)[0]
        return f"[{host}]:{self.server.port}" if ":" in host else f"{host}:{self.server.port}"

    def _file_system(self) -> str:
        """Names the file system that the node shares with others; empty where it has a capacity of its own."""
        if self.config.limits.capacity_bytes:
            return ""
        return f"{socket.gethostname()}:{os.stat(self.config.data).st_dev}"

    def _listen(self, port_before: int) -> socket.socket:
        """On the wanted port; where any will do, on the one from last time if it is free."""
        host, port = split_address(self.config.listen)
        bracketed = f"[{host}]" if ":" in host else host
        if port == 0 and port_before:
            with contextlib.suppress(OSError):
                return frames.listen(f"{bracketed}:{port_before}")
        try:
            return frames.listen(self.config.listen)
        except OSError as error:
            raise Busy(f"cannot listen on {self.config.listen}: {error.strerror}: choose another --listen") from error

    def _remember_port(self) -> None:
        if self._state.port != self.server.port:
            self._state = replace(self._state, port=self.server.port)
            ids.save_state(self.disk, self._state)

    def _hello(self) -> Hello:
        return Hello(self._identity.pool_id, self._identity.node_id, self._state.generation)

    def _on_welcome(self, pool_id: str, node_id: int) -> None:
        self._identity = ids.join(self.disk, self._identity, pool_id, node_id)

    def _on_refused(self, error: RedfsError) -> None:
        self._ends.put((error.exit_code, str(error)))

    def _on_disk_failure(self, error: DiskFailed) -> None:
        self._ends.put((EXIT_DISK_FAILED, f"the disk failed, the node stops: {error}"))
