"""A network that delays, loses, repeats and reorders, that can be cut one way or both ways, and slow to one endpoint.

Two kinds of traffic. *Requests* (`ask`) stand for the data plane: one message there and one back, each of which may be
lost, late or come twice; whoever asks gets `Unavailable` after its timeout, or at once where the connection breaks.
*Streams* (`connect`) stand for gRPC: messages in order, no loss, until the connection breaks; each end learns of that
in its own time, and what was sent before may arrive until then. A cut holds a stream's messages back, and ends it after
KEEPALIVE_S.

A message is delivered in the context of the process that receives it: one that is dead gets nothing.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import grpc.aio

from redfs.core.errors import RedfsError, Unavailable
from tests.simulation.loop import Process, SimulatedLoop

KEEPALIVE_S = 3.0
"""A cut connection ends after it, on both sides. Shorter than a lease, as the real one is."""
EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]  # the stubs do not name it


class Endpoint:
    """Something that can be reached by a name, as long as its process lives."""

    def __init__(self, process: Process, target: Any = None, services: Mapping[str, Service] | None = None) -> None:
        self.process = process
        self.target = target
        """What the bodies of requests are called with."""
        self.services = services or {}


class SimulatedNetwork:
    """See the module."""

    def __init__(
        self,
        loop: SimulatedLoop,
        *,
        loss: float = 0.0,
        repeat: float = 0.0,
        breaks: float = 0.0,
        latency_s: tuple[float, float] = (0.0001, 0.003),
    ) -> None:
        self.loop = loop
        self.loss = loss
        self.repeat = repeat
        self.breaks = breaks
        """The chance for each message on a stream that the connection breaks with it."""
        self.latency_s = latency_s
        self.slow: dict[str, float] = {}
        """Endpoint -> the longest extra delay of what it receives."""
        self._endpoints: dict[str, Endpoint] = {}
        self._cut: dict[tuple[str, str], float] = {}
        self._links: list[Link] = []
        self.delivered = 0
        self.lost = 0

    # ------------------------------------------------------------ who is there, and how they are joined

    def listen(self, name: str, endpoint: Endpoint) -> None:
        self._endpoints[name] = endpoint

    def endpoint(self, name: str) -> Endpoint | None:
        found = self._endpoints.get(name)
        return found if found is not None and found.process.alive else None

    def cut(self, sender: str, receiver: str, *, both_ways: bool = True) -> None:
        """Loses all messages from `sender` to `receiver` until `heal`."""
        for pair in ((sender, receiver), (receiver, sender))[: 1 + both_ways]:
            self._cut.setdefault(pair, self.loop.time())
        self.loop.call_later(KEEPALIVE_S, self._end_cut_links)

    def heal(self) -> None:
        """Ends all cuts, delays and losses."""
        self._cut.clear()
        self.slow.clear()
        for link in list(self._links):
            link.pump()

    def mend(self, pairs: list[tuple[str, str]]) -> None:
        """Ends some cuts."""
        for pair in pairs:
            self._cut.pop(pair, None)
        for link in list(self._links):
            link.pump()

    def is_cut(self, sender: str, receiver: str) -> bool:
        return (sender, receiver) in self._cut

    def _end_cut_links(self) -> None:
        long_ago_s = self.loop.time() - KEEPALIVE_S + 1e-6
        for link in list(self._links):
            cut = [self._cut.get(pair) for pair in ((link.client, link.server), (link.server, link.client))]
            if any(since_s is not None and since_s <= long_ago_s for since_s in cut):
                link.break_off()

    def process_gone(self, process: Process, *, silently: bool) -> None:
        """A process died: its connections break, for the others at once or, where its machine went, after a while."""
        for link in list(self._links):
            if process in (link.client_end.process, link.server_process):
                link.break_off(KEEPALIVE_S if silently else 0.0)

    def delay_s(self, receiver: str) -> float:
        rng = self.loop.random
        extra_s = self.slow.get(receiver)
        return rng.uniform(*self.latency_s) + (rng.uniform(0.0, extra_s) if extra_s else 0.0)

    # ------------------------------------------------------------ requests

    async def ask(
        self, sender: str, receiver: str, body: Callable[[Any], Any], timeout_s: float, asker: Process
    ) -> Any:
        """Runs `body` on the receiver's target, there; its value. Raises what it raises, and Unavailable."""
        loop = self.loop
        answer: asyncio.Future[Any] = loop.create_future()

        def answered(value: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(value)

        def reply(value: Any, error: BaseException | None) -> None:
            if self._goes(receiver, sender):
                loop.later(asker, self.delay_s(sender), answered, value, error)
            elif loop.random.random() < 0.5:
                loop.later(asker, self.delay_s(sender), answered, None, Unavailable("the connection broke"))

        late = loop.call_later(
            timeout_s, answered, None, Unavailable(f"{receiver} did not answer within {timeout_s:g} s")
        )
        for _ in range(1 + (loop.random.random() < self.repeat)):
            endpoint = self.endpoint(receiver)
            if endpoint is None:
                if not self.is_cut(sender, receiver):
                    loop.later(asker, self.delay_s(sender), answered, None, Unavailable(f"{receiver} refuses"))
            elif self._goes(sender, receiver):
                loop.later(endpoint.process, self.delay_s(receiver), self._serve, endpoint, body, reply)
        try:
            return await answer
        finally:
            late.cancel()

    def _goes(self, sender: str, receiver: str) -> bool:
        if self.is_cut(sender, receiver) or self.loop.random.random() < self.loss:
            self.lost += 1
            return False
        self.delivered += 1
        return True

    def _serve(
        self, endpoint: Endpoint, body: Callable[[Any], Any], reply: Callable[[Any, BaseException | None], None]
    ) -> None:
        try:
            value = body(endpoint.target)
        except RedfsError as error:
            reply(None, error)
            return
        if inspect.isawaitable(value):
            self.loop.create_task(_answer_later(value, reply))
        elif endpoint.process.alive:
            reply(value, None)

    # ------------------------------------------------------------ streams

    def connect(self, client: str, server: str, service: str, process: Process) -> StreamEnd:
        """A new stream; it is opened with the first message."""
        link = Link(self, client, server, service, process)
        self._links.append(link)
        return link.client_end

    def forget(self, link: Link) -> None:
        if link in self._links:
            self._links.remove(link)


async def _answer_later(value: Awaitable[Any], reply: Callable[[Any, BaseException | None], None]) -> None:
    try:
        found = await value
    except RedfsError as error:
        reply(None, error)
    else:
        reply(found, None)


class StreamEnd:
    """One end of a stream, with what grpc.aio offers: the client's call, or the server's context."""

    def __init__(self, link: Link, process: Process | None, *, is_client: bool) -> None:
        self.link = link
        self.process = process
        self._is_client = is_client
        self._arrived: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self.broken = False
        self.ended = False
        """The other side sends nothing any more."""

    async def read(self) -> Any:
        while True:
            if self._arrived:
                return self._arrived.popleft()
            if self.broken:
                raise ConnectionResetError("the stream broke")
            if self.ended:
                return EOF
            self._reader = self.link.network.loop.create_future()
            await self._reader

    async def write(self, message: Any) -> None:
        if self.broken:
            raise ConnectionResetError("the stream broke")
        self.link.send(self._is_client, message)

    def cancel(self) -> None:
        """The client hangs up."""
        if not self.broken:
            self.link.break_off(by_client=True)

    async def abort(self, _code: Any, details: str, _metadata: Any = ()) -> None:
        raise AssertionError(f"nobody aborts a simulated stream: {details}")

    def arrive(self, message: Any) -> None:
        if not self.broken:
            self._arrived.append(message)
            self._wake()

    def notice(self) -> None:
        """The connection has broken, as far as this end knows."""
        self.broken = True
        self._wake()

    def end(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


Service = Callable[[StreamEnd], Awaitable[None]]


class Link:
    """A connection with one stream."""

    def __init__(self, network: SimulatedNetwork, client: str, server: str, service: str, process: Process) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.client_end = StreamEnd(self, process, is_client=True)
        self.server_end = StreamEnd(self, None, is_client=False)
        self.server_process: Process | None = None
        self._service = service
        self._handler: asyncio.Task[None] | None = None
        self._opened = False
        self._gone = False
        self._waiting: dict[bool, deque[Any]] = {True: deque(), False: deque()}
        """Sent by the client (True) and by the server, and not delivered."""
        self._next_s = {True: 0.0, False: 0.0}

    def send(self, by_client: bool, message: Any) -> None:
        if self._gone:
            return
        network = self.network
        receiver = self.server if by_client else self.client
        at_s = max(self._next_s[by_client], network.loop.time() + network.delay_s(receiver))
        self._next_s[by_client] = at_s
        self._waiting[by_client].append(message)
        if by_client and not self._opened:
            self._opened = True
            endpoint = network.endpoint(self.server)
            if endpoint is None:
                self.break_off()
                return
            self.server_process = self.server_end.process = endpoint.process
        process = self._process(not by_client)
        if process is not None:
            network.loop.call_at(at_s, self._deliver, by_client, context=process.context)
        if network.loop.random.random() < network.breaks:
            self.break_off()

    def _process(self, of_client: bool) -> Process | None:
        return self.client_end.process if of_client else self.server_process

    def pump(self) -> None:
        """What a cut held back goes on."""
        for by_client in (True, False):
            process = self._process(not by_client)
            if process is None:
                continue
            for _ in self._waiting[by_client]:
                at_s = max(self._next_s[by_client], self.network.loop.time())
                self.network.loop.call_at(at_s, self._deliver, by_client, context=process.context)

    def _deliver(self, by_client: bool) -> None:
        sender, receiver = (self.client, self.server) if by_client else (self.server, self.client)
        waiting = self._waiting[by_client]
        if not waiting or self.network.is_cut(sender, receiver):
            return
        message = waiting.popleft()
        if not by_client:
            self.client_end.arrive(message)
            return
        if self._handler is None:
            endpoint = self.network.endpoint(self.server)
            if endpoint is None or endpoint.process is not self.server_process:
                self.break_off()
                return
            service = endpoint.services[self._service]
            self._handler = self.network.loop.create_task(self._serve(service))
        self.server_end.arrive(message)

    async def _serve(self, service: Service) -> None:
        try:
            await service(self.server_end)
        except ConnectionResetError:
            pass
        finally:
            if not self._gone:
                self._gone = True
                self.network.forget(self)
                loop = self.network.loop
                assert self.client_end.process is not None
                loop.later(self.client_end.process, self._rest_s(), self.client_end.end)

    def _rest_s(self) -> float:
        """Until all that the server has sent is there."""
        now_s = self.network.loop.time()
        return max(self._next_s[False] - now_s, 0.0) + self.network.delay_s(self.client)

    def break_off(self, late_s: float = 0.0, *, by_client: bool = False) -> None:
        """The connection breaks. Each side learns of it in its own time; the server may go on with what it has."""
        if self._gone:
            return
        self._gone = True
        self.network.forget(self)
        loop = self.network.loop
        rng = loop.random
        assert self.client_end.process is not None
        if by_client:
            self.client_end.notice()
            late_s = KEEPALIVE_S if self.network.is_cut(self.client, self.server) else 0.0
        else:
            loop.later(self.client_end.process, late_s + rng.uniform(0.0, 0.02), self.client_end.notice)
        if self.server_process is not None:
            server_late_s = late_s + rng.choice((0.0, 0.005, 0.3)) * rng.random()
            loop.later(self.server_process, server_late_s, self._cancel_handler)

    def _cancel_handler(self) -> None:
        self.server_end.notice()
        if self._handler is not None:
            self._handler.cancel()
