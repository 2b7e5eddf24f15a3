"""RedFS: a storage pool over networked disks.

The sub-packages are the top-level folders of the repository (links beside this file), so that they
install under one name and cannot clash with other packages called `core` or `proto`.
"""

__version__ = "0.1.0"
