"""A connector's TLS connection to one edge: carries nothing, and ends when the process does.

So the edge knows within a fraction of a second that this process is gone, and tells every agent. Without it (TCP is
blocked) the edge finds out by missed beats.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import ssl

import structlog

from warren.fabric.aio.lookup import edge_address
from warren.fabric.aio.owner import Identity
from warren.fabric.aio.tls import HANDSHAKE_TIME, client_context, keep_alive
from warren.fabric.core.backoff import Backoff
from warren.fabric.core.engine import ClientConfig
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.presence import ALPN, CHALLENGE, LABEL, PRESENT, SEEN, Present
from warren.fabric.identity import certificates
from warren.fabric.identity.statements import Edge

log = structlog.get_logger()

BACKOFF = (0.25, 30.0)
"""Seconds between attempts, first and longest."""


class Presence:
    """Keeps the connection to one edge, for ever. `start` it, `close` it."""

    def __init__(self, identity: Identity, edge: Edge) -> None:
        self.edge = edge
        self.seen = False
        """The edge has taken note of us."""
        self.identity = identity
        """What is shown from the next connection on; the key stays the same."""
        root = certificates.pem(identity.network)
        self._context = client_context(ClientConfig(ALPN, edge.server_name, root))
        self._task: asyncio.Task[None] | None = None
        self._at_once = asyncio.Event()
        """The edge is there, and is connected to without waiting."""
        self._said = ""

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def there(self) -> None:
        """The edge answers on QUIC: an edge that was away for long is shown at once that we are here. Until then it
        would hold the flows of ours for a minute if we died, which it would notice by missed beats only."""
        if not self.seen:
            self._at_once.set()

    async def close(self) -> None:
        """Ends it. The edge takes this process for gone unless its QUIC connection still answers."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        backoff = Backoff(*BACKOFF, random=random.random)
        while True:
            try:
                await self._be_there(backoff)
                self._tell("the edge closed it")
            except asyncio.IncompleteReadError:
                self._tell("the edge closed it")
            except (OSError, ssl.SSLError, TimeoutError, DeniedError) as error:
                self._tell(str(error) or type(error).__name__)
                error.with_traceback(None)  # whose frames know the connection, which keeps the error
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff.next()):
                    await self._at_once.wait()
                    backoff.reset()  # its TCP port may be a moment later than its UDP port
            self._at_once.clear()

    def _tell(self, why: str) -> None:
        """Once for each reason: a network that blocks TCP stays so."""
        self.seen = False
        if why != self._said:
            log.info("no TLS connection to the edge; it would notice our end later", edge=str(self.edge), why=why)
        self._said = why

    async def _be_there(self, backoff: Backoff) -> None:
        host, port = (await edge_address(self.edge))[:2]
        async with asyncio.timeout(HANDSHAKE_TIME):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=self._context, server_hostname=self.edge.server_name
            )
        try:
            async with asyncio.timeout(HANDSHAKE_TIME):
                await self._prove(reader, writer)
            self.seen, self._said = True, ""
            backoff.reset()
            self._at_once.clear()
            await reader.read(1)  # until it ends
        finally:
            writer.close()
            with contextlib.suppress(OSError, ssl.SSLError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await writer.wait_closed()

    async def _prove(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        keep_alive(writer.get_extra_info("socket"))
        leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        certificates.check_leaf(leaf, self.edge.server_name)
        challenge = await reader.readexactly(CHALLENGE)
        me = self.identity
        signature = me.sign(LABEL, challenge, leaf)
        writer.write(PRESENT.encode(Present(me.key, signature, me.certificates, me.statement)))
        if await reader.readexactly(len(SEEN)) != SEEN:
            raise OSError("it speaks something else")
