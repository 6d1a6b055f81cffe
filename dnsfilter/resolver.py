"""A query in, an answer and a verdict out: the chain of stages, then the upstreams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from warren.dnsfilter.core import alike
from warren.dnsfilter.core.alike import Alike
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.cache import Cache, Entry, Key, key_of
from warren.dnsfilter.core.chain import Chain
from warren.dnsfilter.core.config import ResolverConfig
from warren.dnsfilter.core.packets import Again, Packets, Shelf, held
from warren.dnsfilter.core.policy import CompiledPolicy, Policy
from warren.dnsfilter.core.stages.filtering import Filter, Slot
from warren.dnsfilter.core.stages.host_routes import Routes
from warren.dnsfilter.core.verdict import Asked, Client, Kind, Resolved, Said, Verdict
from warren.dnsfilter.dnssec import Validation
from warren.dnsfilter.forwarder import Failure, Forwarder, Heard
from warren.dnsfilter.trust import Trust
from warren.fabric.core import dnsreply
from warren.fabric.core import dnswire as wire

STALE_AFTER_S: Final = 1.8
"""A client gets a stale answer when upstreams took so long (RFC 8767, section 5: the client response timer)."""
STALE_TTL: Final = 30
"""RFC 8767, section 4."""
FAILURE_S: Final = 5.0
"""How long upstreams are not asked again what they just did not answer (RFC 9520, section 3.2: 1 s to 5 min)."""
FAILURES_MAX: Final = 4096
ALIAS_TTL: Final = 300
"""Of the CNAME that an override or safe search puts in front."""
PREFETCHES_MAX: Final = 100
"""Answers fetched anew at once before they end."""
_FORWARD: Final = "forward"

log = structlog.get_logger()


class Resolver:
    """Resolves queries for one host of it: an edge, or a server of its own.

    `routes` says whether a name lies under a hostname route (see `Routes`); `clock` is monotonic, `wall` counts from
    1970, both in seconds. Without a `filter` nothing is filtered but rebinding.
    """

    def __init__(
        self,
        config: ResolverConfig,
        routes: Routes | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        filter: Filter | None = None,
        wall: Callable[[], float] = time.time,
        trust: Trust | None = None,
    ) -> None:
        self._clock = clock
        self._wall = wall
        self.cache = Cache(config.cache)
        self.slot = Slot(filter or Filter(Builder().finish(), CompiledPolicy(Policy())))
        """A new filter is put here, and holds from the next query on."""
        self._chain = Chain(config, self.cache, self.slot, routes)
        trust = trust or Trust()
        self.forwarder = Forwarder(config.groups, clock, trust, Validation.of(config, trust.path))
        self._packets = Packets()
        self._failures: dict[Key, tuple[float, Failure]] = {}
        self._routes = routes
        self._prefetches: set[asyncio.Task[None]] = set()

    async def resolve(self, query: bytes, client: Client, transport: str = "udp") -> Resolved:
        """Answer one query that came over "udp" or over something that carries 64 KiB. Never raises on what it says."""
        decided = self.decide(query, client, transport)
        return decided if isinstance(decided, Resolved) else await self.forward(decided)

    def decide(self, query: bytes, client: Client, transport: str = "udp") -> Resolved | Asked:
        """The half that needs nobody else: an answer at once, or what `forward` has to ask."""
        now, current = self._clock(), self.slot.current
        shelf = self._packets.shelf(client, transport)
        packet = shelf.whole.get(query[2:])
        if packet is not None and packet.holds(current, now) and not self._is_routed(packet.name, client):
            return Resolved(query[:2] + packet.given(now), packet.resolved.verdict, packet.resolved.question)
        question = wire.read_question(query)
        if isinstance(question, wire.Unreadable):
            return Resolved(question.answer, Verdict(Kind.MALFORMED, "guard", question.why))
        asked = Asked(question, client, now, wire.limit_for(question, transport), wall=self._wall())
        resolved = self._chain.decide(asked)
        if asked.refresh:
            self._prefetch(key_of(question, asked.group))
        if resolved is None:
            return asked
        self._packets.put(shelf, query, resolved, asked, current)
        return resolved

    def shelf(self, client: Client, transport: str) -> Shelf:
        """Where answers for that client stand; for `at_hand`."""
        return self._packets.shelf(client, transport)

    def at_hand(
        self, shelves: Sequence[Shelf | None], rests: Sequence[bytes], now: float
    ) -> tuple[list[Again], list[Alike]]:
        """Answers to queries that came together, the shortest way: whole ones that these very bytes had before, and
        those that names have which are blocked alike. All others are for `decide`: also a name with such an answer
        that is asked for the second time, as its whole answer is at hand from then on.

        `rests`: the queries without their ids; each with its client's shelf, or None.
        """
        current = self.slot.current
        again, unknown = held(shelves, rests, current, now)
        if self._routes is not None:
            again = [one for one in again if not self._is_routed(one[1].name, one[1].client)]
        if not unknown:
            return again, []
        found = alike.find(unknown, current, now)
        new = self._packets.new_among([rests[one[0]] for one in found])
        if len(new) < len(found):
            found = [found[at] for at in new]
        if self._routes is not None:
            found = [one for one in found if not self._is_routed(one[2], one[3].client)]
        return again, found

    def _is_routed(self, name: bytes, client: Client) -> bool:
        return self._routes is not None and self._routes(name, client) is not None

    async def forward(self, asked: Asked) -> Resolved:
        """Ask the upstreams of `asked.group`; what was kept is served when they are silent."""
        if not asked.alias:
            resolved = await self._from_upstreams(asked)
            if not asked.alias:
                return resolved
        return await self._behind_alias(asked)

    async def close(self) -> None:
        """End what is in flight."""
        await self.forwarder.close()
        await asyncio.gather(*self._prefetches, return_exceptions=True)

    async def _from_upstreams(self, asked: Asked) -> Resolved:
        key = key_of(asked.question, asked.group)
        kept = self.cache.stale(key, asked.now)
        failed = self._failures.get(key)
        if failed is not None:
            if asked.now < failed[0]:
                return self._stale(asked, kept) if kept is not None else self._failed(asked, failed[1])
            del self._failures[key]
        if kept is None:
            return self._heard(asked, key, await self.forwarder.ask(key))
        try:
            async with asyncio.timeout(STALE_AFTER_S):
                heard = await self.forwarder.ask(key)
        except TimeoutError:
            return self._stale(asked, kept)
        if isinstance(heard, Failure):
            self._remember(key, heard)
            return self._stale(asked, kept)
        if heard.reply.rcode not in (wire.NOERROR, wire.NXDOMAIN):
            return self._stale(asked, kept)
        return self._heard(asked, key, heard)

    async def _behind_alias(self, asked: Asked) -> Resolved:
        """A CNAME to the alias, and the addresses that it leads to."""
        question, alias = asked.question, asked.alias
        query = wire.read_question(wire.build_query(0, alias, question.type))
        if isinstance(query, wire.Unreadable):
            return self._failed(asked, Failure("an alias that is no name", wire.EDE_OTHER))
        inner = Asked(query, asked.client, asked.now, inspect=False)
        resolved = self._chain.decide_alias(inner) or await self.forward(inner)
        reply = dnsreply.read_reply(resolved.message)
        if reply is None or reply.rcode not in (wire.NOERROR, wire.NXDOMAIN):
            return self._failed(
                asked, Failure(f"{wire.name_text(alias)}: no answer", upstream=resolved.verdict.upstream)
            )
        records = [wire.Record(wire.CNAME, alias, ALIAS_TTL)]
        if question.type in (wire.A, wire.AAAA):
            ttl = min(ALIAS_TTL, reply.ttl)
            records += [wire.Record(question.type, address, ttl, alias) for address in reply.addresses]
        message = wire.answer(question, reply.rcode, records=records, limit=asked.limit)
        return Resolved(
            message, Verdict(Kind.OVERRIDDEN, "alias", asked.rule, upstream=resolved.verdict.upstream), question
        )

    def _heard(self, asked: Asked, key: Key, heard: Heard | Failure) -> Resolved:
        question = asked.question
        if isinstance(heard, Failure):
            self._remember(key, heard)
            return self._failed(asked, heard)
        reply = heard.reply
        self.cache.put(key, reply, heard.upstream, self._clock())
        if reply.rcode > 15:
            return self._failed(asked, Failure(f"rcode {reply.rcode}", wire.EDE_OTHER, heard.upstream))
        objection = self._chain.inspection.inspect(asked, Said(reply.chain, reply.addresses))
        if objection is not None:
            return objection
        message = dnsreply.render(reply.body, reply.ttls, question, limit=asked.limit, extended=reply.extended)
        return Resolved(message, Verdict(Kind.FORWARDED, _FORWARD, asked.rule, upstream=heard.upstream), question)

    def _remember(self, key: Key, failure: Failure) -> None:
        if failure.code == wire.EDE_OTHER:  # our own bound, nothing about the name
            return
        if len(self._failures) >= FAILURES_MAX:
            self._failures.clear()
        self._failures[key] = (self._clock() + FAILURE_S, failure)

    def _failed(self, asked: Asked, failure: Failure) -> Resolved:
        rcode = wire.REFUSED if failure.code == wire.EDE_PROHIBITED else wire.SERVFAIL
        extended = wire.Extended(failure.code, failure.text)
        message = wire.answer(asked.question, rcode, extended=extended, limit=asked.limit)
        return Resolved(
            message, Verdict(Kind.FAILED, _FORWARD, failure.text, upstream=failure.upstream), asked.question
        )

    def _stale(self, asked: Asked, kept: Entry) -> Resolved:
        objection = self._chain.inspection.inspect(asked, kept.said)
        if objection is not None:
            return objection
        code = wire.EDE_STALE_NXDOMAIN if kept.rcode == wire.NXDOMAIN else wire.EDE_STALE_ANSWER
        message = dnsreply.render(
            kept.body,
            kept.ttls,
            asked.question,
            limit=asked.limit,
            extended=wire.Extended(code, "upstreams are silent"),
            cap=STALE_TTL,
        )
        return Resolved(message, Verdict(Kind.STALE, _FORWARD, upstream=kept.upstream), asked.question)

    def _prefetch(self, key: Key) -> None:
        if len(self._prefetches) < PREFETCHES_MAX:
            task = asyncio.create_task(self._fetch_anew(key), name="dns prefetch")
            self._prefetches.add(task)
            task.add_done_callback(self._prefetches.discard)

    async def _fetch_anew(self, key: Key) -> None:
        heard = await self.forwarder.ask(key)
        if isinstance(heard, Heard):
            self.cache.put(key, heard.reply, heard.upstream, self._clock())
