"""The command line `redfs`: thin commands over `client/api.py`, `client/local_pool.py` and `client/mounting.py`."""
