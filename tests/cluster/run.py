"""Long runs: rounds of random faults under a load that verifies what it reads, and rounds of replaced nodes.

All of a round is drawn from the run's seed. Faults are never more than the policy tolerates at a time: two nodes, and
perhaps the coordinator. After some rounds all that was acknowledged is compared, and `redfs check --data` is clean.
Raises AssertionError with what is wrong.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from redfs.core.errors import NotAllowed
from tests.cluster.faults import Faults
from tests.cluster.rig import HEALED_S, Cluster, Running, wait_for

VOLUME = "files"
STILL = "still"
"""A volume whose files stay: those of the load come and go so fast that a lost node would soon not be missed."""
POLICY = "ec:4+2"
NODES = 6
OPERATIONS_BROKEN = (10, 60)
"""Of the load while something is broken; drawn."""
OPERATIONS_BETWEEN = 10
BROKEN_S = 300.0
"""For all of these; each by itself may take the load's pause."""


@dataclass(frozen=True)
class Fault:
    """One that may come together with others of other parts."""

    name: str
    make: Callable[[Faults, str], None]


def _kill_and_restart(faults: Faults, part: str) -> None:
    faults.kill(part)
    faults.restart(part)


NODE_FAULTS = (
    Fault("killed", lambda faults, part: faults.kill(part)),
    Fault("frozen", lambda faults, part: faults.freeze(part)),
    Fault("stopped", lambda faults, part: faults.stop(part)),
    Fault("cut off", lambda faults, part: faults.isolate(part)),
    Fault("not heard by the client", lambda faults, part: faults.mute(part, "client")),
    Fault("not hearing the client", lambda faults, part: faults.deafen(part, "client")),
    Fault("not heard by the coordinator", lambda faults, part: faults.mute(part, "coordinator")),
    Fault("losing packets", lambda faults, part: faults.lose(part, 0.2)),
    Fault("late", lambda faults, part: faults.delay(part, 0.05)),
    Fault("full", lambda faults, part: faults.fill_disk(part)),
    Fault("failing to read", lambda faults, part: faults.fail_reads(part)),
    Fault("an hour ahead", lambda faults, part: faults.jump_clock(part, 3600)),
)
OTHER_FAULTS = (
    Fault("killed", _kill_and_restart),
    Fault("an hour late", lambda faults, part: faults.jump_clock(part, -3600)),
    Fault("losing packets", lambda faults, part: faults.lose(part, 0.05)),
)


def begin(cluster: Cluster, seed: int, volume: str = VOLUME) -> Running:
    """A volume, mounted, with the load on it."""
    client = cluster.client("client")
    if volume not in client.mounted:
        with cluster.api() as pool:
            if volume not in {known.name for known in pool.volumes()}:
                pool.create_volume(volume, protection=POLICY)
        cluster.mount(client, volume)
    return cluster.start_load(client, volume, seed)


def random_round(cluster: Cluster, load: Running, rng: random.Random, tell: Callable[[str], None]) -> None:
    """One or two nodes break, perhaps the coordinator too; then all of it ends."""
    faults = Faults(cluster, rng.randrange(1 << 30))
    for part in rng.sample(cluster.node_names(), rng.choice((1, 2, 2))):
        fault = rng.choice(NODE_FAULTS)
        tell(f"{part} {fault.name}")
        fault.make(faults, part)
    if rng.random() < 0.3:
        fault = rng.choice(OTHER_FAULTS)
        tell(f"coordinator {fault.name}")
        fault.make(faults, "coordinator")
    load.progress(rng.randint(*OPERATIONS_BROKEN), BROKEN_S)
    faults.heal()
    cluster.wait_for_nodes(len(cluster.node_names()))
    load.progress(OPERATIONS_BETWEEN)


def replace_two(cluster: Cluster, load: Running, dying: Sequence[str]) -> list[str]:
    """These die at once and for good; as many new nodes come, and the pool is whole again when this returns, without
    the dead. Returns the names of the new ones."""
    Faults(cluster).kill(*dying)
    dead = [cluster.bury(part) for part in dying]
    load.progress(OPERATIONS_BETWEEN)
    new = [cluster.add_node() for _ in dying]
    cluster.wait_until_out(dead)
    for node_id in dead:
        wait_for(lambda node_id=node_id: _removed(cluster, node_id), f"nothing left on node {node_id}", HEALED_S)  # type: ignore[misc]
    cluster.wait_until_healthy()
    return new


def _removed(cluster: Cluster, node_id: int) -> bool:
    """It is refused as long as anything names the node."""
    with cluster.api() as pool:
        try:
            pool.control_node(node_id, "remove")
        except NotAllowed:
            return False
    return True


def settle(load: Running) -> None:
    """Ends the load; nothing failed, all that was acknowledged is there, every shard is as it should be. The volume is
    empty then."""
    load.stop_unharmed()
    load.check()
    load.cluster.wait_until_healthy()
    load.cluster.assert_clean()
    folder = f"/mnt/redfs/{load.volume}"
    load.cluster.must(load.client, "bash", "-c", f"rm -f {folder}/*")
