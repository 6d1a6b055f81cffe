"""A node's session with its edge's judge: what the agent asks, what the connector says of itself, what the judge tells.

It lives on the attachment's connection and is begun anew with each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

from warren.fabric.aio.asked import Asked
from warren.fabric.aio.owner import Identity
from warren.fabric.core import session as core
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.link import Link, LinkReady
from warren.fabric.core.messages import session as say
from warren.fabric.core.reasons import Reason


class Judge:
    """`begin` it on a connection that is ready, `lose` it with that; `drain` it where something was received."""

    def __init__(
        self,
        tell: Callable[[core.SessionEvent], None],
        why_not: Callable[[], str],
        flush: Callable[[], None],
        doubt: Callable[[], None],
    ) -> None:
        """`tell`: what is no answer to a question. `why_not`: why there is no session, in words. `flush`, `doubt`: see
        `Asked`."""
        self._tell = tell
        self._why_not = why_not
        self._flush = flush
        self._decisions = Asked[say.Granted]("decisions", flush, doubt)
        self._choices = Asked[bool]("choices of a virtual network", flush, doubt)
        self._queries = Asked[say.Answer | say.HostRoute]("queries", flush, doubt)
        self._session: core.AgentSession | core.ConnectorSession | None = None

    # ---- life ----

    def begin(self, link: Link, ready: LinkReady, who: Identity, boot: bytes) -> None:
        """Enters as `who`, a process with this boot id."""
        self._session = core.AgentSession(link) if who.role == "agent" else core.ConnectorSession(link)
        self._session.start(ready, who.entering(boot, ready))

    def lose(self) -> None:
        """The connection is over: whoever waits for an answer hears so."""
        if isinstance(self._session, core.AgentSession):
            self._session.lost()
            self.drain()
        for asked in (self._decisions, self._choices, self._queries):
            asked.lose()
        self._session = None

    def drain(self) -> bool:
        """Handles what the judge has said; whether there was anything."""
        busy = False
        while self._session is not None and (event := self._session.poll_event()) is not None:
            busy = True
            self._event(event)
        return busy

    def _event(self, event: core.SessionEvent) -> None:
        match event:
            case core.Decided(request, granted, reason, detail):
                self._decisions.settle(request, granted, reason, detail)
            case core.NetworkChosen(request, refused, detail):
                self._choices.settle(request, True if refused is None else None, refused or Reason.UNKNOWN, detail)
            case core.Answered(request, answer):
                self._queries.settle(request, answer)
            case _:
                self._tell(event)

    # ---- what the agent asks ----

    async def decide(
        self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> say.Granted:
        """May this flow open? Raises DeniedError."""
        session = self._agents()
        if protocol not in ("tcp", "udp", "icmp"):
            raise DeniedError(Reason.UNSUPPORTED, protocol)
        asked = {"address": address, "host": host, "resolver": resolver}
        return await self._decisions.answer(session.decide(protocol, port, **asked))  # type: ignore[arg-type]

    async def choose(self, vnet: str) -> None:
        """Puts this device in another virtual network. Raises DeniedError."""
        await self._choices.answer(self._agents().choose(vnet))

    async def query(self, message: bytes, transport: Literal["udp", "tcp"]) -> say.Answer | say.HostRoute:
        """A DNS query, answered by the judge. Raises DeniedError."""
        return await self._queries.answer(self._agents().query(message, transport))

    def _agents(self) -> core.AgentSession:
        if not isinstance(self._session, core.AgentSession) or not self._session.ready:
            raise DeniedError(Reason.JUDGE_AWAY, self._why_not())
        return self._session

    # ---- what the connector says ----

    def health(self, flows: int, draining: bool) -> bool:
        """A beat; False: there is no session to say it in."""
        if isinstance(self._session, core.ConnectorSession):
            self._session.health(flows, draining)
            self._flush()
        return isinstance(self._session, core.ConnectorSession)

    def holding(self, ids: Iterable[str]) -> None:
        """What the connector's flows stand on; it hears of what is no more."""
        if isinstance(self._session, core.ConnectorSession):
            self._session.holding(ids)
            self._flush()
