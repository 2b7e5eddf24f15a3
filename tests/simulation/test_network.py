"""The simulated clock and network do what they say, and the same again under the same seed."""

from __future__ import annotations

from typing import Any

from tests.simulation.clock import Simulation
from tests.simulation.network import SimulatedNetwork


def exchange(seed: int, *, loss: float = 0.0, repeat: float = 0.0) -> list[tuple[float, Any]]:
    simulation = Simulation(seed)
    network = SimulatedNetwork(simulation, loss=loss, repeat=repeat)
    seen: list[tuple[float, Any]] = []
    network.listen("b", lambda _sender, message: seen.append((simulation.clock.monotonic(), message)))
    for number in range(100):
        network.send("a", "b", number)
    simulation.run()
    return seen


def test_a_quiet_network_delivers_everything_once() -> None:
    assert sorted(m for _, m in exchange(1)) == list(range(100))


def test_messages_overtake_one_another() -> None:
    order = [m for _, m in exchange(1)]
    assert order != sorted(order)


def test_one_seed_gives_one_run() -> None:
    assert exchange(7, loss=0.3, repeat=0.3) == exchange(7, loss=0.3, repeat=0.3)
    assert exchange(7, loss=0.3) != exchange(8, loss=0.3)


def test_loss_and_repeats() -> None:
    got = [m for _, m in exchange(3, loss=0.5)]
    assert 20 < len(got) < 80
    twice = [m for _, m in exchange(3, repeat=1.0)]
    assert sorted(twice) == sorted([*range(100), *range(100)])


def test_cuts_and_crashes_lose_what_is_on_its_way() -> None:
    simulation = Simulation(0)
    network = SimulatedNetwork(simulation)
    seen: list[Any] = []
    network.listen("b", lambda _sender, message: seen.append(message))
    network.listen("a", lambda _sender, message: seen.append(message))
    network.cut("a", "b", both_ways=False)
    network.send("a", "b", "cut")
    network.send("b", "a", "open")
    simulation.run()
    assert seen == ["open"]
    network.heal()
    network.send("a", "b", "in flight")
    network.crash("b")
    simulation.run()
    assert seen == ["open"]


def test_events_run_in_order_of_time_then_of_scheduling() -> None:
    simulation = Simulation(0)
    order: list[str] = []
    simulation.after(2.0, lambda: order.append("late"))
    simulation.after(1.0, lambda: order.append("first"))
    simulation.after(1.0, lambda: order.append("second"))
    simulation.run()
    assert order == ["first", "second", "late"]
    assert simulation.clock.monotonic() == 2.0
