"""The simulated loop, processes and network do what they say, and the same again under the same seed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from redfs.core.errors import Unavailable
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import EOF, KEEPALIVE_S, Endpoint, SimulatedNetwork, StreamEnd

Body = Callable[[SimulatedLoop, SimulatedNetwork], Coroutine[Any, Any, None]]


def run(body: Body, seed: int = 1, **faults: float) -> SimulatedLoop:
    loop = SimulatedLoop(seed)

    async def main() -> None:
        await body(loop, SimulatedNetwork(loop, **faults))  # type: ignore[arg-type]

    loop.run(main())
    return loop


async def exchange(loop: SimulatedLoop, network: SimulatedNetwork, seen: list[tuple[float, int]]) -> None:
    """A hundred requests at once, whoever is answered."""
    client, server = Process("client"), Process("server")
    network.listen("server", Endpoint(server))

    async def ask(number: int) -> None:
        try:
            await network.ask("client", "server", lambda _: seen.append((loop.time(), number)), 1.0, client)
        except Unavailable:
            return

    await asyncio.gather(*(ask(number) for number in range(100)))
    await asyncio.sleep(1.0)


def requests(seed: int, **faults: float) -> list[tuple[float, int]]:
    seen: list[tuple[float, int]] = []
    run(lambda loop, network: exchange(loop, network, seen), seed, **faults)
    return seen


def test_a_quiet_network_delivers_every_request_once_and_in_any_order() -> None:
    order = [number for _, number in requests(1)]
    assert sorted(order) == list(range(100))
    assert order != sorted(order)


def test_one_seed_gives_one_run() -> None:
    assert requests(7, loss=0.3, repeat=0.3) == requests(7, loss=0.3, repeat=0.3)
    assert requests(7, loss=0.3) != requests(8, loss=0.3)


def test_loss_and_repeats() -> None:
    assert 20 < len(requests(3, loss=0.5)) < 80
    twice = [number for _, number in requests(3, repeat=1.0)]
    assert sorted(twice) == sorted([*range(100), *range(100)])


def test_an_hour_of_waiting_takes_no_time() -> None:
    async def body(loop: SimulatedLoop, _: SimulatedNetwork) -> None:
        await asyncio.sleep(3600.0)
        assert loop.time() == 3600.0

    assert run(body).steps < 20


def test_a_killed_process_runs_nothing_more_and_a_frozen_one_later() -> None:
    seen: list[tuple[float, str]] = []

    async def body(loop: SimulatedLoop, _: SimulatedNetwork) -> None:
        async def work(name: str) -> None:
            try:
                await asyncio.sleep(1.0)
            finally:
                if not loop.everything_runs:
                    seen.append((loop.time(), name))

        killed, frozen = Process("killed"), Process("frozen")
        loop.spawn(killed, work("killed"))
        loop.spawn(frozen, work("frozen"))
        await asyncio.sleep(0.5)
        killed.kill()
        frozen.freezes += 1
        await asyncio.sleep(5.0)
        assert seen == []
        loop.thaw(frozen)
        await asyncio.sleep(0.1)

    run(body)
    assert seen == [(5.5, "frozen")]


async def echo(end: StreamEnd) -> None:
    while (message := await end.read()) is not EOF:
        await end.write(message)


def listening(network: SimulatedNetwork) -> tuple[Process, StreamEnd]:
    client, server = Process("client"), Process("server")
    network.listen("server", Endpoint(server, services={"Echo": echo}))
    return server, network.connect("client", "server", "Echo", client)


def test_a_stream_keeps_its_order() -> None:
    async def body(_: SimulatedLoop, network: SimulatedNetwork) -> None:
        end = listening(network)[1]
        for number in range(50):
            await end.write(number)
        assert [await end.read() for _ in range(50)] == list(range(50))

    run(body)


def test_a_cut_holds_a_stream_back_and_ends_it_in_time() -> None:
    async def body(loop: SimulatedLoop, network: SimulatedNetwork) -> None:
        end = listening(network)[1]
        network.cut("client", "server", both_ways=False)
        await end.write("held back")
        await asyncio.sleep(KEEPALIVE_S / 2)
        network.mend([("client", "server")])
        assert await end.read() == "held back"
        network.cut("server", "client", both_ways=False)
        await end.write("lost")
        with pytest.raises(ConnectionResetError):
            await end.read()
        assert KEEPALIVE_S <= loop.time() - KEEPALIVE_S / 2 < KEEPALIVE_S + 0.5

    run(body)


def test_a_process_that_dies_breaks_its_streams_and_refuses() -> None:
    async def body(_: SimulatedLoop, network: SimulatedNetwork) -> None:
        server, end = listening(network)
        await end.write("first")
        assert await end.read() == "first"
        server.kill()
        network.process_gone(server, silently=False)
        with pytest.raises(ConnectionResetError):
            await end.read()
        with pytest.raises(Unavailable, match="refuses"):
            await network.ask("client", "server", lambda _: None, 1.0, Process("client"))

    run(body)
