"""A whole pool on this machine: coordinator, N storage nodes and console as background processes of this user.

A folder holds everything:

    pool.json            address of the coordinator, read by everything that is given the folder as its pool,
                         and of the console
    coordinator/         the coordinator's data
    coordinator.toml     the coordinator's settings, where the user wrote some
    node-0/ node-1/ ...  one storage node's disk each
    run/NAME.pid         process ids        log/NAME.log   what the processes say

Starting is idempotent: what runs is left alone, what does not is started, and every wait has a bound and ends with
the last line of the log of what did not come up. Nothing starts again by itself what was killed. A process id from a
file is believed only when that process runs the right module on the right folder, since ids are used again.

Fails with InvalidArgument, Busy (a port is taken, another `up` is running), Unavailable (a process did not come up or
does not end), NotFound. A retry is always safe. Unmounting before a stop is left to the caller.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from redfs.client.config import POOL_FILE, POOL_FORMAT, POOL_VERSION, PoolFile, find_pool, no_pool, read_pool_file
from redfs.client.mounting import MountRecord, find_record, runtime_folder
from redfs.core.errors import Busy, InvalidArgument, NotFound, RedfsError, Unavailable
from redfs.proto.gen import cluster_pb2 as pb

HOST = "127.0.0.1"
SETTINGS_FILE = "coordinator.toml"
"""The coordinator's settings, if the user wrote some."""
NODE_STATE_FILE = "state.json"
"""In a node's folder: its port, besides others (docs/formats/storage-node.md)."""
DEFAULT_NODES = 6
"""Enough for ec:4+2, the policy that people are most likely to try."""
MAX_NODES = 64
"""A process each on one machine: more is a typing error."""
FIRST_PORT = 7400
FIRST_CONSOLE_PORT = 7480
PORTS_TRIED = 100
"""Pools beside each other on one machine; beyond it something else is wrong."""
REPORTING_S = 3.0
"""A node that is out and was heard of within this is there: it reports each second."""
START_TIMEOUT_S = 60.0
"""From the start of a process to its first answer; an index that is rebuilt after a crash takes some seconds."""
STOP_TIMEOUT_S = 30.0
"""From SIGTERM to the end of a process; SIGKILL follows, which loses nothing acknowledged."""
POLL_S = 0.05
LEAVING_S = 5.0
"""A killed coordinator may keep its port for a moment after it counts as ended: its first thread ends before others."""
TCP_LISTEN = "0A"
"""The state in /proc/net/tcp."""
EXEC_TRIES = 100
EXEC_POLL_S = 0.001
"""While a process's program is being loaded it has no command line, and while it writes its id the file is empty: both
take microseconds."""
LOG_TAIL_BYTES = 4096


@dataclass(frozen=True)
class Member:
    """One process of the pool: what it is called and how it is started."""

    name: str
    module: str
    folder: Path
    """Its data folder."""
    pid_file: Path
    log_file: Path


def process_is_alive(pid: int) -> bool:
    """Whether the process runs; one that ended and was not waited for (a zombie) does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def _pid_text(member: Member) -> str:
    """The file's content. It is empty for an instant while the process writes it."""
    for _ in range(EXEC_TRIES):
        text = member.pid_file.read_text()
        if text:
            break
        time.sleep(EXEC_POLL_S)
    return text


def _command_line(pid: int) -> list[bytes]:
    """The words that a process was started with. Raises OSError where there is no such process.

    A process that is just being started shows none for a moment, one that ended shows none for ever.
    """
    for _ in range(EXEC_TRIES):
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if words != [b""] or not process_is_alive(pid):
            break
        time.sleep(EXEC_POLL_S)
    return words


def running_pid(member: Member) -> int | None:
    """The member's process id while it runs, else None. Ids of other processes in the file are not believed."""
    try:
        pid = int(_pid_text(member))
        words = _command_line(pid)
    except (FileNotFoundError, ProcessLookupError, ValueError):
        return None
    ours = member.module.encode() in words and os.fsencode(member.folder) in words
    return pid if ours and process_is_alive(pid) else None


def last_log_line(path: Path) -> str:
    """The last line that a process wrote, or an empty text."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1].strip() if lines else ""


def port_is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def listens(pid: int, port: int) -> bool:
    """Whether it is this process that listens on the port, and not another pool's that was quicker."""
    try:
        held = {os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:
        return False  # ended, or an entry went while we looked: the caller asks again
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue
        for fields in map(str.split, lines):
            here = fields[3] == TCP_LISTEN and int(fields[1].rpartition(":")[2], 16) == port
            if here and f"socket:[{fields[9]}]" in held:
                return True
    return False


def free_port(first: int = FIRST_PORT) -> int:
    """The first port from there on that nothing uses. Raises Busy."""
    for port in range(first, FIRST_PORT + PORTS_TRIED):
        if port_is_free(port):
            return port
    raise Busy(f"no free port from {FIRST_PORT} to {FIRST_PORT + PORTS_TRIED - 1}: choose one with --port")


class LocalPool:
    """The pool in one folder. Methods may be called from any process; `start` and `stop` take a lock on the folder."""

    def __init__(self, folder: Path, *, python: str = sys.executable) -> None:
        self.folder = folder.expanduser().absolute()
        self._python = python
        self._spawned: dict[str, int] = {}
        """Process ids of the members that this object started."""

    # ------------------------------------------------------------ what there is

    @property
    def exists(self) -> bool:
        """Whether `start` was ever called here."""
        return (self.folder / POOL_FILE).exists()

    def coordinator(self) -> Member:
        """The coordinator's process."""
        return self._member("coordinator", "redfs.coordinator")

    def node(self, number: int) -> Member:
        """The storage node with that number, from 0. NotFound where the pool has no such node."""
        if number not in self.node_numbers():
            numbers = self.node_numbers()
            known = f"this pool has nodes 0 to {numbers[-1]}" if numbers else "this pool has no nodes"
            raise NotFound(f"no node {number} in {self.folder}: {known}")
        return self._member(f"node-{number}", "redfs.storage_node")

    def node_numbers(self) -> list[int]:
        """Numbers of the nodes whose folders are here."""
        return sorted(
            int(path.name.removeprefix("node-"))
            for path in self.folder.glob("node-*")
            if path.is_dir() and path.name.removeprefix("node-").isdigit()
        )

    def console(self) -> Member:
        """The console's process. It keeps nothing: its folder is the pool's."""
        return replace(self._member("console", "redfs.client.console"), folder=self.folder)

    def members(self) -> list[Member]:
        """The coordinator, every node, the console."""
        return [self.coordinator(), *(self.node(number) for number in self.node_numbers()), self.console()]

    def pool_file(self) -> PoolFile:
        """Raises NotFound where there is no pool, WrongFormat."""
        return read_pool_file(self.folder)

    def mounts(self) -> list[MountRecord]:
        """This machine's mounts of this pool, those made by hand too. Never touches the mounts themselves."""
        address = self.pool_file().coordinator
        found = []
        for path in sorted(runtime_folder().glob("*.json")):
            try:
                mountpoint = Path(json.loads(path.read_text())["mountpoint"])
            except (OSError, ValueError, TypeError, KeyError):
                continue  # gone meanwhile, or no record of ours
            record = find_record(mountpoint)
            if record is not None and _pool_of(record.pid) == address:
                found.append(record)
        return found

    def _member(self, name: str, module: str) -> Member:
        return Member(
            name=name,
            module=module,
            folder=self.folder / name,
            pid_file=self.folder / "run" / f"{name}.pid",
            log_file=self.folder / "log" / f"{name}.log",
        )

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up`, `down` or node command at a time: two would start a process twice."""
        if not self.folder.is_dir():
            raise no_pool(self.folder)
        with (self.folder / "run" / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Busy(f"another redfs command is starting or stopping {self.folder}: wait for it") from error
            yield

    # ------------------------------------------------------------ start

    def start(
        self,
        nodes: int | None = None,
        port: int | None = None,
        *,
        console: bool = False,
        console_port: int | None = None,
    ) -> list[str]:
        """Starts what does not run and waits until all of it is up. Returns the names of what was started.

        `nodes` is the least number of nodes (more are added to a pool that has fewer; a pool never loses one here);
        without it, those that are there, or six for a new pool. `port` is the coordinator's, kept for later starts.
        With `console` the console too, on `console_port`, else where it was last time or the next free port.
        """
        if nodes is not None and not 1 <= nodes <= MAX_NODES:
            raise InvalidArgument(f"--nodes must be 1 to {MAX_NODES}, not {nodes}")
        for option, wanted in (("--port", port), ("--console-port", console_port)):
            if wanted is not None and not 0 < wanted < 65536:
                raise InvalidArgument(f"{option} must be 1 to 65535, not {wanted}")
        self._make_folders()
        with self._lock():
            address = self._address(port)
            there = self.node_numbers()
            count = max(len(there), nodes if nodes is not None else (len(there) or DEFAULT_NODES))
            unused = (number for number in itertools.count() if number not in there)
            for number in itertools.islice(unused, count - len(there)):
                (self.folder / f"node-{number}").mkdir()
            started = []
            coordinator = self.coordinator()
            if running_pid(coordinator) is None:
                address = self._start_coordinator(coordinator, address, fixed=port is not None or self.exists)
                started.append(coordinator.name)
            status = self._wait_for_coordinator(coordinator, address)
            before = self.pool_file().console if self.exists else ""
            self._write_pool_file(PoolFile(status.pool_id, address, count, before))
            waited = [self.node(number) for number in self.node_numbers()]
            started += self._start_nodes(waited, address)
            if console:
                started += self._start_console(console_port)
            return started

    def _start_console(self, port: int | None) -> list[str]:
        """Starts the console unless it runs. A port that was not asked for may be another one than last time."""
        console, pool = self.console(), self.pool_file()
        before = int(pool.console.rpartition(":")[2] or FIRST_CONSOLE_PORT)
        if running_pid(console) is not None:
            if port not in (None, before):
                raise Busy(f"the console runs on port {before}: stop it first (`redfs down --data {self.folder}`)")
            return []
        if port is not None and not port_is_free(port):
            raise Busy(f"port {port} is taken by another program: choose another one with --console-port")
        wanted = port or (before if port_is_free(before) else free_port(FIRST_CONSOLE_PORT))
        while True:
            address = f"{HOST}:{wanted}"
            self._write_pool_file(replace(pool, console=address))
            self._spawn(console, ["--listen", address])
            try:
                self._wait(partial(self._listens, console, wanted), [console])
            except Unavailable:
                if port is not None or port_is_free(wanted):
                    raise
                wanted = free_port(wanted + 1)
            else:
                return [console.name]

    @property
    def console_url(self) -> str:
        """Where the console answers; empty where none runs."""
        return f"http://{self.pool_file().console}" if running_pid(self.console()) is not None else ""

    def _start_coordinator(self, coordinator: Member, address: str, *, fixed: bool) -> str:
        """Starts it and waits until it listens; returns where. A port that was not asked for may be another one, if
        another program took it in the meantime."""
        while True:
            port = int(address.rpartition(":")[2])
            self._spawn(coordinator, ["--listen", address, *self.coordinator_settings()])
            try:
                self._wait(partial(self._listens, coordinator, port), [coordinator])
            except Unavailable:
                if fixed or port_is_free(port):
                    raise
                address = f"{HOST}:{free_port(port + 1)}"
            else:
                return address

    @staticmethod
    def _listens(member: Member, port: int) -> bool:
        pid = running_pid(member)
        return pid is not None and listens(pid, port)

    def coordinator_settings(self) -> list[str]:
        """What the coordinator is started with, besides where."""
        path = self.folder / SETTINGS_FILE
        return ["--config", str(path)] if path.exists() else []

    def start_node(self, number: int) -> bool:
        """Starts one node and waits until it is up. False if it ran already."""
        with self._lock():
            return bool(self._start_nodes([self.node(number)], self.pool_file().coordinator))

    def start_nodes_alone(self) -> list[str]:
        """Starts nodes without waiting for a coordinator, for a restore; where their data planes listen."""
        coordinator = self.pool_file().coordinator
        self._make_folders()
        with self._lock():
            nodes = [self.node(number) for number in self.node_numbers()]
            for node in nodes:
                if running_pid(node) is None:
                    self._spawn(node, ["--coordinator", coordinator, "--listen", f"{HOST}:0"])
            self._wait(lambda: all(self._data_address(node) for node in nodes), nodes)
            return [self._data_address(node) for node in nodes]

    def _data_address(self, node: Member) -> str:
        """Where a node listens; empty while it does not."""
        try:
            port = int(json.loads((node.folder / NODE_STATE_FILE).read_bytes())["port"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
        return f"{HOST}:{port}" if self._listens(node, port) else ""

    def _start_nodes(self, nodes: Sequence[Member], address: str) -> list[str]:
        started = []
        for node in nodes:
            if running_pid(node) is not None:
                continue
            fresh = not any(node.folder.iterdir())
            self._spawn(node, ["--coordinator", address, "--listen", f"{HOST}:0"])
            started.append(node.name)
            if fresh:  # one after another, so that the pool numbers them in this order
                self._wait_for_nodes([node], address)
        self._wait_for_nodes(nodes, address)
        return started

    def _make_folders(self) -> None:
        try:
            for name in ("run", "log", "coordinator"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidArgument(f"cannot make the pool's folder {self.folder}: {error.strerror}") from error

    def _address(self, port: int | None) -> str:
        """Where the coordinator listens: the wanted port, the one from last time, or the first free one."""
        patience_s = 0.0
        if not self.exists:
            wanted = port if port is not None else free_port()
        else:
            before = int(self.pool_file().coordinator.rpartition(":")[2])
            wanted = before if port is None else port
            if running_pid(self.coordinator()) is not None:
                if wanted != before:
                    raise Busy(f"the pool runs on port {before}: stop it first (`redfs down --data {self.folder}`)")
                return f"{HOST}:{before}"
            patience_s = LEAVING_S if wanted == before else 0.0
        if not self._becomes_free(wanted, patience_s):
            raise Busy(f"port {wanted} is taken by another program: choose another one with --port")
        return f"{HOST}:{wanted}"

    @staticmethod
    def _becomes_free(port: int, within_s: float) -> bool:
        deadline = time.monotonic() + within_s
        while not (free := port_is_free(port)) and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return free

    def _spawn(self, member: Member, arguments: Sequence[str]) -> None:
        common: list[str | Path] = [
            "--data",
            member.folder,
            "--pid-file",
            member.pid_file,
            "--log-file",
            member.log_file,
        ]
        member.pid_file.unlink(missing_ok=True)
        with member.log_file.open("ab") as log:
            process = subprocess.Popen(
                [self._python, "-m", member.module, *common, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",  # so that no folder or mount is kept busy by it
                start_new_session=True,  # so that Ctrl-C in this terminal does not reach it
            )
        # Known from the start, also while the process has not come to write it itself.
        member.pid_file.write_text(f"{process.pid}\n")
        self._spawned[member.name] = process.pid
        process.returncode = 0  # it outlives this program: no warning when the object goes

    def _wait_for_coordinator(self, member: Member, address: str) -> pb.PoolStatus:
        from redfs.client.api import Pool

        with Pool.connect(address) as pool:
            found: list[pb.PoolStatus] = []

            def answers() -> bool:
                try:
                    found.append(pool.status())
                except Unavailable:
                    return False
                return True

            self._wait(answers, [member])
            return found[-1]

    def _wait_for_nodes(self, nodes: Sequence[Member], address: str) -> None:
        from redfs.client.api import Pool

        wanted = {os.fspath(node.folder) for node in nodes}
        with Pool.connect(address) as pool:
            self._wait(lambda: wanted <= {n.data_folder for n in pool.nodes() if _reports(n)}, nodes)

    def _wait(self, done: Callable[[], bool], members: Sequence[Member]) -> None:
        """Until `done`; Unavailable with a process's last words when one has ended or the time is up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not done():
            late = time.monotonic() > deadline
            for member in members:
                if self._has_ended(member):
                    raise Unavailable(f"{member.name} ended at its start: {_last_words(member)}")
            if late:
                names = ", ".join(member.name for member in members)
                raise Unavailable(
                    f"{names} did not come up in {START_TIMEOUT_S:.0f} s: {_last_words(members[0])}",
                )
            time.sleep(POLL_S)

    def _has_ended(self, member: Member) -> bool:
        # Not by the file where we know better: the process writes it anew, and for an instant it is empty.
        pid = self._spawned.get(member.name)
        return running_pid(member) is None if pid is None else not process_is_alive(pid)

    def _write_pool_file(self, pool: PoolFile) -> None:
        """Beside, synced, renamed, the folder synced: the file is whole at every moment."""
        content = {
            "format": POOL_FORMAT,
            "version": POOL_VERSION,
            "pool_id": pool.pool_id,
            "coordinator": pool.coordinator,
            "nodes": pool.nodes,
            "console": pool.console,
        }
        path = self.folder / POOL_FILE
        beside = path.with_suffix(".new")
        with beside.open("w") as file:
            file.write(json.dumps(content, indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    # ------------------------------------------------------------ stop

    def stop(self) -> list[str]:
        """Stops console and nodes, then the coordinator; the data stays. Returns the names of what was stopped."""
        self.pool_file()
        with self._lock():
            first = [self.console(), *(self.node(number) for number in self.node_numbers())]
            return self._stop_all(first) + self._stop_all([self.coordinator()])

    def stop_node(self, number: int) -> bool:
        """Stops one node. False if it did not run."""
        with self._lock():
            return bool(self._stop_all([self.node(number)]))

    def retire_node(self, folder: Path) -> Path | None:
        """Stops the node that has this folder, and sets the folder aside: `start` does not start it again.

        For one that was removed from the pool. Where the folder is now; None: no node here has it.
        """
        with self._lock():
            retired = next((n for n in map(self.node, self.node_numbers()) if n.folder == folder), None)
            if retired is None:
                return None
            self._stop_all([retired])
            named = f"removed-{retired.name}"
            names = itertools.chain([named], (f"{named}.{number}" for number in itertools.count(1)))
            aside = next(path for name in names if not (path := self.folder / name).exists())
            folder.rename(aside)
            return aside

    def _stop_all(self, members: Sequence[Member]) -> list[str]:
        pids = {member.name: pid for member in members if (pid := running_pid(member)) is not None}
        for pid in pids.values():
            _send(pid, signal.SIGTERM)
        if not _wait_for_end(pids.values()):
            for pid in pids.values():
                _send(pid, signal.SIGKILL)
            if not _wait_for_end(pids.values()):
                stuck = ", ".join(name for name, pid in pids.items() if process_is_alive(pid))
                raise Unavailable(
                    f"{stuck} did not end in {STOP_TIMEOUT_S:.0f} s: is its disk stuck? See {self.folder}/log"
                )
        for member in members:
            member.pid_file.unlink(missing_ok=True)
        return list(pids)


def _pool_of(pid: int) -> str:
    """The coordinator's address that a mount process was started with; empty where it shows none."""
    try:
        words = [os.fsdecode(word) for word in _command_line(pid)]
        return find_pool(words[words.index("--pool") + 1]).address
    except (OSError, ValueError, IndexError, RedfsError):
        return ""


def _reports(node: pb.Node) -> bool:
    """Whether a node is there, whatever it is used for."""
    return node.state in ("up", "draining") or (node.state == "out" and node.last_seen_s < REPORTING_S)


def _last_words(member: Member) -> str:
    return f"{last_log_line(member.log_file) or 'it said nothing'} (log: {member.log_file})"


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _wait_for_end(pids: Collection[int]) -> bool:
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while any(process_is_alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True
