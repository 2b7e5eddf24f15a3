"""A cluster of one test: its containers, client containers with real mounts, the load in them, and the checks after it.

Every node's disk is a small file system in memory of its own, mounted on this machine, so that it can be filled and its
backing files be changed from outside. All names have a random suffix and all objects a label; `destroy` takes away
everything that has it, in whatever state it is, and `remove_leftovers` what a run that was killed has left.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
from docker import DockerClient
from docker.models.containers import Container

from redfs.client.api import Pool
from redfs.client.check import CheckReport, run_check
from redfs.client.container_pool import CLUSTER_LABEL, PART_LABEL, ContainerPool, Extras
from redfs.core.errors import RedfsError
from redfs.proto.gen import cluster_pb2 as pb

TEST_LABEL = "redfs.test"
"""Its value is the id of the process that made the object."""
WAIT_S = 90.0
"""For a condition that takes a second on an idle machine."""
HEALED_S = 240.0
"""For some dozen MiB to be made anew on a busy machine."""
POLL_S = 0.1
LOST_SPACE = "bytes are lost space"
COMMAND_S = 120
PAUSE_S = 60.0
"""The bound of the load: the longest that one request may take, whatever breaks meanwhile."""
DISK_BYTES = 256 << 20
LEASE_S = 6.0
SETTINGS = (f"lease_s={LEASE_S}", "delete_grace_s=0.5", "node_down_s=3.0", "inventory_interval_s=5.0")
HERE = Path(__file__).resolve().parent


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = WAIT_S) -> None:
    """Returns when the condition holds; fails with `what` when it does not come to hold."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
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


def build_shim(folder: Path) -> Path:
    """The library of `shim.c`."""
    library = folder / "shim.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-O1", "-o", str(library), str(HERE / "shim.c"), "-ldl"],
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
    mounted: list[str]


class Cluster:
    """See the module."""

    def __init__(
        self, engine: DockerClient, folder: Path, nodes: int, settings: Sequence[str] = (), disk_bytes: int = DISK_BYTES
    ) -> None:
        self.engine = engine
        self.folder = folder
        self.nodes = nodes
        self.name = f"redfs-test-{secrets.token_hex(4)}"
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
        return [f"{self._library}:/shim.so:ro", f"{self.fault_folder(part)}:/fault:ro"]

    def fault_folder(self, part: str) -> Path:
        """What the part's shim looks at."""
        folder = self.folder / "fault" / part
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    # ------------------------------------------------------------ the pool

    def up(self, nodes: int | None = None) -> None:
        """Starts what does not run; with `nodes`, more of them."""
        self.nodes = max(self.nodes, nodes or 0)
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

    def bury(self, part: str) -> int:
        """Ends a node for good, its disk too; returns its number in the pool."""
        node_id = self.node_id(part)
        container = self.container(part)
        self._dead.add(part)
        container.remove(force=True, v=True)
        subprocess.run(["umount", "--lazy", str(self.disk(part))], check=True, timeout=COMMAND_S)
        self.disk(part).rmdir()
        return node_id

    def make_disk(self, part: str) -> None:
        """An empty disk for the node, where it has none."""
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
            volumes=[f"{HERE / 'load.py'}:/load.py:ro", f"{records}:/records"],
        )
        self._clients[name] = made = Client(name, container, records, [])
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

    def mount(self, client: Client, volume: str) -> str:
        """Mounts the volume; returns the folder in the container."""
        folder = f"/mnt/redfs/{volume}"
        self.must(client, "redfs", "mount", volume, folder)
        client.mounted.append(volume)
        return folder

    def umount(self, client: Client, volume: str) -> None:
        """With everything written."""
        self.must(client, "redfs", "umount", f"/mnt/redfs/{volume}")
        client.mounted.remove(volume)

    @staticmethod
    def forget(client: Client) -> None:
        """The client's container was killed: nothing is mounted there any more."""
        client.mounted.clear()

    # ------------------------------------------------------------ the load

    def start_load(self, client: Client, volume: str, seed: int, pause_s: float = PAUSE_S) -> Running:
        """Begins to write and read; it is under way when this returns."""
        records = client.records / f"{volume}-{seed}"
        records.mkdir()
        words = ["python3", "/load.py", "run", f"/mnt/redfs/{volume}", f"/records/{records.name}"]
        words += ["--seed", str(seed), "--pause", str(pause_s)]
        with (records / "said").open("wb"):
            pass
        shell = f"exec {' '.join(words)} >/records/{records.name}/said 2>&1"
        client.container.exec_run(["bash", "-c", shell], detach=True)
        running = Running(self, client, volume, records)
        running.progress(5)
        return running

    def check(self) -> CheckReport:
        """`redfs check --data`."""
        with self.api() as pool:
            return run_check(pool, verify_data=True, progress=None)

    def assert_clean(self) -> None:
        """It finds nothing.

        A shard that reached a node after its segment was given up is found at the next inventory, and only takes room
        until then: that one is waited for.
        """
        deadline = time.monotonic() + WAIT_S
        while True:
            report = self.check()
            only_room = not report.unchecked and all(LOST_SPACE in problem for problem in report.problems)
            if report.clean or not only_room or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        assert report.clean, report.data()

    def wait_for_idle(self) -> None:
        """Until no job runs and no shard waits for its deletion."""

        def idle() -> bool:
            with self.api() as pool:
                status = pool.status()
            return not status.jobs and not status.shards_to_delete

        wait_for(idle, "jobs done and shards deleted", HEALED_S)

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
class Running:
    """A load under way."""

    cluster: Cluster
    client: Client
    volume: str
    records: Path

    def operations(self) -> int:
        """Done so far."""
        try:
            return int((self.records / "progress").read_text())
        except FileNotFoundError:
            return 0

    def progress(self, operations: int, timeout_s: float = PAUSE_S) -> None:
        """Until so many more operations are done: what was broken before is felt by then."""
        wanted = self.operations() + operations
        wait_for(
            lambda: self.operations() >= wanted or self._ended(),
            f"{operations} more operations of the load ({(self.records / 'said').read_text()})",
            timeout_s,
        )
        assert not self._ended(), self._said()

    def _ended(self) -> bool:
        return (self.records / "result.json").exists()

    def _said(self) -> str:
        return (self.records / "said").read_text() or (self.records / "result.json").read_text()

    def stop(self) -> dict[str, Any]:
        """Ends it, and returns what it has to say."""
        (self.records / "stop").touch()
        wait_for(self._ended, f"the end of the load ({(self.records / 'said').read_text()})", PAUSE_S)
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
        return result

    def check(self) -> None:
        """Everything that was acknowledged is there, seen by a fresh mount."""
        if self.volume in self.client.mounted:
            self.cluster.umount(self.client, self.volume)
        folder = self.cluster.mount(self.client, self.volume)
        said = self.cluster.must(self.client, "python3", "/load.py", "check", folder, f"/records/{self.records.name}")
        assert json.loads(said) == []
