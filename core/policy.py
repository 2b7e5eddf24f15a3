"""Protection policies: what the words mean, and what a policy becomes with the nodes that are up.

A policy says how many data shards (k) and redundant shards (m) a segment has. `ec:K+M` is Reed-Solomon, `mirror:N`
is N copies (k = 1, m = N - 1), `single` is one copy. `raid5` and `raid6` are names for `ec:4+1` and `ec:4+2`.
With fewer than k + m nodes k shrinks and m stays, so that a volume never tolerates fewer losses than it was promised.

Pure: raises `InvalidArgument` for words that mean nothing and `TooFewNodes` where a policy cannot be held.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from redfs.core.errors import InvalidArgument, TooFewNodes

MAX_DATA_SHARDS = 16
"""Wider stripes rebuild slower and touch more nodes for each read; 16 already stores at 1.1 times the data."""
MAX_PARITY_SHARDS = 8
"""Nobody loses more than this many nodes at once and keeps the pool."""

DEFAULT_POLICY = "ec:4+2"
ALIASES = {"raid5": "ec:4+1", "raid6": "ec:4+2"}

_EC = re.compile(r"ec:([0-9]{1,2})\+([0-9]{1,2})\Z")
_MIRROR = re.compile(r"mirror:([0-9]{1,2})\Z")


class Layout(NamedTuple):
    """The code of one segment: k data shards and m redundant ones. k = 1 means m + 1 copies of the payload."""

    k: int
    m: int

    @property
    def width(self) -> int:
        """Shards, and so distinct nodes."""
        return self.k + self.m


class Policy(NamedTuple):
    """What a volume was promised: any m nodes may be lost."""

    k: int
    m: int

    @property
    def width(self) -> int:
        """Nodes that the full layout takes."""
        return self.k + self.m

    @property
    def least_nodes(self) -> int:
        """Nodes below which the promise cannot be held: m + 1."""
        return self.m + 1

    def __str__(self) -> str:
        if self.k > 1:
            return f"ec:{self.k}+{self.m}"
        return f"mirror:{self.m + 1}" if self.m else "single"


def parse_policy(text: str) -> Policy:
    """The policy that a user's words mean; `str` of it is the canonical form. Raises InvalidArgument."""
    word = ALIASES.get(text, text)
    if word == "single":
        return Policy(1, 0)
    if found := _MIRROR.match(word):
        copies = int(found[1])
        if not 2 <= copies <= MAX_PARITY_SHARDS + 1:
            raise InvalidArgument(f"policy {text}: a mirror has 2 to {MAX_PARITY_SHARDS + 1} copies")
        return Policy(1, copies - 1)
    if found := _EC.match(word):
        k, m = int(found[1]), int(found[2])
        if not 2 <= k <= MAX_DATA_SHARDS or not 1 <= m <= MAX_PARITY_SHARDS:
            raise InvalidArgument(
                f"policy {text}: ec:K+M takes K from 2 to {MAX_DATA_SHARDS} and M from 1 to {MAX_PARITY_SHARDS}"
            )
        return Policy(k, m)
    raise InvalidArgument(f"unknown protection policy {text!r}: use ec:K+M, mirror:N, single, raid5 or raid6")


def shrink(policy: Policy, nodes: int, minimum_nodes: int = 0) -> Layout:
    """The layout to write with when `nodes` nodes can be written to.

    k shrinks and m stays. Below m + 1 nodes writing stops, unless the volume was given a lower `minimum_nodes`
    (0: the policy's own): then m shrinks too. Raises TooFewNodes.
    """
    needed = min(minimum_nodes or policy.least_nodes, policy.least_nodes)
    if nodes < needed:
        raise TooFewNodes(
            f"{policy} needs {needed} storage nodes to write and {nodes} can be written to: "
            "bring nodes back, add some, or lower the volume's minimum"
        )
    if nodes >= policy.least_nodes:
        return Layout(min(policy.k, nodes - policy.m), policy.m)
    return Layout(1, nodes - 1)


def small_layout(policy: Policy, nodes: int, minimum_nodes: int = 0) -> Layout:
    """The layout of a flush too small to stripe: m + 1 copies, the policy's tolerance on fewer nodes."""
    return Layout(1, shrink(policy, nodes, minimum_nodes).m)


def fits(policy: Policy, nodes: int) -> bool:
    """Whether the full layout finds a node for every shard."""
    return policy.width <= nodes


def best_fit(policy: Policy, nodes: int) -> Policy:
    """The nearest policy that `nodes` (at least one) nodes hold in full: k first, then m gives way."""
    if nodes >= policy.width:
        return policy
    if nodes >= policy.m + 2:
        return Policy(nodes - policy.m, policy.m)
    return Policy(1, nodes - 1)


def require_fit(policy: Policy, nodes: int) -> None:
    """Raises TooFewNodes, saying how many nodes there are and what would fit, where the policy is too wide."""
    if nodes == 0:
        raise TooFewNodes(f"{policy} needs {policy.width} storage nodes and none has joined the pool yet")
    if not fits(policy, nodes):
        raise TooFewNodes(
            f"{policy} needs {policy.width} storage nodes and the pool has {nodes}: "
            f"add nodes, or use --protect {best_fit(policy, nodes)}"
        )


def overhead_bytes(layout: Layout | Policy, plain_bytes: int) -> int:
    """Raw bytes that `plain_bytes` of (incompressible) data take with the layout."""
    return -(-plain_bytes * (layout.k + layout.m) // layout.k)
