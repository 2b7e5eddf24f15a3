"""Several hosts on one volume, with faults, under one seed; checkers judge what the programs there saw.

Hosts are network namespaces with mounts of their own (`network.py`, `rig.py`). Programs work through them with real
system calls and write down each operation's beginning, end and result (`worker.py`, `history.py`). What they do, and
which faults come when, is drawn from a seed alone (`schedule.py`). The checkers are pure: names (`names.py`) and
registers (`registers.py`) by a search for an order that explains everything (`linear.py`), appended records by the
file's end (`appends.py`). `python -m tests.hosts --schedules 200 --seed 1` runs them; a failing seed is printed and can
be run again by itself.

What programs may rely on, and is checked: once an operation has returned on one host, every later one on any host
sees it. One that failed with EIO or the like, or never returned, may have happened at any time since it began, or
never.
"""
