"""Clusters in containers, and what breaks in them: one container per part, a private network, real mounts.

`engine.py` finds the Docker engine or starts it, `rig.py` is a cluster, `faults.py` breaks it, `load.py` runs in a
client's container and writes files whose content is known, `shim.c` is a disk that fails and a clock that jumps,
`power.c` a disk that loses what was not synced.
`python -m tests.cluster --minutes 60 --seed 1` does random faults for as long as one likes.
"""
