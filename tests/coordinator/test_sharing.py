"""Who has a volume: exclusive and shared mode, the commands that change between them, and the talk with the mounts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from redfs.coordinator import sessions, volumes
from redfs.coordinator.requests import show_volume
from redfs.coordinator.sessions import RecallNeeded
from redfs.coordinator.turns import Turns
from redfs.core.errors import Busy, LeaseLapsed, NotAllowed, NotFound, RedfsError, Unavailable
from redfs.core.tables import JOBS, RESERVATIONS, Access, JobKind, job_key, pair_key
from redfs.core.volume_tree import ReadTree
from redfs.proto.gen import cluster_pb2 as pb
from tests.coordinator.harness import Pool
from tests.coordinator.test_service import WAIT_S, Stream, World, error_of, until, world

# ---------------------------------------------------------------- the commands


def test_who_had_a_volume_that_is_deleted_gets_no_other_one_of_its_name() -> None:
    pool = Pool()
    old = pool.create("v").volume_id
    assert pool.coordinator.execute(lambda txn: sessions.name_now(txn, old, "before")) == "v"
    pool.delete("v")
    pool.create("v")
    for _ in range(2):
        with pytest.raises(NotFound, match="'before' was deleted"):
            pool.coordinator.execute(lambda txn: sessions.name_now(txn, old, "before"))
        pool.run_jobs()


class Sharer:
    """A session that may share the volume "v"."""

    def __init__(self, pool: Pool, name: str = "host:1:/mnt") -> None:
        self.pool = pool
        opened = pool.coordinator.execute(lambda txn: sessions.open_session(txn, name))
        self.session_id, self.token = opened.session_id, opened.token
        self.volume_id = pool.volume("v").volume_id

    def attach(self, *, read_only: bool = False, shared: bool = True, alone: bool = False) -> bool:
        """Whether the delegation is its."""
        return self.pool.coordinator.execute(
            lambda txn: sessions.attach(txn, self.session_id, "v", read_only, shared=shared, alone=alone)
        )[1]

    def give_back(self, *inodes: int) -> bool:
        return self.pool.coordinator.execute(
            lambda txn: sessions.give_back(txn, self.session_id, self.volume_id, inodes)
        )[1]

    def forgot(self) -> None:
        """Its kernel shows nothing old any more."""
        assert self.pool.coordinator.env.recalled.pop(self.volume_id) == self.session_id

    def become_exclusive(self) -> bool:
        return self.pool.coordinator.execute(
            lambda txn: sessions.become_exclusive(txn, self.session_id, self.volume_id)
        )[1]

    def detach(self) -> None:
        self.pool.coordinator.execute(lambda txn: sessions.detach(txn, self.session_id, self.volume_id))

    def renew(self) -> bool:
        return self.pool.coordinator.leases.renew(self.session_id)


def holder(pool: Pool) -> int | None:
    with pool.coordinator.read() as kv:
        return sessions.holder_of(kv, pool.volume("v").volume_id)


def sharing(pool: Pool) -> list[int]:
    with pool.coordinator.read() as kv:
        return sessions.sharing_sessions(kv, pool.volume("v").volume_id)


def shown(pool: Pool) -> pb.Volume:
    with pool.coordinator.read() as kv:
        return show_volume(kv, ReadTree(kv).named("v"))


def made(count: int) -> tuple[Pool, list[Sharer]]:
    pool = Pool()
    pool.create("v")
    return pool, [Sharer(pool, f"host:{number}:/mnt") for number in range(count)]


def in_shared_mode(count: int) -> tuple[Pool, list[Sharer]]:
    """That many share the volume."""
    pool, sharers = made(count)
    assert sharers[0].attach()
    assert not sharers[0].give_back()
    sharers[0].forgot()
    for sharer in sharers[1:]:
        assert not sharer.attach()
    return pool, sharers


def test_the_first_that_shares_has_the_volume_to_itself_until_it_gives_it_back() -> None:
    pool, (first, second, third) = made(3)
    assert first.attach()
    assert not shown(pool).in_shared_mode
    assert first.attach(), "a repetition"
    with pytest.raises(RecallNeeded):
        second.attach()
    assert sharing(pool) == [first.session_id]
    pool.coordinator.execute(lambda txn: sessions.reserve(txn, first.session_id, first.volume_id, 1 << 20))
    assert not first.give_back(10, 11)
    with pool.coordinator.read() as kv:
        assert kv.get(RESERVATIONS, pair_key(first.session_id, first.volume_id)) is None
        assert kv.get(JOBS, job_key(JobKind.REAP, first.volume_id)) is not None
    assert pool.coordinator.env.open_book.open_inodes(first.volume_id) == {10, 11}
    with pytest.raises(RecallNeeded):
        second.attach()  # its kernel may still show what it remembers
    first.forgot()
    assert not second.attach(read_only=True)
    assert not third.attach()
    assert holder(pool) is None
    assert shown(pool).in_shared_mode
    assert not third.attach(), "a repetition is told how things stand"
    assert pool.coordinator.env.open_book.has_declared(first.volume_id, third.session_id)
    with pytest.raises(LeaseLapsed):
        pool.coordinator.execute(lambda txn: sessions.require_delegation(txn, first.session_id, first.volume_id))
    assert pool.problems() == []


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True), (False, False)])
def test_who_does_not_share_is_refused_and_told_what_to_do(first: bool, second: bool) -> None:
    pool, (one, other) = made(2)
    assert one.attach(shared=first)
    with pytest.raises(Busy, match=r"'v' is mounted by host:0:/mnt: .*mount both with --shared") as refused:
        other.attach(shared=second)
    assert not isinstance(refused.value, RecallNeeded)
    assert holder(pool) == one.session_id


def test_nobody_writes_alone_beside_shared_mode_and_plain_readers_follow_it() -> None:
    pool, (one, two, other) = in_shared_mode(3)
    other.detach()
    with pytest.raises(Busy, match="mount both with --shared"):
        other.attach(shared=False)
    assert not other.attach(shared=False, read_only=True)
    with pool.coordinator.read() as kv:
        assert sessions.access_of(kv, other.session_id, other.volume_id) == Access.READ_ONLY
        assert sessions.writers_of(kv, other.volume_id) == [one.session_id, two.session_id]
    two.detach()
    assert one.become_exclusive(), "a plain reader does not count"


def test_the_volumes_property_shares_but_for_tools() -> None:
    pool, (one, two) = made(2)
    row = pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", shared=True))
    assert row.shared
    assert shown(pool).shared
    assert pool.clone("v", "c").shared
    assert one.attach(shared=False)
    with pytest.raises(RecallNeeded):
        two.attach(shared=False)
    with pytest.raises(Busy) as refused:
        two.attach(alone=True)
    assert not isinstance(refused.value, RecallNeeded)
    one.detach()
    assert two.attach(alone=True)
    with pytest.raises(Busy, match="mount both with --shared") as refused:
        one.attach(shared=False)
    assert not isinstance(refused.value, RecallNeeded)
    two.detach()
    pool.coordinator.execute(lambda txn: volumes.set_volume(txn, "v", shared=False))
    assert one.attach(shared=False)
    with pytest.raises(NotAllowed, match="--shared"):
        one.give_back()


def test_snapshots_are_mounted_as_ever() -> None:
    pool, (one, two) = made(2)
    pool.snapshot("v@s")
    for sharer in (one, two):
        _, exclusive, _ = pool.coordinator.execute(
            lambda txn, session=sharer.session_id: sessions.attach(txn, session, "v@s", True, shared=True)  # type: ignore[misc]
        )
        assert not exclusive


def test_who_is_left_alone_becomes_exclusive_and_only_then() -> None:
    pool, (one, two) = in_shared_mode(2)
    assert not one.become_exclusive()
    pool.coordinator.env.open_book.enter(one.volume_id, one.session_id, 10)
    pool.run_jobs()
    two.detach()
    with pool.coordinator.read() as kv:
        assert kv.get(JOBS, job_key(JobKind.REAP, one.volume_id)) is not None
    assert not pool.coordinator.env.open_book.has_declared(one.volume_id, two.session_id)
    assert holder(pool) is None, "it must ask"
    assert one.become_exclusive()
    assert one.become_exclusive(), "a repetition"
    assert pool.coordinator.env.open_book.open_inodes(one.volume_id) == frozenset()
    with pytest.raises(LeaseLapsed):
        two.become_exclusive()
    with pytest.raises(LeaseLapsed):
        two.give_back()
    assert pool.problems() == []


def test_a_repeated_give_back_is_told_how_things_stand() -> None:
    pool, (one, two) = made(2)
    one.attach()
    one.give_back(10)
    pool.restart()
    with pytest.raises(RecallNeeded):
        two.attach()  # nothing says whether the kernel of the first has forgotten
    assert not one.give_back(10)
    assert pool.coordinator.env.open_book.open_inodes(one.volume_id) == {10}
    with pytest.raises(RecallNeeded):
        two.attach()
    one.forgot()
    two.attach()
    assert not one.give_back(10, 11)
    assert holder(pool) is None
    assert sharing(pool) == [one.session_id, two.session_id]


def test_one_that_is_alone_in_shared_mode_is_joined_without_more_ado() -> None:
    pool, (one, two) = in_shared_mode(2)
    two.detach()
    assert not two.attach()
    assert not one.become_exclusive()
    assert holder(pool) is None


def test_another_access_gives_up_the_one_before() -> None:
    pool, (one, two) = in_shared_mode(2)
    pool.coordinator.env.open_book.enter(one.volume_id, one.session_id, 10)
    assert not one.attach(shared=False, read_only=True)
    assert sharing(pool) == [two.session_id]
    assert pool.coordinator.env.open_book.open_inodes(one.volume_id) == frozenset()
    assert two.become_exclusive()


def test_a_lapsed_session_ends_where_a_valid_one_shares_its_volume() -> None:
    pool, (one, two, three) = in_shared_mode(3)
    pool.pass_time(pool.config.lease_s + 1)
    assert not pool.coordinator.forgotten_sessions(), "nobody stands in line"
    one.renew()
    assert pool.coordinator.forgotten_sessions()
    assert pool.coordinator.execute(pool.coordinator.end_forgotten) == 2
    assert sharing(pool) == [one.session_id]
    assert not two.renew()
    assert not three.renew()
    assert one.become_exclusive()
    pool.pass_time(pool.config.lease_s + 1)
    assert not pool.coordinator.forgotten_sessions()
    assert one.renew()


def test_a_lapsed_holder_or_sharer_gives_way_to_a_newcomer() -> None:
    pool, (one, two) = made(2)
    one.attach()
    pool.pass_time(pool.config.lease_s + 1)
    two.renew()
    assert two.attach()
    assert one.session_id in pool.ended
    pool, (one, two, newcomer) = in_shared_mode(3)
    newcomer.detach()
    pool.pass_time(pool.config.lease_s + 1)
    newcomer.renew()
    assert newcomer.attach(shared=False), "nobody who shares is alive"
    assert sharing(pool) == []


def test_a_holder_that_gave_back_and_lapsed_before_it_forgot_gives_way() -> None:
    pool, (one, two) = made(2)
    one.attach()
    one.give_back()
    pool.pass_time(pool.config.lease_s + 1)
    two.renew()
    assert two.attach()
    assert pool.coordinator.env.recalled == {}


def test_a_deleted_volume_is_taken_from_all_that_share_it() -> None:
    pool, (one, two) = in_shared_mode(2)
    with pytest.raises(Busy):
        pool.delete("v")
    pool.delete("v", force=True)
    for sharer in (one, two):
        with pytest.raises(LeaseLapsed):
            sharer.become_exclusive()


def test_a_mount_that_only_reads_is_no_writer() -> None:
    pool, (reader,) = made(1)
    assert reader.attach(read_only=True)
    with pool.coordinator.read() as kv:
        assert sessions.writers_of(kv, reader.volume_id) == []


@pytest.mark.parametrize("seed", range(30))
def test_whatever_order_they_come_and_go_in_nobody_caches_beside_a_writer(seed: int) -> None:
    """The invariant of both modes, against a plain account of who was told what."""
    chance = random.Random(seed)
    pool, sharers = made(3)
    mode: dict[int, str] = {}
    """sharer -> "exclusive", "shared", or "held back": it gave back, and its kernel may show old things."""

    def valid(number: int) -> bool:
        return pool.coordinator.leases.valid(sharers[number].session_id)

    def step() -> None:
        nonlocal mode
        number = chance.randrange(3)
        sharer = sharers[number]
        what = chance.choice(("attach", "attach", "leave", "give back", "forget", "ask", "tick", "time", "restart"))
        if what == "attach" and number not in mode:
            try:
                told = sharer.attach(read_only=chance.random() < 0.3)
            except RecallNeeded:
                assert any(valid(other) and mode[other] != "shared" for other in mode)
            else:
                mode[number] = "exclusive" if told else "shared"
        elif what == "leave" and number in mode:
            sharer.detach()
            del mode[number]
        elif what == "give back" and mode.get(number) == "exclusive":
            assert not sharer.give_back()
            mode[number] = "held back"
        elif what == "forget" and mode.get(number) == "held back":
            pool.coordinator.env.recalled.pop(sharer.volume_id, None)
            mode[number] = "shared"
        elif what == "ask" and number in mode:
            told = sharer.become_exclusive()
            assert told or mode[number] != "exclusive"
            mode[number] = "exclusive" if told else mode[number]
        elif what == "tick" and pool.coordinator.forgotten_sessions():
            pool.coordinator.execute(pool.coordinator.end_forgotten)
        elif what == "time":
            awake = [sharers[n] for n in range(3) if chance.random() < 0.5]
            pool.pass_time(pool.config.lease_s + 1)
            for one in awake:
                one.renew()
        elif what == "restart":
            if list(mode.values()) == ["shared"]:
                mode = dict.fromkeys(mode, "held back")  # what a new coordinator cannot tell from it
            pool.restart()

    for _ in range(150):
        step()
        for number, sharer in enumerate(sharers):
            with pool.coordinator.read() as kv:
                ended = sessions.access_of(kv, sharer.session_id, sharer.volume_id) is None
            if ended and number in mode:
                del mode[number]
                sharers[number] = Sharer(pool, f"host:{number}:/again")
        told = {sharers[number].session_id: state for number, state in mode.items()}
        assert sorted(told) == sharing(pool)
        exclusive = [session for session, state in told.items() if state == "exclusive"]
        assert holder(pool) == (exclusive[0] if exclusive else None)
        assert not exclusive or len(told) == 1, "nobody else is told that it has the volume"
        held_back = [session for session, state in told.items() if state == "held back"]
        assert not held_back or len(told) == 1, "nobody joins one that may show old things"
    assert pool.problems() == []


# ---------------------------------------------------------------- the talk with the mounts


async def joining(w: World, **attach: Any) -> tuple[Stream, asyncio.Future[Any]]:
    """A new session that asks for the volume "v": its stream and the answer to come."""
    stream = await w.session()
    return stream, await stream.send(attach=pb.Attach(**{"name": "v", "shared": True, **attach}))


async def order(stream: Stream, kind: str) -> Any:
    """The next order, which must be of that kind."""
    found = await asyncio.wait_for(stream.orders.get(), WAIT_S)
    assert found.WhichOneof("body") == kind
    return getattr(found, kind)


async def answered(stream: Stream, recall: Any, *inodes: int) -> None:
    """The holder does as it is told."""
    reply = await stream.call(give_back=pb.GiveBack(volume_id=recall.volume_id, open_inodes=inodes))
    assert reply.attached.shared
    assert not reply.attached.exclusive
    await stream.call(recall_done=pb.RecallDone(recall_id=recall.recall_id))


@asynccontextmanager
async def held(folder: Path, **settings: Any) -> AsyncIterator[tuple[World, Stream, int]]:
    """A coordinator with a volume "v" that one sharing mount holds: and its stream, the volume's id."""
    async with world(folder, **settings) as w:
        await w.stub.CreateVolume(pb.VolumeCreate(name="v"))
        stream, attaching = await joining(w)
        attached = await attaching
        assert attached.exclusive
        assert not attached.shared
        yield w, stream, attached.volume.volume_id
        await stream.close()


def holder_in(w: World, volume: int) -> int | None:
    with w.coordinator.read() as kv:
        return sessions.holder_of(kv, volume)


async def settled(w: World) -> None:
    """All that the state thread and the loop have to do is done."""
    await w.shell.run(lambda txn: None)
    await asyncio.sleep(0)


async def alone(stream: Stream, volume: int) -> None:
    """The mount is told that it is alone, and becomes exclusive."""
    assert (await order(stream, "alone")).volume_id == volume
    reply = await stream.call(become_exclusive=pb.BecomeExclusive(volume_id=volume))
    assert reply.attached.exclusive


async def test_the_holder_is_recalled_and_the_newcomers_join_when_its_kernel_has_forgotten(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second, attaching = await joining(w)
        third, reading = await joining(w, read_only=True)
        recall = await order(first, "recall")
        assert recall.volume_id == volume
        await first.call(give_back=pb.GiveBack(volume_id=volume, open_inodes=[10]))
        fourth, late = await joining(w)
        await settled(w)
        assert not attaching.done()
        assert not late.done(), "one that comes between waits as well"
        await first.call(recall_done=pb.RecallDone(recall_id=recall.recall_id))
        replies = [await asyncio.wait_for(answer, WAIT_S) for answer in (attaching, reading, late)]
        assert [(r.shared, r.exclusive, r.read_only) for r in replies] == [
            (True, False, False), (True, False, True), (True, False, False),
        ]  # fmt: skip
        assert first.orders.empty(), "one recall for all of them"
        seen = await w.stub.GetVolume(pb.VolumeName(name="v"))
        assert seen.in_shared_mode
        assert len(seen.mounts) == 4
        assert [v.in_shared_mode for v in (await w.stub.ListVolumes(pb.Empty())).volumes] == [False, True]
        again = await second.call(attach=pb.Attach(volume_id=volume))
        assert (again.shared, again.exclusive) == (True, False)
        plain, refused = await joining(w, shared=False)
        with pytest.raises(Busy, match="mount both with --shared"):
            await refused
        await second.call(detach=pb.Detach(volume_id=volume))
        await third.call(close=pb.Close())
        await settled(w)
        assert first.orders.empty(), "two are left"
        await fourth.call(close=pb.Close())
        await alone(first, volume)
        assert not (await w.stub.GetVolume(pb.VolumeName(name="v"))).in_shared_mode
        for stream in (second, third, fourth, plain):
            await stream.close()


async def test_a_holder_that_does_not_answer_keeps_the_volume(tmp_path: Path) -> None:
    async with held(tmp_path, recall_deadline_s=0.2) as (w, first, volume):
        second, attaching = await joining(w)
        await order(first, "recall")
        with pytest.raises(Unavailable, match="'v' cannot be shared now: the mount test:1:/mnt did not write"):
            await attaching
        assert holder_in(w, volume) == first.opened.session_id
        retried = await second.send(attach=pb.Attach(name="v", shared=True))
        await answered(first, await order(first, "recall"))
        assert (await retried).shared
        await second.close()


async def test_one_that_gave_back_and_does_not_say_that_it_forgot_is_asked_again(tmp_path: Path) -> None:
    async with held(tmp_path, recall_deadline_s=0.2) as (w, first, volume):
        second, attaching = await joining(w)
        await order(first, "recall")
        await first.call(give_back=pb.GiveBack(volume_id=volume))
        with pytest.raises(Unavailable):
            await attaching
        assert (await order(first, "alone")).volume_id == volume
        retried = await second.send(attach=pb.Attach(name="v", shared=True))
        await first.call(recall_done=pb.RecallDone(recall_id=(await order(first, "recall")).recall_id))
        assert (await retried).shared
        await second.close()


async def test_a_holder_whose_lease_lapses_is_ended_and_the_newcomer_goes_on(tmp_path: Path) -> None:
    async with held(tmp_path, lease_s=0.8) as (w, first, volume):
        second, attaching = await joining(w)
        await order(first, "recall")
        while not attaching.done():
            await second.call(renew=pb.Renew())
            await asyncio.wait([attaching], timeout=0.1)
        assert (await attaching).exclusive
        await first.ended()
        assert holder_in(w, volume) == second.opened.session_id
        await second.close()


@pytest.mark.parametrize("gave_back", [False, True])
async def test_a_holder_that_comes_back_on_a_new_stream_is_told_again(tmp_path: Path, gave_back: bool) -> None:
    async with held(tmp_path) as (w, first, volume):
        second, attaching = await joining(w)
        recall = await order(first, "recall")
        if gave_back:
            await first.call(give_back=pb.GiveBack(volume_id=volume, open_inodes=[10]))
        await first.close()
        again = Stream(w.channel)
        await again.open(first.opened.session_id, first.opened.token)
        assert await order(again, "recall") == recall
        await answered(again, recall, 10)
        assert (await asyncio.wait_for(attaching, WAIT_S)).shared
        assert w.coordinator.env.open_book.open_inodes(volume) == {10}
        await again.close()
        await second.close()


async def test_a_holder_that_is_away_is_waited_for_while_its_lease_runs(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        session = first.opened.session_id
        await first.close()
        await until(lambda: session not in w.shell.sessions)
        second, attaching = await joining(w)
        await until(lambda: w.shell.turns.taken(volume))
        again = Stream(w.channel)
        await again.open(session, first.opened.token)
        await answered(again, await order(again, "recall"))
        assert (await asyncio.wait_for(attaching, WAIT_S)).shared
        await again.close()
        await second.close()


async def test_one_that_became_exclusive_again_meanwhile_is_recalled_once_more(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second, attaching = await joining(w)
        recall = await order(first, "recall")
        await first.call(give_back=pb.GiveBack(volume_id=volume))
        reply = await first.call(become_exclusive=pb.BecomeExclusive(volume_id=volume))
        assert reply.attached.exclusive
        await first.call(recall_done=pb.RecallDone(recall_id=recall.recall_id))
        once_more = await order(first, "recall")
        assert once_more.recall_id != recall.recall_id
        await answered(first, once_more)
        assert (await asyncio.wait_for(attaching, WAIT_S)).shared
        await second.close()


@pytest.mark.parametrize("says_goodbye", [False, True])
async def test_a_newcomer_that_goes_away_does_not_break_the_recall(tmp_path: Path, says_goodbye: bool) -> None:
    async with held(tmp_path) as (w, first, volume):
        second, attaching = await joining(w)
        recall = await order(first, "recall")
        if says_goodbye:
            await second.call(close=pb.Close())
        session = second.opened.session_id
        await second.close()
        await answered(first, recall)
        if not says_goodbye:
            # It is attached without being there, until its lease is over.
            await until(lambda: session in _sharing_in(w, volume))
            w.coordinator.leases.end(session)
            await w.shell.run(lambda txn: sessions.end_session(txn, session))
        await alone(first, volume)
        assert attaching.done() or attaching.cancelled()


def _sharing_in(w: World, volume: int) -> list[int]:
    with w.coordinator.read() as kv:
        return sessions.sharing_sessions(kv, volume)


async def shared_by_two(w: World, first: Stream) -> Stream:
    second, attaching = await joining(w)
    await answered(first, await order(first, "recall"))
    assert (await asyncio.wait_for(attaching, WAIT_S)).shared
    return second


async def test_the_order_to_become_exclusive_is_sent_again_on_a_new_stream(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second = await shared_by_two(w, first)
        await first.close()
        await second.call(close=pb.Close())
        again = Stream(w.channel)
        await again.open(first.opened.session_id, first.opened.token)
        await alone(again, volume)
        await again.close()
        third = Stream(w.channel)
        await third.open(first.opened.session_id, first.opened.token)
        await settled(w)
        assert third.orders.empty(), "it holds the volume"
        await third.close()
        await second.close()


async def test_a_snapshot_asks_all_that_write_to_flush(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second = await shared_by_two(w, first)
        reader, attaching = await joining(w, read_only=True)
        assert (await attaching).shared
        calling = asyncio.ensure_future(w.stub.CreateSnapshot(pb.SnapshotCreate(name="v@s")))
        for stream in (first, second):
            flush = await order(stream, "flush")
            assert flush.volume_id == volume
            assert not calling.done()
            await stream.call(flush_done=pb.FlushDone(flush_id=flush.flush_id))
        assert (await calling).holder_flushed
        assert reader.orders.empty()
        late = await w.stub.CreateSnapshot(pb.SnapshotCreate(name="v@t", flush_deadline_s=0.05))
        assert not late.holder_flushed
        await reader.close()
        await second.close()


async def test_a_copy_into_a_shared_volume_is_made_by_the_first_mount_that_writes(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second = await shared_by_two(w, first)
        w.coordinator.execute(lambda txn: volumes.create_snapshot(txn, "v@s"))
        request = pb.CopyFiles(source="v@s", source_path=b"a", target="v", target_path=b"b")
        calling = asyncio.ensure_future(w.stub.CopyBetween(request))
        copy = await order(first, "copy")
        assert copy.volume_id == volume
        await first.call(copy_done=pb.CopyDone(copy_id=copy.copy_id, reply=pb.CopyFilesReply(files=3)))
        assert (await calling).files == 3
        await second.close()


async def test_a_roll_back_waits_for_a_recall_and_then_holds_all(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        w.coordinator.execute(lambda txn: volumes.create_snapshot(txn, "v@s"))
        second, attaching = await joining(w)
        recall = await order(first, "recall")
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        await w.stub.GetVolume(pb.VolumeName(name="v"))
        assert first.orders.empty(), "it is asked for one thing at a time"
        await answered(first, recall)
        assert (await asyncio.wait_for(attaching, WAIT_S)).shared
        # Whether the newcomer came before or after the first hold: who was held is held until all are.
        done = asyncio.ensure_future(_obey(first, second))
        assert (await calling).volume.volume_id == volume
        done.cancel()
        await asyncio.gather(done, return_exceptions=True)
        lineages = [(await s.call(attach=pb.Attach(volume_id=volume))).lineage for s in (first, second)]
        assert lineages[0] == lineages[1]
        await second.close()


async def _obey(*streams: Stream) -> None:
    async def one(stream: Stream) -> None:
        while True:
            found = await stream.orders.get()
            if found.HasField("flush"):
                await stream.call(flush_done=pb.FlushDone(flush_id=found.flush.flush_id))
            else:
                await stream.call(rebase_done=pb.RebaseDone(rebase_id=found.rebase.rebase_id))

    await asyncio.gather(*[one(stream) for stream in streams])


async def test_a_recall_waits_for_a_roll_back(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, _):
        w.coordinator.execute(lambda txn: volumes.create_snapshot(txn, "v@s"))
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        hold = await order(first, "flush")
        second, attaching = await joining(w)
        await settled(w)
        assert first.orders.empty()
        await first.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
        rebase = await order(first, "rebase")
        await first.call(rebase_done=pb.RebaseDone(rebase_id=rebase.rebase_id))
        await calling
        await answered(first, await order(first, "recall"))
        attached = await asyncio.wait_for(attaching, WAIT_S)
        assert attached.shared
        assert attached.lineage == rebase.lineage
        await second.close()


async def test_mounts_that_share_are_rolled_back_like_others_and_told_alone_only_afterwards(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second = await shared_by_two(w, first)
        w.coordinator.execute(lambda txn: volumes.create_snapshot(txn, "v@s"))
        calling = asyncio.ensure_future(w.stub.RollBackVolume(pb.VolumeRollback(snapshot="v@s")))
        hold = await order(first, "flush")
        await second.call(close=pb.Close())
        await first.call(flush_done=pb.FlushDone(flush_id=hold.flush_id))
        rebase = await order(first, "rebase")
        await first.call(rebase_done=pb.RebaseDone(rebase_id=rebase.rebase_id))
        await alone(first, volume)
        await calling
        await second.close()


async def test_a_volume_that_is_deleted_meanwhile_is_not_there_for_the_newcomer(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, first, volume):
        second, attaching = await joining(w)
        await order(first, "recall")
        await w.stub.DeleteVolume(pb.VolumeDelete(name="v", force=True))
        with pytest.raises(NotFound):
            await asyncio.wait_for(attaching, WAIT_S)
        assert (await order(first, "gone")).volume_id == volume
        await second.close()


@pytest.mark.parametrize("state", ["recalled", "gave back", "shared", "alone"])
async def test_after_a_restart_of_the_coordinator_they_come_to_one_mind(tmp_path: Path, state: str) -> None:
    async with held(tmp_path) as (w, first, volume):
        second, attaching = await joining(w)
        recall = await order(first, "recall")
        if state != "recalled":
            await first.call(give_back=pb.GiveBack(volume_id=volume))
        if state in ("shared", "alone"):
            await first.call(recall_done=pb.RecallDone(recall_id=recall.recall_id))
            await asyncio.wait_for(attaching, WAIT_S)
        if state == "alone":
            await second.call(detach=pb.Detach(volume_id=volume))
        opened = first.opened, second.opened
        await second.close()
    async with world(tmp_path) as w:
        first, second = Stream(w.channel), Stream(w.channel)
        for stream, before in zip((second, first), reversed(opened), strict=True):
            assert (await stream.open(before.session_id, before.token)).resumed
        stands = await first.call(attach=pb.Attach(volume_id=volume))
        assert (stands.exclusive, stands.shared) == ((True, False) if state == "recalled" else (False, True))
        if state == "shared":
            assert (await second.call(attach=pb.Attach(volume_id=volume))).shared
            assert first.orders.empty()
        elif state != "recalled":
            await alone(first, volume)
        if state != "shared":
            attaching = await second.send(attach=pb.Attach(name="v", shared=True))
            await answered(first, await order(first, "recall"))
            assert (await asyncio.wait_for(attaching, WAIT_S)).shared
        await first.close()
        await second.close()


async def test_turns_are_one_at_a_time_and_who_is_kept_waiting_is_told() -> None:
    turns = Turns()
    over: list[int] = []
    turns.ended = over.append
    async with turns.turn(1, 1.0), turns.turn(2, 1.0):
        assert turns.taken(1)
        with pytest.raises(Busy):
            async with turns.turn(1, 0.01):
                raise AssertionError
        assert over == []
    assert sorted(over) == [1, 2]
    assert not turns.taken(1)


async def test_errors_of_attaching_go_over_the_wire_as_their_families(tmp_path: Path) -> None:
    async with held(tmp_path) as (w, _, _volume):
        assert isinstance(await error_of(w.stub.DeleteVolume(pb.VolumeDelete(name="v"))), Busy)
        other, attaching = await joining(w, shared=False)
        with pytest.raises(RedfsError, match="unmount it there first, or mount both with --shared"):
            await attaching
        await other.close()
