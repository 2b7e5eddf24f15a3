"""The journal put together for a coordinator's process: nodes at their addresses, the journal, its keeper."""

from __future__ import annotations

from collections.abc import Callable

from redfs.coordinator.coordinator import ALL_TABLES, Coordinator
from redfs.coordinator.journal import Journal
from redfs.coordinator.journal_keeper import AWAY_STATES, JournalKeeper
from redfs.coordinator.journal_peers import NetworkPeers

CHAIN_BYTES = 8


class Journaling:
    """From `start_journaling` to `stop`."""

    def __init__(self, coordinator: Coordinator) -> None:
        config, clock = coordinator.config, coordinator.env.clock

        def address_of(node_id: int) -> str | None:
            rows = {node.node_id: node.row for node in coordinator.cluster.view()}
            return rows[node_id].address if node_id in rows else None

        first_chain = int.from_bytes(coordinator.env.randomness.token_bytes(CHAIN_BYTES))
        self._peers = NetworkPeers(coordinator.pool_id, address_of, config.journal_wait_s)
        self.journal = Journal(self._peers, config.journal_wait_s, clock.monotonic, first_chain)
        self.keeper = JournalKeeper(
            self.journal, self._peers, coordinator.store, ALL_TABLES, coordinator.cluster, config, clock
        )

    def stop(self) -> None:
        """Ends threads and connections. After the last command."""
        self.keeper.stop()
        self.journal.close()
        self._peers.close()


def start_journaling(coordinator: Coordinator, on_fenced: Callable[[], None]) -> Journaling | None:
    """Starts the journal, before anybody's first command; None where the settings want none. `on_fenced` is called from
    any thread. Raises Fenced, NoSpace."""
    if not coordinator.config.journal_copies:
        return None
    journaling = Journaling(coordinator)
    try:
        nodes = coordinator.cluster.view()
        journaling.journal.start(coordinator.store, [n.node_id for n in nodes if n.row.state not in AWAY_STATES])
    except BaseException:
        journaling.journal.close()
        raise
    journaling.journal.on_fenced = on_fenced
    coordinator.journal = journaling.journal
    coordinator.journal_problems = journaling.keeper.problems
    coordinator.journal_is_settled = lambda: journaling.keeper.is_settled
    journaling.keeper.start()
    return journaling
