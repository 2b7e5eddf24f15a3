"""Bounds and waits of the client's data path, read once at the start."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True)
class DataConfig:
    """Every number of the data path that an owner may want to set."""

    segments_in_flight: int = 4
    """Large segments worked on at once: one packed, one encoded, two on their way. Each holds a 12 MiB buffer."""
    small_in_flight: int = 32
    """Small flushes at once, each below 64 KiB: about the depth at which one disk's flushes are shared best."""
    large_opens: int = 4
    """Large segments opened ahead, so that no write waits for a round trip to the coordinator."""
    small_opens: int = 16
    """Small segments opened ahead: a burst of fsyncs goes through before the next batch has come."""
    workers: int = 2
    """Threads for hashing, compression and coding: more than the cores of a small machine only adds switches."""
    cache_bytes: int = 128 * MIB
    """Plain blocks kept for readers, what was read ahead included."""
    prefetch_bytes: int = 48 * MIB
    """Read-ahead under way at once; further wishes are dropped. Below the cache, so that it is read before it goes."""
    locations: int = 131_072
    """Blocks whose place is remembered (about 300 bytes each): 16 GiB of full blocks."""
    segment_locations: int = 16_384
    """Segments whose nodes are remembered."""
    node_timeout_s: float = 10.0
    """For a node's answer to a write, its flush to disk included."""
    too_few_patience_s: float = 30.0
    """A write waits this long for nodes where too few can be written to, before it is an error: a program that is told
    of an error seldom tries again, and most of what takes many nodes away at once is over soon."""
    hedge_after_s: float = 1.0
    """A node that has not answered a read by then counts as missing for it: decoding is faster than waiting on."""
    connect_timeout_s: float = 2.0
    """For a node's first answer on a new connection."""
    suspect_s: float = 5.0
    """How long a node that failed is left out, where others can stand in, before it is tried again."""
    suspect_max_s: float = 30.0
    """The same for reads of a node that fails again and again: each try costs a reader up to `hedge_after_s`."""
    quick_connections: int = 4
    """Connections to one node that the event loop uses for short requests."""
    bulk_connections: int = 4
    """Connections to one node that threads use for long transfers."""
