"""What the kernel is told of an inode while several programs ask, and others write to it."""

from __future__ import annotations

import asyncio

import pytest

from redfs.client.fs.attribute_answers import MAX_LOOKS, AttributeAnswers
from redfs.core.errors import Unavailable
from redfs.core.records import Inode

from .fakes import turns


class World:
    """An inode whose size is the count of writes; looks see it as it is when they begin, and end when they are told."""

    def __init__(self) -> None:
        self.size = 0
        self.looks: list[asyncio.Future[None]] = []

    async def look(self, ino: int) -> Inode:
        seen = Inode(0o100644, 0, 0, 1, self.size, 0, 0, 0, 0)
        self.looks.append(asyncio.get_running_loop().create_future())
        await self.looks[-1]
        return seen

    async def end(self, number: int) -> None:
        self.looks[number].set_result(None)
        await turns()


async def test_who_asks_while_another_look_is_under_way_gets_what_was_found_after_both_asked() -> None:
    world, answers = World(), AttributeAnswers()
    first = asyncio.ensure_future(answers.newest(7, world.look))
    await turns()
    world.size = 1  # another host writes, and a program here asks after that
    second = asyncio.ensure_future(answers.newest(7, world.look))
    other = asyncio.ensure_future(answers.newest(8, world.look))
    await turns()
    assert len(world.looks) == 2
    await world.end(0)
    assert not first.done()
    assert not second.done()
    await world.end(2)
    assert (first.result().size, second.result().size) == (1, 1)
    await world.end(1)
    assert other.result().size == 1


async def test_a_write_is_answered_after_those_who_asked_before() -> None:
    world, answers = World(), AttributeAnswers()
    await answers.given(7)
    asking = asyncio.ensure_future(answers.newest(7, world.look))
    await turns()
    written = asyncio.ensure_future(answers.given(7))
    await answers.given(8)
    await turns()
    assert not written.done()
    await world.end(0)
    await asyncio.gather(asking, written)


async def test_an_error_is_everybodys() -> None:
    answers = AttributeAnswers()
    go = asyncio.Event()

    async def look(ino: int) -> Inode:
        await go.wait()
        raise Unavailable("away")

    asking = [asyncio.ensure_future(answers.newest(7, look)) for _ in range(3)]
    await turns()
    go.set()
    for program in asking:
        with pytest.raises(Unavailable):
            await program
    await answers.given(7)


async def test_programs_that_never_cease_to_ask_hold_nobody_back_for_ever() -> None:
    world, answers = World(), AttributeAnswers()
    asking = [asyncio.ensure_future(answers.newest(7, world.look))]
    for number in range(MAX_LOOKS):
        await turns()
        asking.append(asyncio.ensure_future(answers.newest(7, world.look)))
        await turns()
        await world.end(number)
    assert all(program.done() for program in asking)


async def test_what_is_told_of_a_file_waits_for_reads_that_began_before() -> None:
    """Else the kernel knows the greater size first, and shows zeros between the two ends."""
    world, answers = World(), AttributeAnswers()
    first, second = answers.reading(7), answers.reading(7)
    first.__enter__()
    asked = asyncio.ensure_future(answers.newest(7, world.look))
    written = asyncio.ensure_future(answers.given(8))
    await turns()
    await world.end(0)
    told = asyncio.ensure_future(answers.given(7))
    await turns()
    assert written.done(), "it is another file"
    assert not asked.done()
    assert not told.done()
    second.__enter__()  # it began later, and is not waited for
    first.__exit__(None, None, None)
    await turns()
    assert asked.done()
    await turns()
    second.__exit__(None, None, None)
    await told
    await answers.given(7)
