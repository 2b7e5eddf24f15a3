"""The pool heals itself: shards are made anew where they are lost or damaged, and moved where they should not stay.

The coordinator plans and records, storage nodes do the work. `survey` looks at all segments, a bounded piece at a time,
and keeps the most endangered; `healing` decides what is done next and takes what came of it; `commands` changes the
rows; `worker` drives these with the event loop. Only the last knows asyncio: a simulation drives the others.

All that must be remembered is in the rows: where each shard lies, what is damaged, each node's state, the jobs with
being paused. The most endangered, the tasks under way and who failed are in memory, bounded, and found again.

| what fails | what it leaves |
|---|---|
| the target dies before it has answered | the task is lost; what it had made is surplus, its next inventory shows it |
| the answer is lost, or comes after the deadline | the same; made twice on one node it is the same shard |
| the coordinator dies before the row is durable | the same: the row says where the shard was |
| the coordinator dies after that | done; the old shard is doomed by the same transaction |
| the segment died, or somebody else moved the shard | what was made is doomed at once |
| the node came back meanwhile | the row says which of the two stays; the other is doomed, or surplus |
| a source is damaged | the task names it: it is damaged by the rows then, passed over, and repaired in its turn |
| the same shard fails again and again | pauses double up to MAX_BACKOFF_S; who failed to make it is the last choice |
| a deletion of the shard waits at the node | it is not recorded there, but made elsewhere or later |
| no node can take a shard (too few, or full) | it stays where it is, people are told, and it is looked at again |
| fewer than k shards can be read | told as lost, never thrown away; planned again when its nodes are back |
| a node comes and goes | it is away until it was up for `node_down_s`, and gets no work before |
| many nodes are away at once | none is given up by time alone (MAX_GIVEN_UP_SHARE): it is no disk that is broken |
| a node that was given up comes back | in again when it was up for long enough and compared; the rows say what counts |
"""
