"""A network that delays, loses, repeats and reorders messages, and that can be cut, one way or both ways.

Messages are plain Python values handed from endpoint to endpoint by name; what they mean is the endpoints' business. An
endpoint that is down loses what arrives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.simulation.clock import Simulation

Handler = Callable[[str, Any], None]
"""(sender, message)."""


class SimulatedNetwork:
    def __init__(
        self,
        simulation: Simulation,
        *,
        loss: float = 0.0,
        repeat: float = 0.0,
        latency_s: tuple[float, float] = (0.0001, 0.005),
    ) -> None:
        self._simulation = simulation
        self.loss = loss
        self.repeat = repeat
        self.latency_s = latency_s
        self._handlers: dict[str, Handler] = {}
        self._cut: set[tuple[str, str]] = set()
        self.delivered = 0
        self.lost = 0

    def listen(self, name: str, handler: Handler) -> None:
        """Brings the endpoint up (again)."""
        self._handlers[name] = handler

    def crash(self, name: str) -> None:
        """Takes the endpoint down: what is on its way to it is lost."""
        self._handlers.pop(name, None)

    def cut(self, sender: str, receiver: str, *, both_ways: bool = True) -> None:
        """Loses all messages from `sender` to `receiver` until `heal`."""
        self._cut.add((sender, receiver))
        if both_ways:
            self._cut.add((receiver, sender))

    def heal(self) -> None:
        """Ends all cuts."""
        self._cut.clear()

    def send(self, sender: str, receiver: str, message: Any) -> None:
        """Sends once; the message arrives after a random delay, twice, or not at all."""
        rng = self._simulation.random
        copies = 1 + (rng.random() < self.repeat)
        for _ in range(copies):
            if rng.random() < self.loss:
                self.lost += 1
                continue
            self._simulation.after(rng.uniform(*self.latency_s), lambda: self._deliver(sender, receiver, message))

    def _deliver(self, sender: str, receiver: str, message: Any) -> None:
        handler = self._handlers.get(receiver)
        if handler is None or (sender, receiver) in self._cut:
            self.lost += 1
            return
        self.delivered += 1
        handler(sender, message)
