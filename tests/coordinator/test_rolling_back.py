"""Rolling back under mounts: who must be held, what late commits get, and the talk with the mounts."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import commits, sessions, volumes
from redfs.coordinator.rolling_back import HOLD_ROUNDS, MARGIN_S, SWAP_S
from redfs.core.errors import Busy, InvalidArgument, LeaseLapsed, NotFound, RolledBack, Unavailable
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Client, Pool, fingerprint
from tests.coordinator.test_service import WAIT_S, Stream, World, commit, error_of, until, world

# ---------------------------------------------------------------- the command


def rolled_pool() -> tuple[Pool, Client]:
    """A volume that holds "new", and "old" in its snapshot."""
    pool = Pool()
    pool.create("v")
    client = Client(pool, "v")
    client.write({(10, 0): "old"})
    pool.snapshot("v@s")
    client.write({(10, 0): "new"})
    return pool, client


def attached(pool: Pool, client: Client) -> tuple[int, bool]:
    """What the client is told when it asks how its volume stands: (lineage, whether the delegation is its)."""
    row, exclusive, _ = pool.coordinator.execute(
        lambda txn: sessions.attached(txn, client.session_id, client.volume_id)
    )
    return row.lineage, exclusive


def test_a_held_mount_keeps_the_volume_and_its_open_segments() -> None:
    pool, client = rolled_pool()
    segment = client.open_segments()[0]
    done = pool.roll_back("v@s", keep="k", held=pool.held(client))
    assert done.mounts == {client.session_id}
    assert pool.read_slot(pool.volume("v@k"), 10, 0) == [fingerprint("new").hex()]
    with pytest.raises(RolledBack, match="was rolled back"):
        client.write({(10, 1): "for the state before"})
    client.lineage, exclusive = attached(pool, client)
    assert exclusive
    assert client.lineage == done.volume.lineage == pool.volume("v").lineage
    request, _ = client.request([], segment=segment)
    client.send(request)
    client.write({(10, 1): "after"})
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("old").hex()]
    assert pool.read_slot(pool.volume("v"), 10, 1) == [fingerprint("after").hex()]
    assert pool.read_slot(pool.volume("v@k"), 10, 1) is None
    client.close()
    pool.run_jobs()
    assert pool.problems() == []


def test_a_commit_that_was_answered_is_answered_again_after_a_roll_back() -> None:
    pool, client = rolled_pool()
    again = client.last_request
    assert again is not None
    pool.roll_back("v@s", held=pool.held(client))
    pool.restart()
    assert pool.coordinator.execute(lambda txn: commits.commit(txn, client.session_id, again)) == ()
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("old").hex()]
    nothing = again._replace(number=client.number + 1, lineage=0, records=[], segments=[], blocks=[])
    with pytest.raises(RolledBack):
        client.send(nothing)
    client.lineage = attached(pool, client)[0]
    client.write({(10, 0): "newer"})
    assert pool.problems() == []


def test_a_mount_that_is_not_held_stands_in_the_way_and_a_lapsed_one_does_not() -> None:
    pool, client = rolled_pool()
    opened = pool.coordinator.execute(lambda txn: sessions.open_session(txn, "reader"))
    pool.coordinator.execute(lambda txn: sessions.attach(txn, opened.session_id, "v", True))
    with pytest.raises(Busy, match="mounted by reader"):
        pool.roll_back("v@s", held=pool.held(client))
    pool.pass_time(pool.config.lease_s + 1)
    client.renew()
    assert pool.roll_back("v@s", held=pool.held(client)).mounts == {client.session_id}
    with pytest.raises(LeaseLapsed):
        pool.coordinator.execute(lambda txn: sessions.attached(txn, opened.session_id, client.volume_id))


def test_a_hold_counts_for_its_time_and_its_volume_only() -> None:
    pool, client = rolled_pool()
    held = pool.held(client, seconds=5)
    pool.pass_time(6)
    with pytest.raises(Unavailable, match="was not rolled back"):
        pool.roll_back("v@s", held=held)
    with pytest.raises(Busy):
        pool.roll_back("v@s", held=pool.held(client)._replace(volume_id=client.volume_id + 1))
    assert pool.read_slot(pool.volume("v"), 10, 0) == [fingerprint("new").hex()]
    client.write({(10, 1): "goes on"})
    client.close()
    assert pool.roll_back("v@s", held=held).mounts == frozenset(), "nobody has to be held any more"


# ---------------------------------------------------------------- the talk with the mounts


async def mounted(w: World, *, read_only: bool = False) -> tuple[Stream, int]:
    """A session that has the volume "v": its stream, the volume's id."""
    stream = await w.session()
    reply = await stream.call(attach=pb.Attach(name="v", read_only=read_only))
    return stream, reply.volume.volume_id


async def order(stream: Stream, kind: str) -> Any:
    """The next order, which must be of that kind."""
    found = await asyncio.wait_for(stream.orders.get(), WAIT_S)
    assert found.WhichOneof("body") == kind
    return getattr(found, kind)


async def with_snapshot(w: World) -> tuple[Stream, int]:
    """A volume "v" mounted read-write, with a snapshot "v@s"."""
    await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
    stream, volume = await mounted(w)
    await (await commit(stream, volume, 1, "old"))
    w.coordinator.execute(lambda txn: volumes.create_snapshot(txn, "v@s"))
    await (await commit(stream, volume, 2, "new"))
    return stream, volume


async def test_mounts_are_held_then_rebased_and_only_then_the_caller_is_answered(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stream, volume = await with_snapshot(w)
        reader, _ = await mounted(w, read_only=True)
        before = stream.lineage
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s", keep="k")))
        holds = [await order(s, "flush") for s in (stream, reader)]
        assert all(hold.hold and hold.hold_s > 5 and hold.volume_id == volume for hold in holds)
        await (await commit(stream, volume, 3, "dirty"))
        await stream.call(flush_done=pb.FlushDone(flush_id=holds[0].flush_id))
        with pytest.raises(NotFound):
            w.coordinator.execute(lambda txn: txn.tree.named("v@k"))
        assert isinstance(await error_of(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s"))), Busy)
        await reader.call(flush_done=pb.FlushDone(flush_id=holds[1].flush_id))

        rebases = [await order(s, "rebase") for s in (stream, reader)]
        again = await stream.call(attach=pb.Attach(volume_id=volume))
        assert again.exclusive
        assert rebases[0].lineage == rebases[1].lineage == again.lineage != before
        assert rebases[0].root == again.root
        for s, rebase in zip((stream, reader), rebases, strict=True):
            assert not calling.done()
            await s.call(rebase_done=pb.RebaseDone(rebase_id=rebase.rebase_id))
        done = await calling
        assert done.kept.name == "v@k"
        assert done.volume.volume_id == volume

        kept = await reader.call(attach=pb.Attach(name="v@k", read_only=True))
        slots = await reader.call(
            read_slots=pb.ReadSlots(volume_id=kept.volume.volume_id, ino=10, generation=1, first=0, count=1)
        )
        assert slots.blocks[0].fingerprint == fingerprint("dirty"), "what the mount still held is kept"
        await (await commit(stream, volume, 4, "after"))
        await reader.close()
        await stream.close()


async def test_a_mount_that_is_not_held_in_time_is_named_and_let_go(tmp_path: Path) -> None:
    async with world(tmp_path, flush_deadline_s=0.1) as w:
        stream, volume = await with_snapshot(w)
        refused = await error_of(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        assert isinstance(refused, Unavailable)
        assert "nothing changed: the mount test:1:/mnt did not write" in str(refused)
        hold = await order(stream, "flush")
        let_go = await order(stream, "rebase")
        assert let_go.lineage == stream.lineage
        await stream.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))  # too late
        await (await commit(stream, volume, 3, "goes on"))
        assert [v.name for v in (await w.stub.ListVolumes(pb.Empty())).volumes] == ["zero", "v", "v@s"]
        for wrong, error in (("v@none", NotFound), ("v", InvalidArgument), ("none@s", NotFound)):
            assert isinstance(await error_of(w.stub.RollBackVolume(pb.VolumeRollback(snapshot=wrong))), error)
        assert stream.orders.empty(), "nobody is held for what cannot be"
        await stream.close()


async def test_a_caller_that_goes_away_leaves_no_mount_behind(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stream, volume = await with_snapshot(w)
        calling = w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s", discard=True))
        hold = await order(stream, "flush")
        calling.cancel()
        await stream.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
        rebase = await order(stream, "rebase")
        assert rebase.lineage != stream.lineage
        await stream.call(rebase_done=pb.RebaseDone(rebase_id=rebase.rebase_id))
        stream.lineage = rebase.lineage
        await (await commit(stream, volume, 3, "after"))
        await stream.close()


async def test_orders_come_again_on_a_new_stream(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stream, _ = await with_snapshot(w)
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        hold = await order(stream, "flush")
        for wanted in ("flush", "rebase"):
            again = Stream(w.channel)
            await again.open(stream.opened.session_id, stream.opened.token)
            await stream.close()
            stream = again
            if wanted == "flush":
                assert (await order(stream, "flush")).flush_id == hold.flush_id
                await stream.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
            rebase = await order(stream, "rebase")
        await stream.call(rebase_done=pb.RebaseDone(rebase_id=rebase.rebase_id))
        await calling
        await stream.close()


async def test_a_mount_that_comes_between_is_held_as_well(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stream, _ = await with_snapshot(w)
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        hold = await order(stream, "flush")
        late, _ = await mounted(w, read_only=True)
        await stream.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
        for s in (stream, late):
            hold = await order(s, "flush")
            await s.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
        for s in (stream, late):
            rebase = await order(s, "rebase")
            assert rebase.lineage != stream.lineage
            await s.call(rebase_done=pb.RebaseDone(rebase_id=rebase.rebase_id))
        await calling
        await late.close()
        await stream.close()


async def test_mounts_that_keep_coming_end_the_attempt(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stream, _ = await with_snapshot(w)
        streams = [stream]
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        for _ in range(HOLD_ROUNDS):
            holds = [(s, await order(s, "flush")) for s in streams]
            streams.append((await mounted(w, read_only=True))[0])
            for s, hold in holds:
                await s.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
        assert isinstance(await error_of(calling), Busy)
        assert (await order(stream, "rebase")).lineage == stream.lineage
        for s in streams:
            await s.close()


async def test_the_mount_learns_of_a_swap_that_the_coordinator_did_not_live_to_tell(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        stream, volume = await with_snapshot(w)
        session = stream.opened.session_id
        held = volumes.Held(volume, frozenset({session}), w.coordinator.env.clock.monotonic() + 10)
        w.coordinator.execute(lambda txn: volumes.roll_back(txn, "v@s", held=held))
        before = stream.lineage
        opened = stream.opened
        await stream.close()
    async with world(tmp_path) as w:
        resumed = Stream(w.channel)
        assert (await resumed.open(opened.session_id, opened.token)).last_commit == 2
        resumed.lineage = before
        with pytest.raises(RolledBack):
            await (await commit(resumed, volume, 3, "late"))
        await resumed.call(attach=pb.Attach(volume_id=volume))
        assert resumed.lineage != before
        await (await commit(resumed, volume, 3, "after"))
        await until(lambda: w.coordinator.commits == 1)
        await resumed.close()


def test_the_swap_counts_the_hold_as_over_before_the_mounts_do() -> None:
    assert 0 < MARGIN_S < SWAP_S
