"""The long-lived parts of a running console, and how an operation gets at them."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import Depends, Request

from redfs.client.config import PoolPlace
from redfs.client.console.browse import Versions
from redfs.client.console.coordinator import Coordinator
from redfs.client.console.copying import Copies
from redfs.client.console.events import Events
from redfs.client.console.views import Views

MAX_DOWNLOADS = 16
"""At once: each holds a view and a megabyte, and reads ahead in the memory that all share."""


class Parts:
    """See the module. Made inside the server's event loop; ended by `close`."""

    def __init__(self, place: PoolPlace) -> None:
        self.coordinator = Coordinator(place)
        self.views = Views(self.coordinator)
        self.versions = Versions(self.coordinator, self.views)
        self.copies = Copies(self.coordinator)
        self.events = Events(self.coordinator)
        self.downloads = asyncio.Semaphore(MAX_DOWNLOADS)

    async def close(self) -> None:
        """Ends them in order."""
        self.events.close()
        await self.copies.close()
        await self.views.close()
        await self.coordinator.close()


def parts_of(request: Request) -> Parts:
    """The parts of the application that serves a request."""
    parts: Parts = request.app.state.parts
    return parts


In = Annotated[Parts, Depends(parts_of)]
"""An argument of an operation."""
