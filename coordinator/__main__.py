"""`python -m redfs.coordinator`."""

from __future__ import annotations

import sys

from redfs.coordinator.main import main

sys.exit(main())
