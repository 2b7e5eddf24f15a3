"""A cluster of one test: its containers, client containers with real mounts, the load in them, and the checks after it.

Every part's disk is a small file system in memory of its own, mounted on this machine, so that it can be filled and its
backing files be changed from outside. All names have this process's id in them and all objects a label; `destroy` takes
away everything that has it, in whatever state it is, and `remove_leftovers` what a run that was killed has left.

With REDFS_TEST_CODE in the environment, the modules in that folder (`coordinator/commits.py`) are in the place of the
image's: so it is tried whether a test fails without a protection, and nothing is built anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
from docker import DockerClient
from docker.models.containers import Container

from redfs.client.api import Pool
from redfs.client.container_pool import (
    CLUSTER_LABEL,
    COORDINATOR_PORT,
    IMAGE_USER,
    PART_LABEL,
    ContainerPool,
    Extras,
)
from redfs.core.errors import RedfsError
from redfs.proto.gen import cluster_pb2 as pb
from tests.settled import settled_report

NAME_PREFIX = "redfs-test-"
TEST_LABEL = "redfs.test"
"""Its value is the id of the process that made the object."""
WAIT_S = 90.0
"""For a condition that takes a second on an idle machine."""
HEALED_S = 240.0
"""For some dozen MiB to be made anew on a busy machine."""
POLL_S = 0.1
COMMAND_S = 120
STANDS_S = 3.0
"""A load that has ended no operation for so long is waiting for something that is broken."""
PAUSE_S = 60.0
"""The bound of the load: the longest that one request may take, whatever breaks meanwhile."""
COLD_ONE_IN = 10
"""Of the operations that are waited for, as many are reads through the second mount at least."""
DISK_BYTES = 256 << 20
LEASE_S = 6.0
SETTINGS = (f"lease_s={LEASE_S}", "delete_grace_s=0.5", "node_down_s=3.0", "inventory_interval_s=5.0")
NODE_PORT = COORDINATOR_PORT + 1
PACKAGE = "/opt/redfs/lib/python3.11/site-packages/redfs"
"""In the image."""
HERE = Path(__file__).resolve().parent


def wait_for(condition: Callable[[], bool], what: str | Callable[[], str], timeout_s: float = WAIT_S) -> None:
    """Returns when the condition holds; fails with `what` when it does not come to hold."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:.0f} s: {what if isinstance(what, str) else what()}")
        time.sleep(POLL_S)


def remove_leftovers(engine: DockerClient) -> None:
    """What runs have left whose process is gone."""
    for container in engine.containers.list(all=True, filters={"label": TEST_LABEL}):
        if not Path(f"/proc/{container.labels[TEST_LABEL]}").exists():
            container.remove(force=True, v=True)
    for network in engine.networks.list(filters={"label": TEST_LABEL}):
        if not Path(f"/proc/{network.attrs['Labels'][TEST_LABEL]}").exists():
            network.remove()
    for volume in engine.volumes.list(filters={"label": TEST_LABEL}):
        if not Path(f"/proc/{volume.attrs['Labels'][TEST_LABEL]}").exists():
            volume.remove(force=True)
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, folder, *_ = line.split()
        if (
            source.startswith(NAME_PREFIX)
            and not Path(f"/proc/{source.removeprefix(NAME_PREFIX).split('-')[0]}").exists()
        ):
            subprocess.run(["umount", "--lazy", folder], check=False, timeout=COMMAND_S)


def code_in_place_of_the_images() -> list[str]:
    """What REDFS_TEST_CODE names, as binds."""
    folder = os.environ.get("REDFS_TEST_CODE")
    if not folder:
        return []
    found = sorted(Path(folder).rglob("*.py"))
    assert found, f"REDFS_TEST_CODE={folder}: there are no modules"
    return [f"{path}:{PACKAGE}/{path.relative_to(folder)}:ro" for path in found]


def build_shim(folder: Path) -> Path:
    """The library of `shim.c` and `power.c`."""
    library = folder / "shim.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "shim.c"), str(HERE / "power.c"), "-ldl"],
        check=True,
        capture_output=True,
        timeout=COMMAND_S,
    )
    return library


@dataclass
class Client:
    """A container with mounts."""

    name: str
    container: Container
    records: Path
    """What the load writes down, seen from this machine."""
    mounted: list[str] = field(default_factory=list)
    """Volumes."""
    read_beside: list[str] = field(default_factory=list)
    """Of these, those that are mounted a second time, read-only."""


class Cluster:
    """See the module."""

    def __init__(
        self, engine: DockerClient, folder: Path, nodes: int, settings: Sequence[str] = (), disk_bytes: int = DISK_BYTES
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.nodes = nodes
        self.name = f"{NAME_PREFIX}{os.getpid()}-{secrets.token_hex(4)}"
        self.labels = {TEST_LABEL: str(os.getpid())}
        self.data = folder / "data"
        self._disk_bytes = disk_bytes
        self._library = build_shim(folder)
        self._clients: dict[str, Client] = {}
        self._dead: set[str] = set()
        words = [word for setting in (*SETTINGS, *settings) for word in ("--set", setting)]
        extras = Extras(
            coordinator=words,
            restart=False,
            environment={"LD_PRELOAD": "/shim.so"},
            binds=self._binds,
            labels=self.labels,
        )
        self.pool = ContainerPool(engine, self.name, extras=extras)

    def _binds(self, part: str) -> list[str]:
        places = [f"{self._library}:/shim.so:ro", f"{self.fault_folder(part)}:/fault:ro"]
        return [*places, f"{self.undo_folder(part)}:/undo", *code_in_place_of_the_images()]

    def fault_folder(self, part: str) -> Path:
        """What the part's shim looks at."""
        folder = self.folder / "fault" / part
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def undo_folder(self, part: str) -> Path:
        """Where the part's shim notes what it must forget when the power goes."""
        folder = self.folder / "undo" / part
        if not folder.exists():
            folder.mkdir(parents=True)
            os.chown(folder, IMAGE_USER, IMAGE_USER)
        return folder

    # ------------------------------------------------------------ the pool

    def up(self, nodes: int | None = None) -> None:
        """Starts what does not run; with `nodes`, more of them."""
        self.nodes = max(self.nodes, nodes or 0)
        self.make_disk("coordinator")
        for number in range(self.nodes):
            self.make_disk(f"node-{number}")
        self.pool.start(self.nodes, self.data, console=False)

    def add_node(self) -> str:
        """One more, on an empty disk; returns its name. Does not wait for it."""
        part = f"node-{self.nodes}"
        self.make_disk(part)
        self.pool.start_node(self.nodes, self.data)
        self.nodes += 1
        return part

    def lose_coordinator(self) -> None:
        """Its machine is gone, with its disk."""
        self.container("coordinator").remove(force=True, v=True)
        subprocess.run(["umount", "--lazy", str(self.disk("coordinator"))], check=True, timeout=COMMAND_S)

    def restore_coordinator(self) -> str:
        """`redfs coordinator restore` onto an empty disk, and the new one started; returns what it said."""
        nodes = [word for part in self.node_names() for word in ("--node", f"{self.address(part)}:{NODE_PORT}")]
        self.make_disk("coordinator")
        said: bytes = self.engine.containers.run(
            self.pool.image,
            ["redfs", "coordinator", "restore", "--data", "/data", *nodes, "--yes"],
            labels={CLUSTER_LABEL: self.name, **self.labels},
            network=self.name,
            user=IMAGE_USER,
            volumes=[f"{self.disk('coordinator')}:/data", *code_in_place_of_the_images()],
            stderr=True,
            remove=True,
        )
        self.pool.start(self.nodes, self.data, console=False)
        return said.decode()

    def bury(self, part: str) -> int:
        """Ends a node for good, its disk too; returns its number in the pool."""
        node_id = self.node_id(part)
        self.take_away(part)
        return node_id

    def take_away(self, part: str) -> None:
        """The node's container and its disk."""
        self._dead.add(part)
        self.container(part).remove(force=True, v=True)
        subprocess.run(["umount", "--lazy", str(self.disk(part))], check=True, timeout=COMMAND_S)
        self.disk(part).rmdir()

    def make_disk(self, part: str) -> None:
        """An empty disk for the part, where it has none."""
        disk = self.disk(part)
        disk.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(disk):
            how = f"size={self._disk_bytes},mode=700,uid=740,gid=740"
            subprocess.run(["mount", "-t", "tmpfs", "-o", how, self.name, str(disk)], check=True, timeout=COMMAND_S)

    def disk(self, part: str) -> Path:
        """The folder that is the part's /data."""
        return self.data / part

    def container(self, part: str) -> Container:
        """As the engine has it now."""
        return self.pool.containers()[part]

    def node_names(self) -> list[str]:
        """All nodes that were not buried."""
        names = [f"node-{number}" for number in range(self.nodes)]
        return [name for name in names if name not in self._dead]

    def api(self) -> Pool:
        """A connection to the coordinator."""
        return Pool.connect(self.pool.coordinator())

    def address(self, part: str) -> str:
        """The part's host on the network, also while it does not run."""
        network = self.container(part).attrs["NetworkSettings"]["Networks"][self.name]
        return str(network["IPAddress"] or network["IPAMConfig"]["IPv4Address"])

    def node_id(self, part: str) -> int:
        """The pool's number of the node."""
        host = self.address(part)
        with self.api() as pool:
            return next(node.node_id for node in pool.nodes() if node.address.startswith(f"{host}:"))

    def states(self) -> dict[str, str]:
        """The state that the coordinator knows of each node, by part."""
        with self.api() as pool:
            found = {node.address.rpartition(":")[0]: node.state for node in pool.nodes()}
        return {part: found.get(self.address(part), "") for part in self.node_names()}

    def wait_for_nodes(self, up: int) -> None:
        """Until so many nodes are up."""
        with self.api() as pool:

            def so_many() -> bool:
                try:
                    return sum(node.state == "up" for node in pool.nodes()) == up
                except RedfsError:
                    return False

            wait_for(so_many, f"{up} nodes up")

    def shown_bytes(self, volume: str) -> int:
        """What the volume shows, by the coordinator."""
        with self.api() as pool:
            return next(found.usage.logical_bytes for found in pool.volumes() if found.name == volume)

    def status(self) -> pb.PoolStatus:
        """The pool's status."""
        with self.api() as pool:
            return pool.status()

    # ------------------------------------------------------------ clients

    def client(self, name: str) -> Client:
        """A container that mounts, made where it is not there."""
        if name in self._clients:
            return self._clients[name]
        records = self.folder / "records" / name
        records.mkdir(parents=True)
        container = self.engine.containers.run(
            self.pool.image,
            ["idle"],
            name=f"{self.name}-{name}",
            hostname=name,
            detach=True,
            labels={CLUSTER_LABEL: self.name, PART_LABEL: name, **self.labels},
            network=self.name,
            environment={"REDFS_POOL": self.pool.coordinator()},
            user="0",
            cap_add=["SYS_ADMIN"],
            devices=["/dev/fuse"],
            security_opt=["apparmor=unconfined"],
            volumes=[f"{HERE / 'load.py'}:/load.py:ro", f"{records}:/records", *code_in_place_of_the_images()],
        )
        self._clients[name] = made = Client(name, container, records)
        return made

    def run(self, client: Client, *words: str) -> tuple[int, str]:
        """A command in the client's container: exit code and what it said."""
        done = client.container.exec_run(["timeout", str(COMMAND_S), *words])
        assert isinstance(done.output, bytes)
        assert done.exit_code is not None
        return done.exit_code, done.output.decode()

    def must(self, client: Client, *words: str) -> str:
        """One that must work."""
        code, said = self.run(client, *words)
        assert code == 0, f"{' '.join(words)}: {code}: {said}"
        return said

    def start(self, client: Client, shell: str) -> Program:
        """A line of shell in the client's container; does not wait for its end."""
        known = self.engine.api.exec_create(client.container.id, ["bash", "-c", shell])["Id"]
        self.engine.api.exec_start(known, detach=True)
        return Program(self, known, shell)

    def mount(self, client: Client, volume: str) -> str:
        """Mounts the volume; returns the folder in the container."""
        folder = f"/mnt/redfs/{volume}"
        self.must(client, "redfs", "mount", volume, folder)
        client.mounted.append(volume)
        return folder

    def umount(self, client: Client, volume: str) -> None:
        """With everything written."""
        if volume in client.read_beside:
            self.must(client, "redfs", "umount", f"/mnt/beside/{volume}")
            client.read_beside.remove(volume)
        self.must(client, "redfs", "umount", f"/mnt/redfs/{volume}")
        client.mounted.remove(volume)

    @staticmethod
    def forget(client: Client) -> None:
        """The client's container was killed: nothing is mounted there any more."""
        client.mounted.clear()
        client.read_beside.clear()

    # ------------------------------------------------------------ the load

    def start_load(self, client: Client, volume: str, seed: int, pause_s: float = PAUSE_S) -> Running:
        """Begins to write and read; it is under way when this returns.

        Much is read through a second, read-only mount, which has not seen it written: what the first one reads it has
        in its cache, and no node is asked.
        """
        beside = f"/mnt/beside/{volume}"
        if volume not in client.read_beside:
            self.must(client, "redfs", "mount", "--read-only", volume, beside)
            client.read_beside.append(volume)
        records = client.records / f"{volume}-{seed}"
        records.mkdir()
        words = ["python3", "/load.py", "run", f"/mnt/redfs/{volume}", f"/records/{records.name}"]
        words += ["--seed", str(seed), "--pause", str(pause_s), "--beside", beside]
        with (records / "said").open("wb"):
            pass
        shell = f"exec {' '.join(words)} >/records/{records.name}/said 2>&1"
        client.container.exec_run(["bash", "-c", shell], detach=True)
        running = Running(self, client, volume, records)
        running.progress(5)
        return running

    def assert_clean(self) -> None:
        """`redfs check --data` finds nothing."""
        with self.api() as pool:
            report = settled_report(pool, verify_data=True, timeout_s=WAIT_S)
        assert report.clean, report.data()

    def wait_until_healthy(self) -> None:
        """Until all that was lost has been made anew."""

        def healthy() -> bool:
            status = self.status()
            return status.health == "ok" and not status.jobs

        wait_for(healthy, "a healthy pool", HEALED_S)

    def wait_until_out(self, node_ids: Sequence[int]) -> None:
        """Until the pool has given these up."""
        with self.api() as pool:

            def out() -> bool:
                states = {node.node_id: node.state for node in pool.nodes()}
                return all(states.get(node_id) == "out" for node_id in node_ids)

            wait_for(out, f"nodes {node_ids} given up")

    def scrub(self) -> None:
        """Every shard is read and checked, and what is bad made anew."""
        with self.api() as pool:
            pool.start_job("scrub")
        self.wait_until_healthy()

    def remove_volume(self, volume: str) -> None:
        """Unmounts it everywhere and deletes it."""
        for client in self._clients.values():
            while volume in client.mounted:
                self.umount(client, volume)
        with self.api() as pool:
            pool.delete_volume(volume)

    # ------------------------------------------------------------ the end

    def destroy(self) -> None:
        """Takes all of it away, whatever state it is in."""
        for container in self.engine.containers.list(all=True, filters={"label": f"{CLUSTER_LABEL}={self.name}"}):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True, v=True)
        for network in self.engine.networks.list(filters={"label": f"{CLUSTER_LABEL}={self.name}"}):
            network.remove()
        for disk in self.data.iterdir() if self.data.is_dir() else ():
            if os.path.ismount(disk):
                subprocess.run(["umount", "--lazy", str(disk)], check=False, timeout=COMMAND_S)
        shutil.rmtree(self.data, ignore_errors=True)


@dataclass
class Program:
    """One that runs in a client's container."""

    cluster: Cluster
    known: str
    """The engine's name of it."""
    shell: str

    def exit_code(self) -> int | None:
        """None while it runs."""
        code: int | None = self.cluster.engine.api.exec_inspect(self.known)["ExitCode"]
        return code

    def wait(self) -> int | None:
        """Until it has ended; its exit code."""
        wait_for(lambda: self.exit_code() is not None, f"the end of: {self.shell}")
        return self.exit_code()


@dataclass
class Running:
    """A load under way."""

    cluster: Cluster
    client: Client
    volume: str
    records: Path

    def done(self) -> tuple[int, int]:
        """Operations so far, and how many of them were reads through the second mount."""
        try:
            operations, beside = (self.records / "progress").read_text().split()
        except FileNotFoundError:
            return 0, 0
        return int(operations), int(beside)

    def progress(self, operations: int, timeout_s: float = PAUSE_S) -> None:
        """Until so many more operations are done, with some that had to ask the nodes: what was broken before is felt
        by then."""
        before = self.done()

        def enough() -> bool:
            now = self.done()
            return now[0] >= before[0] + operations and now[1] >= before[1] + operations // COLD_ONE_IN

        wait_for(
            lambda: enough() or self._ended(),
            lambda: f"{operations} more operations of the load: {before} before, {self.done()} now; {self._stands()}",
            timeout_s,
        )
        assert not self._ended(), self._said()

    def wait_until_it_stands(self) -> None:
        """Until no operation has ended for a while: what is broken is felt."""
        since_s, before = time.monotonic(), self.done()

        def stands() -> bool:
            nonlocal since_s, before
            now = self.done()
            if now != before:
                since_s, before = time.monotonic(), now
            return time.monotonic() - since_s > STANDS_S

        wait_for(stands, "the load to stand still")

    def _stands(self) -> str:
        """What keeps it, as far as can be seen from outside."""
        doing = (self.records / "doing").read_text()
        said = "".join((self.records / "said").read_text().splitlines(keepends=True)[-3:])
        try:
            status = self.cluster.status()
            pool = f"{status.health}, {list(status.problems)}, {self.cluster.states()}"
        except RedfsError as error:
            pool = str(error)
        logs = f"tail -n 15 ~/.local/state/redfs/mount-{self.volume}.log"
        _, logged = self.cluster.run(self.client, "bash", "-c", logs)
        return f"at: {doing}; said: {said}; the pool: {pool}; the mounts: {logged}"

    def _ended(self) -> bool:
        return (self.records / "result.json").exists()

    def _said(self) -> str:
        return (self.records / "said").read_text() or (self.records / "result.json").read_text()

    def stop(self) -> dict[str, Any]:
        """Ends it, and returns what it has to say."""
        (self.records / "stop").touch()
        wait_for(self._ended, lambda: f"the end of the load; {self._stands()}", PAUSE_S)
        return self.result()

    def result(self) -> dict[str, Any]:
        """What it had to say when it ended."""
        result: dict[str, Any] = json.loads((self.records / "result.json").read_text())
        return result

    def stop_unharmed(self) -> dict[str, Any]:
        """Ends it; no request failed, none took longer than the pause, and nothing else was read than was written."""
        result = self.stop()
        assert not result["wrong"], result
        assert not result["failed"], result
        assert not result["error_count"], result
        return result

    def check(self) -> None:
        """Everything that was acknowledged is there, seen by a fresh mount."""
        if self.volume in self.client.mounted:
            self.cluster.umount(self.client, self.volume)
        folder = self.cluster.mount(self.client, self.volume)
        said = self.cluster.must(self.client, "python3", "/load.py", "check", folder, f"/records/{self.records.name}")
        assert json.loads(said) == []
