"""`python -m redfs.client.console`."""

from __future__ import annotations

import sys

from redfs.client.console.server import main

if __name__ == "__main__":
    sys.exit(main())
