"""Each fault under a load that verifies what it reads: no request fails, and all that was acknowledged is there.

The rows of docs/faults.md name these tests.
"""

from __future__ import annotations

import itertools
import time

import pytest

from tests.cluster.faults import Faults
from tests.cluster.rig import LEASE_S, Client, Cluster, Running, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(400)]

_numbers = itertools.count(1)


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.client("client")


@pytest.fixture
def load(cluster: Cluster, client: Client) -> Running:
    """Files being written to a new volume that survives the loss of two nodes."""
    number = next(_numbers)
    volume = f"volume-{number}"
    with cluster.api() as pool:
        pool.create_volume(volume, protection="ec:4+2")
    cluster.mount(client, volume)
    return cluster.start_load(client, volume, number)


def finish(load: Running) -> None:
    """Nothing failed, everything acknowledged is there, and every shard; then the volume goes, for the next test."""
    load.stop_unharmed()
    load.check()
    load.cluster.wait_until_healthy()
    load.cluster.assert_clean()
    load.cluster.remove_volume(load.volume)


# ---------------------------------------------------------------- processes


def test_two_nodes_are_killed_and_come_back(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.kill("node-0", "node-3")
    load.progress(20)
    cluster.wait_for_nodes(4)
    assert cluster.status().health == "degraded"
    load.progress(10)
    faults.restart("node-0", "node-3")
    cluster.wait_for_nodes(6)
    load.progress(10)
    finish(load)


def test_two_nodes_freeze_and_go_on(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.freeze("node-1", "node-4")
    load.progress(20)
    cluster.wait_for_nodes(4)
    faults.thaw("node-1", "node-4")
    cluster.wait_for_nodes(6)
    load.progress(10)
    finish(load)


def test_the_coordinator_is_killed_and_comes_back(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.kill("coordinator")
    faults.restart("coordinator")
    load.progress(20)
    cluster.wait_for_nodes(6)
    finish(load)


def test_everything_is_killed_at_once(cluster: Cluster, faults: Faults, client: Client, load: Running) -> None:
    """As when the power fails: the client's host too."""
    faults.kill("coordinator", *cluster.node_names(), client.name)
    cluster.forget(client)
    faults.restart("coordinator", *cluster.node_names(), client.name)
    cluster.wait_for_nodes(6)
    load.check()
    cluster.remove_volume(load.volume)


def test_the_power_fails_everywhere(cluster: Cluster, faults: Faults, client: Client, load: Running) -> None:
    """As above, and the disks have nothing of what was not synced."""
    parts = ["coordinator", *cluster.node_names()]
    faults.record_what_is_synced(*parts)
    load.progress(40)
    faults.kill(client.name)
    assert faults.lose_power(*parts) > 0
    cluster.forget(client)
    faults.restart(*parts, client.name)
    cluster.wait_for_nodes(6)
    load.check()
    cluster.wait_until_healthy()
    cluster.assert_clean()
    cluster.remove_volume(load.volume)


def test_answers_to_commits_are_lost(cluster: Cluster, faults: Faults, client: Client, load: Running) -> None:
    """The coordinator has applied a commit and dies before anybody heard of it: sent again, it is only answered."""
    volume = f"{load.volume}-more"
    with cluster.api() as pool:
        pool.create_volume(volume, protection="ec:4+2")
    folder = cluster.mount(client, volume)
    for number in range(2):
        cluster.must(client, "bash", "-c", f"echo {number} >{folder}/before && sync {folder}/before")
        shown = cluster.shown_bytes(volume)
        faults.mute("coordinator", client.name)
        program = cluster.start(client, f"seq 3000 >{folder}/{number} && sync {folder}/{number}")
        wait_for(lambda: cluster.shown_bytes(volume) > shown, "a commit that was applied")  # noqa: B023
        assert program.exit_code() is None
        faults.kill("coordinator")
        faults.restart("coordinator")
        assert program.wait() == 0
        cluster.must(client, "bash", "-c", f"seq 3000 | cmp - {folder}/{number}")
    load.progress(10)
    cluster.remove_volume(volume)
    finish(load)


def test_the_coordinators_disk_is_lost(cluster: Cluster, faults: Faults, load: Running) -> None:
    """A new one is made from the journal on the nodes. Programs wait, and go on where they were."""
    wait_for(lambda: cluster.status().health == "ok", "a journal on enough nodes")
    load.progress(20)
    cluster.lose_coordinator()
    assert "nothing acknowledged is missing" in cluster.restore_coordinator()
    load.progress(20)
    finish(load)


# ---------------------------------------------------------------- the network


def test_two_nodes_are_cut_off_from_everybody(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.isolate("node-2")
    faults.isolate("node-5")
    load.progress(20)
    cluster.wait_for_nodes(4)
    faults.connect("node-2", "node-5")
    cluster.wait_for_nodes(6)
    load.progress(10)
    finish(load)


def test_a_client_does_not_reach_two_nodes(cluster: Cluster, faults: Faults, load: Running) -> None:
    """All others do, so that the coordinator goes on giving them to the client: one hears nothing of it, one is not
    heard by it."""
    faults.deafen("node-0", load.client.name)
    faults.mute("node-1", load.client.name)
    load.progress(20)
    assert "down" not in cluster.states().values()
    faults.connect("node-0", "node-1")
    load.progress(10)
    finish(load)


@pytest.mark.parametrize("direction", ["both", "to the nodes", "from the nodes"])
def test_the_coordinator_does_not_reach_its_nodes(
    cluster: Cluster, faults: Faults, load: Running, direction: str
) -> None:
    """The client reaches both. Programs wait, and go on when the coordinator has heard from the nodes again."""
    nodes = cluster.node_names()
    {"both": faults.cut, "to the nodes": faults.mute, "from the nodes": faults.deafen}[direction]("coordinator", *nodes)
    cluster.wait_for_nodes(0)
    load.wait_until_it_stands()
    faults.connect("coordinator")
    cluster.wait_for_nodes(6)
    load.progress(20)
    finish(load)


def test_a_client_is_cut_off_and_comes_back(cluster: Cluster, faults: Faults, load: Running) -> None:
    """For longer than its lease; nobody else wants the volume."""
    faults.isolate(load.client.name)
    until_s = time.monotonic() + 2 * LEASE_S
    wait_for(lambda: time.monotonic() > until_s, "the lease to lapse")
    faults.connect(load.client.name)
    load.progress(20)
    finish(load)


def test_packets_are_lost_and_late(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.lose("coordinator", 0.03)
    faults.lose("node-3", 0.1)
    faults.lose("node-4", 0.7)
    faults.delay("node-5", 0.1)
    load.progress(30)
    faults.heal()
    load.progress(10)
    finish(load)


# ---------------------------------------------------------------- disks


def test_the_disks_of_two_nodes_are_full(cluster: Cluster, faults: Faults, load: Running) -> None:
    """They stop, their disks fill, and they start with nothing left: a node that runs has taken room beforehand."""
    faults.stop("node-0", "node-1")
    faults.fill_disk("node-0", "node-1")
    faults.restart("node-0", "node-1")
    cluster.wait_for_nodes(6)
    load.progress(30)
    faults.empty_disk("node-0", "node-1")
    load.progress(10)
    finish(load)


def test_all_disks_are_full(cluster: Cluster, faults: Faults, client: Client, load: Running) -> None:
    """Programs are told, deleting works, and it goes on as soon as there is room."""
    folder = f"/mnt/redfs/{load.volume}"
    cluster.must(client, "bash", "-c", f"head -c 8M /dev/urandom >{folder}/large; sync {folder}/large")
    load.stop_unharmed()
    faults.fill_disk(*cluster.node_names())

    # Nodes have taken some room beforehand: it takes more than a little to fill that.
    def full() -> bool:
        code, said = cluster.run(client, "bash", "-c", f"head -c 24M /dev/urandom >{folder}/more && sync {folder}/more")
        return code != 0 and "No space left on device" in said

    wait_for(full, "a full pool to say so")
    cluster.must(client, "rm", "-f", f"{folder}/large", f"{folder}/more")
    faults.empty_disk(*cluster.node_names())
    wait_for(
        lambda: cluster.run(client, "bash", "-c", f"echo there is room >{folder}/more && sync {folder}/more")[0] == 0,
        "writing to work again",
    )
    cluster.must(client, "rm", f"{folder}/more")
    load.check()
    cluster.remove_volume(load.volume)


def test_the_coordinators_disk_is_full(cluster: Cluster, faults: Faults, client: Client, load: Running) -> None:
    """Programs are told, reading works, and it goes on as soon as there is room."""
    folder = f"/mnt/redfs/{load.volume}"
    load.progress(20)
    load.stop_unharmed()
    cluster.must(client, "bash", "-c", f"echo before >{folder}/before && sync {folder}/before")
    # It follows within a second, not at once.
    beside = f"/mnt/beside/{load.volume}/before"
    wait_for(lambda: cluster.run(client, "cat", beside)[0] == 0, "the mount beside to see the file")
    faults.fill_disk("coordinator")

    # What it stores takes the place of older pages now and then, and goes well.
    def full() -> bool:
        code, said = cluster.run(client, "bash", "-c", f"echo during >{folder}/during && sync {folder}/during")
        return code != 0 and "No space left on device" in said

    wait_for(full, "a full coordinator to say so")
    assert any("coordinator's disk is full" in problem for problem in cluster.status().problems)
    assert cluster.must(client, "cat", beside) == "before\n"
    faults.empty_disk("coordinator")
    wait_for(
        lambda: cluster.run(client, "bash", "-c", f"echo after >{folder}/after && sync {folder}/after")[0] == 0,
        "writing to work again",
    )
    cluster.must(client, "rm", "-f", f"{folder}/before", f"{folder}/during", f"{folder}/after")
    load.check()
    cluster.remove_volume(load.volume)


def test_two_nodes_cannot_read_their_disks(cluster: Cluster, faults: Faults, load: Running) -> None:
    faults.fail_reads("node-0")
    faults.fail_reads("node-1", every=False)
    load.progress(30)
    for node in ("node-0", "node-1"):
        assert b"Input/output error" in cluster.container(node).logs(), f"{node} was not asked for anything"
    load.stop_unharmed()
    load.check()
    faults.allow_reads("node-0", "node-1")
    cluster.remove_volume(load.volume)


def test_bits_are_flipped_on_two_nodes(cluster: Cluster, faults: Faults, load: Running) -> None:
    """Right bytes are read all the same; a scrub finds what nobody reads, and all of it is made anew."""
    load.progress(40)
    assert faults.flip_bits("node-2") > 5
    assert faults.flip_bits("node-4") > 5
    load.progress(20)
    load.stop_unharmed()
    load.check()
    cluster.scrub()
    finish(load)


def test_backing_files_of_two_nodes_are_cut_short(cluster: Cluster, faults: Faults, load: Running) -> None:
    load.progress(40)
    faults.kill("node-1", "node-3")
    faults.truncate("node-1", 0.5)
    faults.truncate("node-3", 0.1)
    faults.restart("node-1", "node-3")
    cluster.wait_for_nodes(6)
    load.progress(20)
    finish(load)


# ---------------------------------------------------------------- clocks


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_wall_clocks_jump(cluster: Cluster, faults: Faults, load: Running, seconds: int) -> None:
    before = cluster.status().mounts
    faults.jump_clock("coordinator", seconds)
    faults.jump_clock("node-1", -seconds)
    load.progress(20)
    assert cluster.status().mounts == before
    assert "down" not in cluster.states().values()
    faults.jump_clock("coordinator", 0)
    faults.jump_clock("node-1", 0)
    load.progress(10)
    finish(load)


# ---------------------------------------------------------------- beyond what the policy tolerates


def test_more_nodes_are_away_than_the_policy_tolerates(
    cluster: Cluster, faults: Faults, client: Client, load: Running
) -> None:
    """Programs get errors, and not other bytes; what was acknowledged is there as soon as one node more is."""
    load.progress(30)
    load.stop_unharmed()
    cluster.umount(client, load.volume)
    folder = cluster.mount(client, load.volume)
    away = ["node-0", "node-1", "node-2", "node-3"]
    faults.kill(*away)
    cluster.wait_for_nodes(2)
    status = cluster.status()
    assert status.health == "failed" or status.problems, status
    # The largest file is not stored as copies, of which two nodes may have one.
    code, said = cluster.run(client, "bash", "-c", f"cat {folder}/$(ls -S {folder} | head -n 1) >/dev/null")
    assert code != 0
    assert "Input/output error" in said
    code, said = cluster.run(client, "bash", "-c", f"head -c 64K /dev/urandom >{folder}/new && sync {folder}/new")
    assert code != 0, said
    faults.restart(*away[1:])
    cluster.wait_for_nodes(5)
    cluster.run(client, "rm", "-f", f"{folder}/new")
    load.check()
    faults.restart(away[0])
    cluster.wait_for_nodes(6)
    cluster.remove_volume(load.volume)
