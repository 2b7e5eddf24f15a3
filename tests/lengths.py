"""How long those tests run that draw what they do: REDFS_TEST_LENGTH times as long as in `make test`.

Most draw anew in each run, so that what one run was too short for another one finds; those whose seeds are written down
go on to further seeds. 5 is for a change of what they test; 50 and more, of single files, for a night.
"""

from __future__ import annotations

import os

LENGTH = float(os.environ.get("REDFS_TEST_LENGTH", "1"))


def examples(number: int) -> int:
    """So many, in a run of the usual length."""
    return max(1, round(number * LENGTH))
