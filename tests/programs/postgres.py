"""PostgreSQL: pgbench, kill -9 of all of it and of the mount, recovery; what was acknowledged is there."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.programs.place import Missing, Place, group_of, run

SECONDS = 4.0
"""Of pgbench, before something is killed."""
CLIENTS = 4
WAIT_S = 120.0
PORT = 54329
"""Only names the socket: nothing listens on the network."""
_SETTINGS = """
listen_addresses = ''
shared_buffers = 16MB
max_wal_size = 64MB
checkpoint_timeout = 30s
synchronous_commit = on
fsync = on
full_page_writes = on
wal_sync_method = {sync}
restart_after_crash = off
"""


def check_postgres(place: Place) -> None:
    """initdb, pgbench, kill -9 of all processes and of the mount, recovery, amcheck, pg_dump."""
    binaries = find_binaries()
    for sync in ("fdatasync", "open_datasync"):
        with tempfile.TemporaryDirectory(prefix="redfs-pg-") as sockets:
            server = Server(binaries, place, place.folder / sync, Path(sockets), sync)
            server.check()


def find_binaries() -> Path:
    """The folder of PostgreSQL's programs, where Debian puts them or on the PATH. Raises Missing."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    if on_path is None:
        raise Missing("there is no PostgreSQL here (Debian's package postgresql)")
    return Path(on_path).resolve().parent


class Server:
    """One cluster in a folder of the place."""

    def __init__(self, binaries: Path, place: Place, data: Path, sockets: Path, sync: str) -> None:
        self.binaries, self.place, self.data, self.sockets, self.sync = binaries, place, data, sockets, sync
        self.user = _unprivileged()
        if self.user is not None:
            os.chown(sockets, pwd.getpwnam(self.user).pw_uid, group_of(self.user))

    def check(self) -> None:
        self.data.mkdir()
        if self.user is not None:
            os.chown(self.data, pwd.getpwnam(self.user).pw_uid, group_of(self.user))
        self.data.chmod(0o700)
        self.call("initdb", "--pgdata", str(self.data), "--auth=trust", "--encoding=UTF8", "--no-locale",
                  "--username=bench", "--data-checksums")  # fmt: skip
        with open(self.data / "postgresql.conf", "a") as file:
            file.write(_SETTINGS.format(sync=self.sync))
        with self.running():
            self.sql("create database bench", "postgres")
            self.sql("create extension amcheck")
            self.call("pgbench", "--initialize", "--quiet", f"--scale={self.place.times(1)}", *self.where())
        done = 0
        with self.running(stop=False) as postmaster:
            done += self.bench(lambda: self.kill(postmaster))
        with self.running():
            done = self.assert_recovered(done)
        if self.place.kill_mount is not None and self.place.remount is not None:
            with self.running(stop=False) as postmaster:
                done += self.bench(lambda: self.kill(postmaster, mount=True))
            self.place.remount()
            with self.running():
                done = self.assert_recovered(done)
        with self.running():
            self.call("pg_amcheck", "--all", "--heapallindexed", *self.where()[:-1])
            dump = self.call("pg_dump", *self.where())
        assert dump.count("\n") > done + 100_000 * self.place.times(1), "the dump is short"
        self.call("pg_checksums", "--check", "--pgdata", str(self.data))

    @contextlib.contextmanager
    def running(self, stop: bool = True) -> Iterator[int]:
        """The server, with its postmaster's process id; stopped in the end, or killed by who asked."""
        log = self.place.reference / f"log.{self.sync}"
        log.touch()
        log.chmod(0o666)
        words = [str(self.binaries / "postgres"), "-D", str(self.data), "-k", str(self.sockets), "-p", str(PORT)]
        with open(log, "a") as out:
            server = subprocess.Popen(
                words, stdout=out, stderr=out, user=self.user, group=self.user and group_of(self.user),
                extra_groups=[] if self.user else None, cwd="/", start_new_session=True,
            )  # fmt: skip
        try:
            deadline = time.monotonic() + WAIT_S
            while not self.is_ready():
                assert server.poll() is None, f"the server ended: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)
            yield server.pid
        finally:
            if stop and server.poll() is None:
                server.send_signal(signal.SIGINT)
            try:
                server.wait(timeout=WAIT_S if stop else 10.0)
            except subprocess.TimeoutExpired:
                self.kill(server.pid)
                server.wait()
                raise

    def kill(self, postmaster: int, *, mount: bool = False) -> None:
        """kill -9 of every process of the server at once, and before that of the mount."""
        if mount and self.place.kill_mount is not None:
            self.place.kill_mount()
        os.kill(postmaster, signal.SIGSTOP)  # it starts no more
        for pid in (*_children(postmaster), postmaster):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def bench(self, end: Callable[[], None]) -> int:
        """Runs pgbench until something is killed under it: how many transactions were acknowledged."""
        words = [
            str(self.binaries / "pgbench"), f"--client={CLIENTS}", f"--time={int(WAIT_S)}", "--no-vacuum",
            *self.where(),
        ]  # fmt: skip
        bench = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/")
        try:
            before = self.history()
            deadline = time.monotonic() + WAIT_S
            until = time.monotonic() + SECONDS * self.place.scale
            while self.history() < before + 20 or time.monotonic() < until:
                assert bench.poll() is None, "pgbench ended by itself"
                assert time.monotonic() < deadline, "pgbench does not get on"
                time.sleep(0.2)
            end()
            out, said = bench.communicate(timeout=WAIT_S)
        finally:
            bench.kill()
            bench.wait()
        found = re.search(r"actually processed: (\d+)", out)
        assert found, out + said
        return int(found[1])

    def history(self) -> int:
        return int(self.sql("select count(*) from pgbench_history"))

    def assert_recovered(self, acknowledged: int) -> int:
        """All acknowledged transactions are there, none by half; how many there are."""
        count = self.history()
        assert count >= acknowledged, f"{acknowledged - count} acknowledged transactions are lost"
        assert count <= acknowledged + CLIENTS, f"{count} transactions, of {acknowledged} acknowledged"
        sums = {
            self.sql(f"select coalesce(sum({column}), 0) from pgbench_{table}")
            for table, column in (("accounts", "abalance"), ("tellers", "tbalance"), ("branches", "bbalance"),
                                  ("history", "delta"))
        }  # fmt: skip
        assert len(sums) == 1, f"the balances differ: {sums}"
        return count

    def where(self, database: str = "bench") -> list[str]:
        return [f"--host={self.sockets}", f"--port={PORT}", "--username=bench", database]

    def sql(self, text: str, database: str = "bench") -> str:
        return self.call("psql", "--no-psqlrc", "-qtAX", "-c", text, *self.where(database)).strip()

    def call(self, program: str, *words: str) -> str:
        return run(self.binaries / program, *words, user=self.user, cwd=Path("/"))

    def is_ready(self) -> bool:
        words = [str(self.binaries / "pg_isready"), "-q", f"--host={self.sockets}", f"--port={PORT}"]
        return subprocess.run(words, check=False).returncode == 0


def _unprivileged() -> str | None:
    """The user to run as where this is root: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
