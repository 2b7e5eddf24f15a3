"""A whole pool in containers on this machine: coordinator, storage nodes and console on a private network.

Everything that belongs to it is found by the label `redfs.cluster`, so there is no file that could say otherwise than
the engine:

    network NAME                          with fixed addresses: a part that starts again is found where it was. Its
                                          label `redfs.data` holds the folder of the data, where one was named
    containers NAME-coordinator, NAME-node-0 ..., NAME-console
    volumes of the same names             what the coordinator and the nodes keep, unless a folder was named for it

Starting is idempotent: what runs is left alone, what stopped is started, what lacks is made. Every wait has a bound
and ends with the last line that the part said. The parts run without root, without capabilities, and on a file system
that they cannot write to but for their data.

| what fails | what it leaves |
|---|---|
| this program, or the engine, while it starts a pool | some parts; the next start goes on there |
| ... while it stops one | what was not stopped yet; the next stop takes it |
| a part, later | the engine starts it again, at the same address |
| the machine | the same, once the engine is up again |

Fails with InvalidArgument, Busy (the pool is there with its data elsewhere), NotFound, Unavailable (no engine, no
image, a part does not come up, the engine says no). A retry is always safe. Addresses of containers are reached from
this machine on Linux with the engine on it; elsewhere `start` says that the coordinator does not answer.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redfs as package
from redfs.client.local_pool import (
    DEFAULT_NODES,
    FIRST_CONSOLE_PORT,
    MAX_NODES,
    START_TIMEOUT_S,
    free_port,
    port_is_free,
)
from redfs.core.errors import Busy, InvalidArgument, NotFound, Unavailable

if TYPE_CHECKING:
    from docker import DockerClient
    from docker.models.containers import Container
    from docker.models.networks import Network

UNIX = "unix://"
DEFAULT_ENGINE = "unix:///var/run/docker.sock"
IMAGE = "redfs:latest"
DEFAULT_NAME = "redfs"
CLUSTER_LABEL = "redfs.cluster"
PART_LABEL = "redfs.part"
DATA_LABEL = "redfs.data"
"""Of the network: the folder that holds the parts' data; empty where volumes do."""
COORDINATOR_PORT = 7400
CONSOLE_PORT = 7480
COORDINATOR_HOST, CONSOLE_HOST, FIRST_NODE_HOST = 2, 3, 10
"""The last byte of the parts' addresses; node n has FIRST_NODE_HOST + n. The network itself has 1."""
SUBNET_BITS, OTHERS_BITS = 24, 25
"""The upper half of the network is for what else is put into it, as clients."""
IMAGE_USER = 740
"""The user of the image, whom the data must belong to."""
ENGINE_TIMEOUT_S = 120
"""For one request: a machine that is busy with its disk takes its time to remove a volume."""
STOP_TIMEOUT_S = 30
"""From SIGTERM to SIGKILL, which loses nothing acknowledged."""
BUILD_TIMEOUT_S = 1800
"""The first build of the image on a slow line."""
POLL_S = 0.1
_RESTART: Any = {"Name": "unless-stopped"}
_NO_RESTART: Any = {"Name": "no"}
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}$")
NODE = re.compile(r"node-(\d+)$")


@dataclass(frozen=True)
class Part:
    """One container of the pool."""

    name: str
    """`coordinator`, `node-0`, ..., `console`."""
    container: str
    state: str
    """The engine's word: running, exited, paused."""
    address: str
    """HOST:PORT inside of the network; empty while it does not run."""


@dataclass(frozen=True)
class Started:
    """What `start` found and did."""

    coordinator: str
    """HOST:PORT, reached from this machine and from containers on the network."""
    console: str
    """URL on this machine; empty where there is none."""
    nodes: int
    pool_id: str
    started: list[str]


@dataclass(frozen=True)
class Extras:
    """What tests and special set-ups add to the parts' programs. Holds for containers that are made from then on."""

    coordinator: Sequence[str] = ()
    node: Sequence[str] = ()
    restart: bool = True
    """Whether the engine starts again what ends."""
    environment: dict[str, str] = field(default_factory=dict)
    binds: Callable[[str], Sequence[str]] = lambda part: ()
    """Further things mounted into a part, as SOURCE:TARGET:ro."""
    labels: dict[str, str] = field(default_factory=dict)


def connect_to_engine() -> DockerClient:
    """The engine that DOCKER_HOST or its default names. Raises Unavailable; close it."""
    try:
        import docker
    except ImportError as error:
        raise Unavailable(
            "a pool in containers needs the Docker SDK for Python: pip install 'redfs[containers]'"
        ) from error
    host = os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE
    if host.startswith(UNIX):
        # Asked first: the SDK does not close a socket that it could not connect.
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(host.removeprefix(UNIX))
            except OSError as error:
                raise _no_engine() from error
    try:
        engine = docker.from_env(timeout=ENGINE_TIMEOUT_S)
    except docker.errors.DockerException as error:
        raise _no_engine() from error
    try:
        engine.ping()
    except (docker.errors.DockerException, OSError) as error:
        engine.close()
        raise _no_engine() from error
    return engine


def _no_engine() -> Unavailable:
    return Unavailable(
        "the Docker engine does not answer: install it (Debian: docker.io), start it (systemctl start docker), "
        "or add this user to the group docker"
    )


@contextlib.contextmanager
def _engine_errors() -> Iterator[None]:
    """What the engine says no to, in one line."""
    import docker

    try:
        yield
    except docker.errors.APIError as error:
        raise Unavailable(f"the Docker engine says: {error.explanation or error}") from error
    except docker.errors.DockerException as error:
        raise Unavailable(f"the Docker engine says: {error}") from error
    except OSError as error:  # also what the HTTP library raises
        raise Unavailable(f"the Docker engine does not answer any more: {error}") from error


def build_program() -> Path | None:
    """The program that makes the image, where RedFS runs from a checkout."""
    path = Path(package.__file__).resolve().parents[1] / "deploy" / "build"
    return path if path.is_file() else None


class ContainerPool:
    """One pool in containers, named `name`."""

    def __init__(
        self, engine: DockerClient, name: str = DEFAULT_NAME, image: str = IMAGE, extras: Extras | None = None
    ) -> None:
        if not NAME.match(name):
            raise InvalidArgument(f"'{name}' is no name for a cluster: use up to 31 small letters, digits and -")
        self.engine = engine
        self.name = name
        self.image = image
        self._extras = extras or Extras()

    # ------------------------------------------------------------ what there is

    def containers(self) -> dict[str, Container]:
        """The pool's containers by part, running or not."""
        with _engine_errors():
            found = self.engine.containers.list(all=True, filters={"label": f"{CLUSTER_LABEL}={self.name}"})
        return {container.labels[PART_LABEL]: container for container in found if PART_LABEL in container.labels}

    def parts(self) -> list[Part]:
        """All parts, in the order coordinator, nodes, console, others. Raises NotFound where there is none."""
        found = self.containers()
        if not found:
            raise self._not_there()
        return [self._part(name, found[name]) for name in sorted(found, key=_order)]

    def _part(self, name: str, container: Container) -> Part:
        networks = container.attrs.get("NetworkSettings", {}).get("Networks", {})
        host = networks.get(self.name, {}).get("IPAddress", "")
        port = {"coordinator": COORDINATOR_PORT, "console": CONSOLE_PORT}.get(name, COORDINATOR_PORT + 1)
        known = bool(host) and (name in ("coordinator", "console") or bool(NODE.match(name)))
        return Part(name, str(container.name), container.status, f"{host}:{port}" if known else host)

    def coordinator(self) -> str:
        """HOST:PORT of the coordinator. Raises NotFound, Unavailable where it does not run."""
        for part in self.parts():
            if part.name == "coordinator":
                if not part.address:
                    raise Unavailable(f"{part.container} does not run: start it with `redfs cluster up --containers`")
                return part.address
        raise self._not_there()

    def console_url(self) -> str:
        """Where the console is on this machine; empty where none runs."""
        container = self.containers().get("console")
        if container is None:
            return ""
        published = (container.attrs.get("NetworkSettings", {}).get("Ports") or {}).get(f"{CONSOLE_PORT}/tcp")
        return f"http://127.0.0.1:{published[0]['HostPort']}" if published else ""

    def node_numbers(self, data: Path | None) -> list[int]:
        """The nodes that there are, or were: by their containers, and by their data."""
        names = set(self.containers())
        if data is not None:
            names |= {path.name for path in data.iterdir()} if data.is_dir() else set()
        else:
            names |= {volume.attrs["Labels"][PART_LABEL] for volume in self._volumes()}
        return sorted(int(match[1]) for name in names if (match := NODE.match(name)))

    def _volumes(self) -> list[Any]:
        with _engine_errors():
            return list(self.engine.volumes.list(filters={"label": f"{CLUSTER_LABEL}={self.name}"}))

    def _network(self) -> Network | None:
        with _engine_errors():
            found = self.engine.networks.list(names=[self.name])
        for network in found:  # the engine matches parts of names
            if network.name == self.name:
                if (network.attrs.get("Labels") or {}).get(CLUSTER_LABEL) != self.name:
                    raise Busy(f"the engine has a network '{self.name}' of something else: choose another --name")
                return network
        return None

    def _not_there(self) -> NotFound:
        return NotFound(f"there is no cluster '{self.name}' here: start one with `redfs cluster up --containers`")

    # ------------------------------------------------------------ start

    def ensure_image(self, tell: Callable[[str], None]) -> None:
        """Makes the image where it is missing. Raises Unavailable."""
        import docker

        with _engine_errors():
            try:
                self.engine.images.get(self.image)
                return
            except docker.errors.ImageNotFound:
                pass
        program = build_program()
        if self.image != IMAGE or program is None:
            raise Unavailable(f"there is no image {self.image} here: build it with deploy/build in a checkout of RedFS")
        tell(f"Making the image {self.image}, which takes some minutes the first time")
        try:
            done = subprocess.run([str(program)], capture_output=True, text=True, check=False, timeout=BUILD_TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"the image could not be made: {error}") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines() or ["it said nothing"]
            raise Unavailable(f"the image could not be made: {said[-1].removeprefix('build: ')}")

    def start(
        self,
        nodes: int | None = None,
        data: Path | None = None,
        *,
        console: bool = True,
        console_port: int | None = None,
    ) -> Started:
        """Starts what does not run and waits until all of it is up.

        `nodes` is the least number of nodes; without it, those that are there, or six. `data` is a folder for what
        coordinator and nodes keep, one subfolder each; without it the one from last time, else the engine's volumes.
        """
        if nodes is not None and not 1 <= nodes <= MAX_NODES:
            raise InvalidArgument(f"--nodes must be 1 to {MAX_NODES}, not {nodes}")
        if console_port is not None and not 0 < console_port < 65536:
            raise InvalidArgument(f"--console-port must be 1 to 65535, not {console_port}")
        data = data.expanduser().absolute() if data is not None else None
        network = self._network() or self._make_network(data)
        kept = (network.attrs.get("Labels") or {}).get(DATA_LABEL, "")
        if data is not None and kept != str(data):
            where = f"in {kept}" if kept else "in the engine's volumes"
            raise Busy(f"the cluster '{self.name}' has its data {where}: give this one another --name")
        data = Path(kept) if kept else None
        subnet = ipaddress.IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"])
        there = self.node_numbers(data)
        count = max((there[-1] + 1 if there else 0), nodes if nodes is not None else (0 if there else DEFAULT_NODES))
        known = self.containers()
        started = []
        coordinator = f"{subnet[COORDINATOR_HOST]}:{COORDINATOR_PORT}"

        if self._run("coordinator", str(subnet[COORDINATOR_HOST]), data, known, self._extras.coordinator):
            started.append("coordinator")
        pool_id = self._wait_for_coordinator(coordinator)
        wanted: list[str] = []
        for number in range(count):
            name, host = f"node-{number}", str(subnet[FIRST_NODE_HOST + number])
            if self._run(name, host, data, known, self._extras.node, coordinator):
                started.append(name)
            wanted.append(f"{host}:{COORDINATOR_PORT + 1}")
            if number not in there:  # one after another, so that the pool numbers them in this order
                self._wait_for_nodes(coordinator, wanted)
        self._wait_for_nodes(coordinator, wanted)
        if console:
            ports = None
            if "console" not in known:
                port = console_port or free_port(FIRST_CONSOLE_PORT)
                if not port_is_free(port):
                    raise Busy(f"port {port} is taken by another program: choose another one with --console-port")
                ports = {f"{CONSOLE_PORT}/tcp": ("127.0.0.1", port)}
            if self._run("console", str(subnet[CONSOLE_HOST]), None, known, (), coordinator, ports):
                started.append("console")
        return Started(coordinator, self.console_url(), count, pool_id, started)

    def start_node(self, number: int, data: Path | None) -> str:
        """Starts one node of a pool that is up, made if need be; returns its HOST:PORT. Does not wait for it."""
        network = self._network()
        if network is None or not 0 <= number < MAX_NODES:
            raise self._not_there()
        host = str(ipaddress.IPv4Network(network.attrs["IPAM"]["Config"][0]["Subnet"])[FIRST_NODE_HOST + number])
        self._run(f"node-{number}", host, data, self.containers(), self._extras.node, self.coordinator())
        return f"{host}:{COORDINATOR_PORT + 1}"

    def _make_network(self, data: Path | None) -> Network:
        """Fixed addresses need a subnet that was said; the engine knows which one is free."""
        from docker.types import IPAMConfig, IPAMPool

        labels = {CLUSTER_LABEL: self.name, DATA_LABEL: str(data) if data is not None else "", **self._extras.labels}
        with _engine_errors():
            probe = self.engine.networks.create(self.name, driver="bridge", labels=labels)
            try:
                probe.reload()
                free = ipaddress.IPv4Network(probe.attrs["IPAM"]["Config"][0]["Subnet"])
            finally:
                probe.remove()
            if free.prefixlen < SUBNET_BITS:
                free = next(free.subnets(new_prefix=SUBNET_BITS))
            others = list(free.subnets(prefixlen_diff=OTHERS_BITS - SUBNET_BITS))[-1]
            pool = IPAMPool(subnet=str(free), iprange=str(others), gateway=str(free[1]))
            network = self.engine.networks.create(
                self.name, driver="bridge", labels=labels, ipam=IPAMConfig(pool_configs=[pool])
            )
            network.reload()
        return network

    def _run(
        self,
        part: str,
        host: str,
        data: Path | None,
        known: dict[str, Container],
        words: Sequence[str],
        coordinator: str = "",
        ports: dict[str, Any] | None = None,
    ) -> bool:
        """One part's container, made if need be. False where it ran already."""
        container = known.get(part)
        with _engine_errors():
            if container is not None:
                if container.status == "running":
                    return False
                if container.status == "paused":
                    container.unpause()
                else:
                    container.start()
                return True
            self._make(part, host, data, words, coordinator, ports).start()
        return True

    def _make(
        self, part: str, host: str, data: Path | None, words: Sequence[str], coordinator: str, ports: Any
    ) -> Container:
        kind = "node" if NODE.match(part) else part
        options: dict[str, Any] = {}
        if part != "console":
            options |= self._place(part, data)
        if kind == "node":
            # Nodes name the file system that they share by the host's name: these all lie on this machine's.
            options["hostname"] = f"{self.name}-nodes"
        options["volumes"] = [*options.get("volumes", []), *self._extras.binds(part)]
        endpoint = self.engine.api.create_endpoint_config(ipv4_address=host)
        return self.engine.containers.create(
            self.image,
            [kind, *words],
            name=f"{self.name}-{part}",
            labels={CLUSTER_LABEL: self.name, PART_LABEL: part, **self._extras.labels},
            network=self.name,
            networking_config={self.name: endpoint},
            environment={"REDFS_POOL": coordinator, **self._extras.environment}
            if coordinator
            else self._extras.environment,
            ports=ports,
            restart_policy=_RESTART if self._extras.restart else _NO_RESTART,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            read_only=True,
            tmpfs={"/tmp": ""},
            **options,
        )

    def _place(self, part: str, data: Path | None) -> dict[str, Any]:
        """Where the part keeps what it keeps, and as whom it runs."""
        if data is None:
            name = f"{self.name}-{part}"
            self.engine.volumes.create(name, labels={CLUSTER_LABEL: self.name, PART_LABEL: part, **self._extras.labels})
            return {"volumes": [f"{name}:/data"]}
        folder = data / part
        user: int | str = IMAGE_USER
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                os.chown(folder, IMAGE_USER, IMAGE_USER)
            else:
                user = f"{os.geteuid()}:{os.getegid()}"
        except OSError as error:
            raise InvalidArgument(f"cannot make the folder {folder}: {error.strerror}") from error
        return {"volumes": [f"{folder}:/data"], "user": user}

    # ------------------------------------------------------------ waiting

    def _wait_for_coordinator(self, address: str) -> str:
        """Until it answers; returns the pool's id."""
        from redfs.client.api import Pool

        with Pool.connect(address) as pool:
            found: list[str] = []

            def answers() -> bool:
                try:
                    found.append(pool.status().pool_id)
                except Unavailable:
                    return False
                return True

            self._wait(answers, ["coordinator"])
            return found[-1]

    def _wait_for_nodes(self, coordinator: str, addresses: Sequence[str]) -> None:
        from redfs.client.api import Pool

        wanted = set(addresses)
        names = [f"node-{number}" for number in range(len(addresses))]

        def up() -> bool:
            return wanted <= {node.address for node in pool.nodes() if node.state == "up"}

        with Pool.connect(coordinator) as pool:
            self._wait(up, names)

    def _wait(self, done: Callable[[], bool], parts: Sequence[str]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not done():
            late = time.monotonic() > deadline
            known = self.containers()
            for part in parts:
                container = known.get(part)
                if container is None or container.status in ("exited", "dead", "restarting"):
                    raise Unavailable(f"{part} ended at its start: {self._last_words(container)}")
            if late:
                said = self._last_words(known.get(parts[-1]))
                raise Unavailable(
                    f"{parts[-1]} did not come up in {START_TIMEOUT_S:.0f} s, or this machine does not reach "
                    f"addresses of containers: {said}"
                )
            time.sleep(POLL_S)

    def _last_words(self, container: Container | None) -> str:
        if container is None:
            return "its container is gone"
        with _engine_errors():
            lines = container.logs(tail=1).decode("utf-8", "replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (log: docker logs {container.name})"

    # ------------------------------------------------------------ stop

    def stop(self, *, remove_data: bool = False) -> list[str]:
        """Stops and removes the pool's containers, also those of clients. Returns the names of the parts there were.

        The network stays, with the addresses that people use and the place of the data. With `remove_data` it goes too,
        and the volumes; data in a folder always stays.
        """
        found = self.containers()
        network = self._network()
        volumes = self._volumes() if remove_data else []
        if not found and not volumes and (network is None or not remove_data):
            raise self._not_there()
        with _engine_errors():
            # Those that write first, those that they write to last.
            for name in sorted(found, key=_order, reverse=True):
                with _gone_is_fine():
                    if found[name].status == "paused":
                        found[name].unpause()
                    found[name].stop(timeout=STOP_TIMEOUT_S)
                with _gone_is_fine():
                    found[name].remove(force=True, v=True)
            if network is not None and remove_data:
                with _gone_is_fine():
                    network.remove()
            for volume in volumes:
                with _gone_is_fine():
                    volume.remove(force=True)
        return sorted(found, key=_order)


@contextlib.contextmanager
def _gone_is_fine() -> Iterator[None]:
    """What somebody else removed meanwhile is removed."""
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        yield


def _order(part: str) -> tuple[int, int, str]:
    """Coordinator, nodes by number, others, console."""
    match = NODE.match(part)
    if match:
        return 1, int(match[1]), part
    return {"coordinator": 0, "console": 3}.get(part, 2), 0, part
