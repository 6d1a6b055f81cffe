"""What every listener does with a query, whatever it came over: limits, cookies, padding, counters, the query log."""

from __future__ import annotations

import secrets
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, Literal

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.alike import Form
from warren.dnsfilter.core.cookies import CLIENT, SECRET, Jar
from warren.dnsfilter.core.limit import Limiter
from warren.dnsfilter.core.packets import Packet
from warren.dnsfilter.core.verdict import Asked, Client, Kind, Resolved, Verdict
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings
from warren.fabric.core import dnswire as wire

PADDED_TO: Final = 468
"""Length of an encrypted answer, or a multiple of it, if the query was padded (RFC 8467, section 4.2)."""
FORWARDED_MAX: Final = 4000
"""Queries that wait for upstreams at once, 4 KiB each; more are answered with SERVFAIL."""

Transport = Literal["udp", "tcp", "tls", "https"]
TRANSPORTS: Final[tuple[Transport, ...]] = ("udp", "tcp", "tls", "https")


class Front:
    """One resolver, as its listeners see it."""

    def __init__(
        self, resolver: Resolver, clients: ClientBook, limit: LimitSettings, query_log: QueryLog | None = None
    ) -> None:
        self.resolver = resolver
        self.clients = clients
        self.limiter = Limiter(limit.per_second, limit.burst)
        self.query_log = query_log
        self.verdicts: Counter[Kind] = Counter()
        self.queries: Counter[Transport] = Counter()
        self.waiting = 0
        """Queries that wait for upstreams."""
        self._jar = Jar(secrets.token_bytes(SECRET))

    def take(self, data: bytes, address: str, transport: Transport, now: float) -> Resolved | Asked | None:
        """Decide on a query as far as that needs nobody else; None: it is not answered. `now`: monotonic seconds."""
        self.queries[transport] += 1
        if not self.limiter.allows(address, now):
            return self._over_limit(data, address, transport, now)
        client = self.clients.of(address)
        decided = self.resolver.decide(data, client, "udp" if transport == "udp" else "tcp")
        if isinstance(decided, Asked) and self.waiting >= FORWARDED_MAX:
            verdict = Verdict(Kind.FAILED, "guard", "too many queries wait for upstreams")
            return Resolved(wire.answer(decided.question, wire.SERVFAIL, limit=decided.limit), verdict)
        return decided

    async def forward(self, asked: Asked) -> Resolved:
        """Ask upstreams for what `take` could not answer."""
        self.waiting += 1
        try:
            return await self.resolver.forward(asked)
        finally:
            self.waiting -= 1

    def finished(self, resolved: Resolved, address: str, transport: Transport) -> bytes:
        """The message as it goes out: our cookie in it, and padded if the query was; empty: none goes."""
        message, question = resolved.message, resolved.question
        if question is None or not message:
            return message
        if question.cookie:
            cookie = self._jar.bake(question.cookie[:CLIENT], address, time.time())
            message = wire.with_option(message, wire.OPTION_COOKIE, cookie)
        if question.padded and transport in ("tls", "https"):
            message = wire.padded(message, PADDED_TO)
        return message

    def note(self, resolved: Resolved, client: Client, seconds: float) -> None:
        """Count it and log it. `seconds`: from its arrival to its answer."""
        self.verdicts[resolved.verdict.kind] += 1
        if self.query_log is not None:
            self.query_log.add(resolved, client, time.time(), seconds)

    def note_again(self, packets: Sequence[Packet], seconds: float) -> None:
        """Count and log answers over UDP that were at hand and went together within `seconds`."""
        self.queries["udp"] += len(packets)
        self.verdicts.update([packet.kind for packet in packets])
        query_log = self.query_log
        if query_log is not None:
            for packet in packets:
                if not packet.log:
                    packet.log = query_log.end(packet.resolved, packet.client)
            query_log.add_together([packet.log for packet in packets], time.time(), seconds)

    def note_alike(self, names: Sequence[bytes], forms: Sequence[Form], seconds: float) -> None:
        """The same for answers to blocked wire names that have their form from others."""
        self.queries["udp"] += len(names)
        self.verdicts[Kind.BLOCKED] += len(names)
        query_log = self.query_log
        if query_log is not None:
            for form in forms:
                if not form.log:
                    form.log = query_log.end_behind_name(form.resolved, form.client)
            query_log.add_alike(names, [form.log for form in forms], time.time(), seconds)

    def _over_limit(self, data: bytes, address: str, transport: Transport, now: float) -> Resolved | Asked | None:
        """Who shows our cookie is at that address and has a bucket of its own, which nobody can empty for it by asking
        in its name; who shows another one is told ours (RFC 7873, section 5.2.3), and who shows none nothing."""
        if transport != "udp":
            return None
        question = wire.read_question(data)
        if isinstance(question, wire.Unreadable) or not question.cookie:
            return None
        if self._jar.valid(question.cookie, address, time.time()):
            if not self.limiter.allows(f"{address} with cookie", now):
                return None
            return self.resolver.decide(data, self.clients.of(address), "udp")
        if not self.limiter.allows(f"{address} without", now):
            return None
        message = wire.answer(question, wire.BADCOOKIE, limit=question.udp_size)
        return Resolved(message, Verdict(Kind.MALFORMED, "guard", "over the limit, without our cookie"), question)
