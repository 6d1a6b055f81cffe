"""Names of routes: what the private network says of them, made into answers for the app.

Hostname route: the connector is asked. If the name has an address, the app gets a synthetic one for A (agent/names.py),
and one for AAAA if it has an IPv6 address. Other types pass through, without what would lead past it
(fabric/core/dnsrecords.py). Resolver route: its servers are asked through the connector; their answer is the answer.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Literal, Protocol

from warren.fabric.core import dnsrecords, dnsreply, dnswire
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.session import Answer, Granted, HostRoute
from warren.fabric.core.reasons import Reason

TTL = 30
"""Seconds that a synthetic address is good for in caches."""

Transport = Literal["udp", "tcp"]


class Judge(Protocol):
    """What the node offers (fabric/aio/node.py)."""

    async def query(self, message: bytes, transport: Transport) -> Answer | HostRoute:
        """Raises DeniedError."""

    async def decide(
        self, protocol: str, port: int, *, address: str = "", host: str = "", resolver: str = ""
    ) -> Granted:
        """Raises DeniedError."""


class Private(Protocol):
    """What the peer connections offer (agent/peers.py)."""

    async def resolve(self, granted: Granted, query: bytes) -> bytes:
        """Raises DeniedError."""


class Synthetic(Protocol):
    """The synthetic addresses (agent/names.py): packed, or None when the range is full, or the host has no IPv6."""

    def address_of(self, vnet: str, name: str) -> bytes | None: ...

    def address6_of(self, vnet: str, name: str) -> bytes | None: ...

    def name_of(self, address: bytes) -> str | None: ...

    def is_synthetic(self, address: bytes) -> bool: ...


class PrivateNames:
    """Answers out of private networks, each asked end to end through its connector."""

    def __init__(self, judge: Judge, private: Private, names: Synthetic, ours: Callable[[bytes], bool]) -> None:
        """`ours`: whether a wire name lies in a routed zone."""
        self._judge = judge
        self._private = private
        self._names = names
        self._ours = ours

    async def answer(self, question: dnswire.Question, said: HostRoute, transport: Transport) -> bytes:
        """The answer to a name that the judge has named a route for. Raises DeniedError."""
        if said.servers:
            return await self._resolver_route(question, said, transport)
        return await self._host_route(question, said, transport)

    def is_synthetic(self, packed: bytes) -> bool:
        """Whether the address lies in the synthetic range."""
        return self._names.is_synthetic(packed)

    def pointer(self, question: dnswire.Question, packed: bytes) -> bytes:
        """PTR of a synthetic address: its name. One that nobody was given is nobody's: no other resolver is asked."""
        name = self._names.name_of(packed)
        if name is None:
            return dnswire.answer(question, dnswire.NXDOMAIN, authoritative=True)
        return dnswire.answer_pointer(question, dnswire.name_wire(name), TTL)

    async def pointer_of_captured(self, question: dnswire.Question, address: str, transport: Transport) -> bytes:
        """PTR of an address behind a tunnel: what the private resolver says, whatever name that is."""
        granted = await self._judge.decide("tcp", 1, address=address)
        said = await self._asked(granted, question, question.type)
        found = dnsrecords.near(said, question, lambda name: True)
        return _private(question, said, found, transport)

    async def _host_route(self, question: dnswire.Question, route: HostRoute, transport: Transport) -> bytes:
        """What the private resolver says, but for addresses: those are ours, so that nothing leads past them."""
        granted = await self._judge.decide("tcp", 1, host=route.host)
        if question.type not in (dnswire.A, dnswire.AAAA):
            said = await self._asked(granted, question, question.type)
            return _private(question, said, dnsrecords.near(said, question, self._ours), transport)
        said = await self._asked(granted, question, dnswire.A)
        if said.rcode == dnswire.NXDOMAIN:
            return _private(question, said, dnsrecords.Near((), 0), transport)
        has_address = any(record.type == dnswire.A for record in said.answers)
        has_aaaa = False
        if question.type == dnswire.AAAA or not has_address:
            beside = await self._asked(granted, question, dnswire.AAAA)
            has_aaaa = any(record.type == dnswire.AAAA for record in beside.answers)
        if not has_aaaa and (question.type == dnswire.AAAA or not has_address):
            return _private(question, said, dnsrecords.Near((), 0), transport)
        address = self._names.address_of(route.vnet, route.host)
        if question.type == dnswire.AAAA and address is not None:
            address = self._names.address6_of(route.vnet, route.host)
            if address is None:
                return _private(question, said, dnsrecords.Near((), 0), transport)
        if address is None:
            raise DeniedError(Reason.LIMIT, "synthetic addresses; see the agent's status")
        limit = dnswire.limit_for(question, transport)
        return dnswire.answer_addresses(question, [address], TTL, limit=limit)

    async def _resolver_route(self, question: dnswire.Question, route: HostRoute, transport: Transport) -> bytes:
        """What a server of the zone says, asked end to end; the next one where the first does not."""
        failure = DeniedError(Reason.RESOLVER_FAILED, route.host)
        for server in route.servers:
            host, port = _split(server)
            try:
                granted = await self._judge.decide("udp", port, address=host, resolver=route.route)
                query = dnswire.build_query(question.id, question.raw, question.type)
                reply = dnsreply.read_reply(await self._private.resolve(granted, query))
            except DeniedError as error:
                failure = error
                continue
            if reply is None or (reply.name, reply.type) != (question.name, question.type):
                failure = DeniedError(Reason.RESOLVER_FAILED, "an answer that can't be read")
            elif reply.rcode not in (dnswire.NOERROR, dnswire.NXDOMAIN):
                failure = DeniedError(Reason.RESOLVER_FAILED, f"{server} answers with rcode {reply.rcode}")
            else:
                limit = dnswire.limit_for(question, transport)
                return dnsreply.render(reply.body, reply.ttls, question, limit=limit)
        raise failure

    async def _asked(self, granted: Granted, question: dnswire.Question, kind: int) -> dnsrecords.Sections:
        """The private resolver's answer. Raises DeniedError."""
        query = dnswire.build_query(question.id, question.raw, kind)
        said = dnsrecords.read_sections(await self._private.resolve(granted, query))
        if said is None:
            raise DeniedError(Reason.RESOLVER_FAILED, "an answer that can't be read")
        if said.rcode not in (dnswire.NOERROR, dnswire.NXDOMAIN):
            raise DeniedError(Reason.RESOLVER_FAILED, f"it answers with rcode {said.rcode}")
        return said


def _split(server: str) -> tuple[str, int]:
    """ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. Raises DeniedError for anything else."""
    host, port = server, "53"
    if server.startswith("[") or server.count(":") == 1:
        host, _, port = server.rpartition(":")
    try:
        return str(ip_address(host.strip("[]"))), int(port)
    except ValueError:
        raise DeniedError(Reason.PROTOCOL, "a name server that is no address") from None


def _private(
    question: dnswire.Question, said: dnsrecords.Sections, found: dnsrecords.Near, transport: Transport
) -> bytes:
    """The answer to the app out of what the private resolver said and what is left of it."""
    extended = None
    if found.left_out:
        text = f"warren: {found.left_out} records that lead to names outside the hostname routes were left out"
        extended = dnswire.Extended(dnswire.EDE_FILTERED, text)
    authority = () if found.records or found.left_out else dnsrecords.negative_authority(said)
    limit = dnswire.limit_for(question, transport)
    return dnswire.answer(question, said.rcode, found.records, authority, extended, limit=limit)
