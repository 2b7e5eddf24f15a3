"""What to say about data that has lost protection, and about what is done for it: one plain sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from redfs.coordinator.cluster import OUT, NodeView
from redfs.coordinator.jobs import ShownJob
from redfs.coordinator.redundancy import Redundancy

MAX_LOSSES_SAID = 3
"""The worst groups of segments that get a line."""


def healing_problems(
    redundancy: Redundancy, kept_in: Sequence[int], nodes: Sequence[NodeView], jobs: Sequence[ShownJob], out_s: float
) -> list[str]:
    """The sentences, the worst first."""
    said = []
    if redundancy.lost:
        back = " or ".join(f"node {node}" for node in redundancy.lost_with)
        said.append(
            f"{_segments(redundancy.lost)} cannot be read, too many of their shards are gone: "
            + (f"bring back {back}" if back else "their nodes have them damaged; `redfs node ls` shows where")
        )
    done = _what_is_done(redundancy, kept_in, nodes, jobs, out_s)
    for bad, width, count in redundancy.losses[:MAX_LOSSES_SAID]:
        lost = f"has lost {bad} of its" if count == 1 else f"have lost {bad} of their"
        said.append(f"{_segments(count)} {lost} {width} shards: {done}")
    if kept_in:
        members = [node for node in nodes if node.state != OUT]
        away = sum(not node.up for node in members)
        said.append(
            f"{away} of {len(members)} nodes are away, too many to be given up by themselves: bring them back, or say "
            "which are not coming (`redfs node out NODE`)"
        )
    if redundancy.homeless and not redundancy.losses:
        said.append(_no_place(redundancy))
    return said


def _segments(count: int) -> str:
    return "1 segment" if count == 1 else f"{count:,} segments"


def _no_place(redundancy: Redundancy) -> str:
    shards = "1 shard finds" if redundancy.homeless == 1 else f"{redundancy.homeless:,} shards find"
    return f"{shards} no other node to lie on, of segments on up to {redundancy.widest} nodes each: add a node"


def _what_is_done(
    redundancy: Redundancy, kept_in: Sequence[int], nodes: Sequence[NodeView], jobs: Sequence[ShownJob], out_s: float
) -> str:
    working = [job for job in jobs if job.kind in ("rebuild", "repair")]
    paused = next((job for job in working if job.state == "paused"), None)
    if paused is not None:
        return f"the {paused.kind} is paused, `redfs job resume {paused.job_id}` lets it go on"
    if redundancy.homeless:
        return _no_place(redundancy)
    if working:
        left_s = max(job.left_s for job in working)
        what = "a rebuild is" if working[0].kind == "rebuild" else "their repair is"
        return f"{what} under way" + (f", {_time(left_s)} left" if left_s >= 0 else "")
    away = [node for node in nodes if not node.up and node.state != OUT and not node.row.failed]
    if away and not kept_in:
        first = max(away, key=lambda node: node.away_s)
        left_s = max(0.0, out_s - first.away_s)
        return f"they are made anew in {_time(left_s)} if node {first.node_id} does not come back"
    return "they are made anew when that can be done" if kept_in else "a rebuild begins"


def _time(seconds: float) -> str:
    return f"{max(1, round(seconds))} s" if seconds < 90 else f"{round(seconds / 60)} min"
