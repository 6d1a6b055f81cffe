"""Whether an edge still is the process that a node is attached to: a second connection tells its boot id."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from warren.fabric.aio.call import Call
from warren.fabric.core.engine import Address, ClientConfig, Engine
from warren.fabric.core.link import LinkClosed, LinkEvent, LinkReady
from warren.fabric.core.reasons import Reason

LOOK_TIME = 5.0
"""Seconds for a look whether the edge is the same process."""
SILENT = 0.5
"""Seconds of a look whether the edge is the same process after which other edges are used, where there are some: four
PTOs where the way is longer, for a handshake takes three round trips."""


class Look:
    """Which process answers at an address, told to a connection of its own."""

    def __init__(self, engine: Engine, config: ClientConfig, address: Address, mark: int = 0) -> None:
        self._seen: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._call = Call(engine, config, address, self._handle, lambda: False, mark=mark)
        self._limit = asyncio.timeout(LOOK_TIME)
        self._began = asyncio.get_running_loop().time()

    async def boot(self) -> bytes:
        """Its boot id; empty if nobody tells one in LOOK_TIME, or the connection is over before."""
        self._call.start()
        try:
            async with self._limit:
                return await self._seen
        except TimeoutError:
            return b""
        finally:
            self._call.close(Reason.CANCELLED)

    def again(self) -> None:
        """Somebody may be there now: asks once more at once, and waits as long again, but not for ever: whoever was
        there may have forgotten this connection, and the next look has another one."""
        self._call.probe()
        if not self._limit.expired():
            now = asyncio.get_running_loop().time()
            self._limit.reschedule(min(now + LOOK_TIME, self._began + 2 * LOOK_TIME))

    def _handle(self, event: LinkEvent) -> None:
        if not self._seen.done():
            match event:
                case LinkReady(boot=boot):
                    self._seen.set_result(boot)
                case LinkClosed():
                    self._seen.set_result(b"")


class Doubt:
    """One look at a time, beside a connection that may be good for nothing any more."""

    def __init__(
        self, silent: Callable[[], None], spoke: Callable[[], None], over: Callable[[Call, str], None]
    ) -> None:
        """`silent`: nobody has answered for a while. `spoke`: somebody has. `over`: a connection is, and why."""
        self._silent, self._spoke, self._over = silent, spoke, over
        self._look: Look | None = None
        self._task: asyncio.Task[None] | None = None

    def look(self, make: Callable[[], Look], first: Call, known: bytes) -> None:
        """Who answers now, beside `first`? If it is the process with the `known` boot id, and `first` still answers,
        nothing has changed; if not, `first` is over. A look that is under way asks again at once."""
        if self._look is not None:
            self._look.again()
        elif known and (self._task is None or self._task.done()):
            self._task = asyncio.create_task(self._compare(make, first, known))

    async def _compare(self, make: Callable[[], Look], first: Call, known: bytes) -> None:
        patience = max(SILENT, 4 * first.link.connection.pto())
        silence = asyncio.get_running_loop().call_later(patience, self._silent)
        try:
            self._look = make()
            boot = await self._look.boot()
        finally:
            self._look = None
            silence.cancel()
        if not boot:
            return  # nobody is there: the first connection will find that out by itself
        self._spoke()
        if boot != known:
            self._over(first, "the edge was restarted")
        elif not await first.answers():
            self._over(first, "it has forgotten the connection")

    async def close(self) -> None:
        """Looks no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
