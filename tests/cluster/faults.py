"""What breaks: processes, networks, disks, clocks of a cluster in containers.

Each fault is made from outside of the containers: signals through the engine, packets through the network namespace of
a part (iptables, and netem or a relay process where the kernel has no netem), disks through the folders that they are
on this machine, read errors and clocks through `shim.c`, what a power failure loses through `power.c`. Every fault that
goes on has its end here, and `heal` ends all. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.cluster.power import take_back
from tests.cluster.rig import Cluster, wait_for
from tests.hosts.network import NetworkFailed, command

CHAIN_IN, CHAIN_OUT = "REDFS-IN", "REDFS-OUT"
RECORD_MAGIC = b"RedFSrec"
PAGE_BYTES = 4096
BALLAST = "ballast"
BALLAST_STEP_BYTES = 1 << 20


class Faults:
    """Breaks one cluster."""

    def __init__(self, cluster: Cluster, seed: int = 1) -> None:
        self.cluster = cluster
        self.random = random.Random(seed)
        self._cut: set[str] = set()
        self._frozen: set[str] = set()
        self._slowed: dict[str, tuple[str, str, str, subprocess.Popen[str]] | None] = {}

    # ------------------------------------------------------------ processes

    def kill(self, *parts: str) -> None:
        """kill -9."""
        for part in parts:
            self.cluster.container(part).kill("SIGKILL")
        for part in parts:
            wait_for(lambda part=part: self.cluster.container(part).status == "exited", f"{part} gone")  # type: ignore[misc]

    def restart(self, *parts: str) -> None:
        """Starts what was killed; the network's faults of before are gone with its namespace."""
        for part in parts:
            self._cut.discard(part)
            self.cluster.container(part).start()

    def stop(self, *parts: str) -> None:
        """SIGTERM, and waits for the end."""
        for part in parts:
            self.cluster.container(part).stop(timeout=30)

    def freeze(self, *parts: str) -> None:
        """SIGSTOP: it answers nothing, and its connections stand."""
        for part in parts:
            self.cluster.container(part).kill("SIGSTOP")
            self._frozen.add(part)

    def thaw(self, *parts: str) -> None:
        """SIGCONT."""
        for part in parts:
            self.cluster.container(part).kill("SIGCONT")
            self._frozen.discard(part)

    # ------------------------------------------------------------ the network

    def inside(self, part: str) -> list[str]:
        """What a command begins with that is to run in the part's network."""
        return ["nsenter", f"--net=/proc/{self._pid(part)}/ns/net"]

    def _pid(self, part: str) -> int:
        return int(self.cluster.container(part).attrs["State"]["Pid"])

    def _iptables(self, part: str, *words: str) -> None:
        command(*self.inside(part), "iptables", "-w", *words)

    def _prepare(self, part: str) -> None:
        if part in self._cut:
            return
        for chain, hook in ((CHAIN_IN, "INPUT"), (CHAIN_OUT, "OUTPUT")):
            try:
                self._iptables(part, "-N", chain)
            except NetworkFailed:  # it is there from an earlier test
                self._iptables(part, "-F", chain)
            else:
                self._iptables(part, "-I", hook, "-j", chain)
        self._cut.add(part)

    def deafen(self, part: str, *to: str) -> None:
        """Loses what these send to the part; what it sends to them arrives."""
        self._prepare(part)
        for other in to:
            self._iptables(part, "-A", CHAIN_IN, "-s", self.cluster.address(other), "-j", "DROP")

    def mute(self, part: str, *to: str) -> None:
        """Loses what the part sends to these; what they send to it arrives."""
        self._prepare(part)
        for other in to:
            self._iptables(part, "-A", CHAIN_OUT, "-d", self.cluster.address(other), "-j", "DROP")

    def cut(self, part: str, *others: str) -> None:
        """No packet between the part and these, in either direction."""
        self.deafen(part, *others)
        self.mute(part, *others)

    def isolate(self, part: str) -> None:
        """No packet to or from anybody."""
        self._prepare(part)
        self._iptables(part, "-A", CHAIN_IN, "!", "-i", "lo", "-j", "DROP")
        self._iptables(part, "-A", CHAIN_OUT, "!", "-o", "lo", "-j", "DROP")

    def lose(self, part: str, fraction: float) -> None:
        """Loses that much of what the part is sent and sends."""
        self._prepare(part)
        how = ("-m", "statistic", "--mode", "random", "--probability", f"{fraction:.3f}", "-j", "DROP")
        self._iptables(part, "-A", CHAIN_IN, "!", "-i", "lo", *how)
        self._iptables(part, "-A", CHAIN_OUT, "!", "-o", "lo", *how)

    def connect(self, *parts: str) -> None:
        """Ends what the six above did."""
        for part in parts:
            if part in self._cut:
                self._iptables(part, "-F", CHAIN_IN)
                self._iptables(part, "-F", CHAIN_OUT)

    def delay(self, part: str, seconds: float) -> None:
        """Packets to and from the part come later, by that and up to half as much again."""
        try:
            how = ("root", "netem", "delay", f"{seconds * 1000:.1f}ms", f"{seconds * 250:.1f}ms")
            command(*self.inside(part), "tc", "qdisc", "replace", "dev", "eth0", *how)
            self._slowed[part] = None
            return
        except NetworkFailed:
            pass  # no netem in this kernel: a relay in the cable
        cable = self._cable(part)
        bridge = os.path.basename(os.readlink(f"/sys/class/net/{cable}/master"))
        near, far = f"rc{os.getpid() % 10**6}n{len(self._slowed)}", f"rc{os.getpid() % 10**6}f{len(self._slowed)}"
        command("ip", "link", "add", near, "type", "veth", "peer", "name", far)
        for end in (near, far):
            command("ip", "link", "set", end, "arp", "off", "addrgenmode", "none")
            command("ip", "link", "set", end, "up")
        relay = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.relay", cable, near, str(seconds), "0.0", "1"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).resolve().parents[2],
            start_new_session=True,
        )
        self._slowed[part] = (cable, bridge, near, relay)
        assert relay.stdout is not None
        assert relay.stdout.readline() == "ready\n"
        command("ip", "link", "set", cable, "nomaster")
        command("ip", "link", "set", far, "master", bridge)

    def _cable(self, part: str) -> str:
        """The end of the part's cable on this machine."""
        number = command(*self.inside(part), "cat", "/sys/class/net/eth0/iflink").strip()
        listed = command(*self.inside(part), "ip", "-o", "link", "show", "eth0")
        number = listed.split("@if")[1].split(":")[0] if "@if" in listed else number
        for name in os.listdir("/sys/class/net"):
            if Path(f"/sys/class/net/{name}/ifindex").read_text().strip() == number:
                return name
        raise AssertionError(f"{part} has no cable")

    def hurry(self, *parts: str) -> None:
        """Ends `delay`."""
        for part in parts:
            if part not in self._slowed:
                continue
            slowed = self._slowed.pop(part)
            if slowed is None:
                with contextlib.suppress(NetworkFailed):
                    command(*self.inside(part), "tc", "qdisc", "del", "dev", "eth0", "root")
                continue
            cable, bridge, near, relay = slowed
            with contextlib.suppress(NetworkFailed):
                command("ip", "link", "del", near)
            relay.kill()
            relay.wait()
            if relay.stdout is not None:
                relay.stdout.close()
            with contextlib.suppress(NetworkFailed):  # the container may be gone, and its cable with it
                command("ip", "link", "set", cable, "master", bridge)

    # ------------------------------------------------------------ disks

    def fill_disk(self, *nodes: str) -> None:
        """Until nothing goes on it any more."""
        for node in nodes:
            with (self.cluster.disk(node) / BALLAST).open("ab", buffering=0) as file:
                step = BALLAST_STEP_BYTES
                while step >= PAGE_BYTES:
                    try:
                        file.write(bytes(step))
                    except OSError:
                        step //= 2

    def empty_disk(self, *nodes: str) -> None:
        """Ends `fill_disk`."""
        for node in nodes:
            (self.cluster.disk(node) / BALLAST).unlink(missing_ok=True)

    def backing_files(self, node: str) -> list[Path]:
        """On the node's disk."""
        return sorted(self.cluster.disk(node).glob("*.shards"))

    def flip_bits(self, node: str, most: int = 10**9) -> int:
        """One bit in the payload of each of so many records, behind the node's back. Returns in how many."""
        flipped = 0
        for path in self.backing_files(node):
            with path.open("r+b", buffering=0) as file:
                size = os.fstat(file.fileno()).st_size
                for offset in range(0, size, PAGE_BYTES):
                    header = os.pread(file.fileno(), 128, offset)
                    if header[:8] != RECORD_MAGIC or header[10:12] != b"\0\1" or flipped >= most:
                        continue
                    if int.from_bytes(header[48:56], "big") != offset:
                        continue
                    length = int.from_bytes(header[68:72], "big")
                    place = offset + PAGE_BYTES + self.random.randrange(length)
                    byte = os.pread(file.fileno(), 1, place)[0] ^ (1 << self.random.randrange(8))
                    os.pwrite(file.fileno(), bytes([byte]), place)
                    flipped += 1
        return flipped

    def truncate(self, node: str, keep: float) -> None:
        """Cuts the newest backing file to that fraction. The node must not run: no disk does that under one."""
        path = self.backing_files(node)[-1]
        os.truncate(path, int(path.stat().st_size * keep))

    def wipe_disk(self, node: str) -> None:
        """An empty disk in the place of the old one. The node must not run."""
        for path in self.cluster.disk(node).iterdir():
            subprocess.run(["rm", "-rf", str(path)], check=True, timeout=60)

    def record_what_is_synced(self, *parts: str) -> None:
        """From now on it is known what they would lose if the power went (`power.c`)."""
        for part in parts:
            (self.cluster.fault_folder(part) / "power").touch()

    def lose_power(self, *parts: str) -> int:
        """All of them at once; takes away what they had not synced. Returns how many changes of files that were."""
        self.kill(*parts)
        undone = 0
        for part in parts:
            (self.cluster.fault_folder(part) / "power").unlink(missing_ok=True)
            undone += take_back(self.cluster.undo_folder(part) / "log", self.cluster.disk(part))
        return undone

    def fail_reads(self, *nodes: str, every: bool = True) -> None:
        """Reads of backing files give EIO, all or each third."""
        for node in nodes:
            (self.cluster.fault_folder(node) / "read-error").write_text("all" if every else "some")

    def allow_reads(self, *nodes: str) -> None:
        """Ends `fail_reads`."""
        for node in nodes:
            (self.cluster.fault_folder(node) / "read-error").unlink(missing_ok=True)

    # ------------------------------------------------------------ clocks

    def jump_clock(self, part: str, seconds: int) -> None:
        """The part's wall clock is wrong by that much; 0 sets it right. The monotonic clock is the kernel's."""
        path = self.cluster.fault_folder(part) / "clock"
        beside = path.with_suffix(".new")
        beside.write_text(str(seconds))
        beside.replace(path)

    # ------------------------------------------------------------ the end

    def heal(self, parts: Sequence[str] | None = None) -> None:
        """Ends every fault and starts everything."""
        for part in list(self._slowed):
            self.hurry(part)
        for part, container in self.cluster.pool.containers().items():
            if parts is not None and part not in parts:
                continue
            if part.startswith("node-"):
                self.empty_disk(part)
                self.allow_reads(part)
            if (self.cluster.fault_folder(part) / "clock").exists():
                self.jump_clock(part, 0)
            (self.cluster.fault_folder(part) / "power").unlink(missing_ok=True)
            if container.status != "running":
                if part == "coordinator" or part.startswith("node-"):
                    self.restart(part)
                continue
            if part in self._frozen:
                self.thaw(part)
            if part in self._cut:
                self.connect(part)
