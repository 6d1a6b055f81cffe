"""Queries that come together over UDP: from several clients, known and unknown, each within its own limit."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from contextlib import ExitStack

from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream
from warren.dnsfilter.core.limit import Limiter
from warren.dnsfilter.core.lists import ListParser
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Kind
from warren.dnsfilter.front import Front
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings
from warren.dnsfilter.udp import BATCH, UdpListener
from warren.fabric.core import dnswire as wire

BURST = 6


def made_resolver() -> Resolver:
    builder = Builder()
    parser = ListParser(builder, "ads")
    parser.feed(b"||a.org^\n||b.a.org^\n")
    parser.end()
    policy = Policy(rules=(PolicyRule("ads", "block", categories=("ads",)),))
    config = ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", 9),))})
    compiled = CompiledPolicy(policy, [ListInfo("ads", categories=("ads",))], ("default",))
    return Resolver(config, filter=Filter(builder.finish(), compiled))


def ask(client: socket.socket, *names: str) -> list[bytes]:
    queries = [wire.build_query(number, wire.name_wire(name), wire.A) for number, name in enumerate(names)]
    for query in queries:
        client.send(query)
    return queries


def heard(client: socket.socket) -> list[bytes]:
    """All that has come: the loopback is in no hurry, but nothing is under way when `send` has returned."""
    out = []
    try:
        while True:
            out.append(client.recv(4096))
    except BlockingIOError:
        return out


def assert_blocked(answers: Sequence[bytes], queries: Sequence[bytes]) -> None:
    for answer, query in zip(answers, queries, strict=True):
        question = wire.read_question(query)
        assert isinstance(question, wire.Question)
        assert answer[:2] == query[:2] and answer[3] & 15 == wire.NXDOMAIN
        assert answer[wire.HEADER : question.end] == query[wire.HEADER : question.end]


def test_clients_together() -> None:
    async def case(stack: ExitStack) -> None:
        made = made_resolver()
        front = Front(made, ClientBook(()), LimitSettings())
        front.limiter = Limiter(0, BURST)
        listener = UdpListener(front, "127.0.0.1", 0)
        clients = []
        for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
            one = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
            one.bind((host, 0))
            one.connect(("127.0.0.1", listener.port))
            one.setblocking(False)
            clients.append(one)
        first, second, stranger = clients
        for client in (first, second):  # the form for names below both entries, and for those below one
            asked = ask(client, "x.a.org", "x.b.a.org")
            listener._readable()
            assert_blocked(heard(client), asked)
        assert front.verdicts[Kind.BLOCKED] == 4
        greedy = ask(first, *[f"n{number}.a.org" for number in range(BURST)])
        modest = ask(second, "y.a.org", "y.b.a.org", "x.a.org")
        new = ask(stranger, "z.a.org")
        stranger.send(b"\x07")
        listener._readable()
        assert_blocked(heard(first), greedy[: BURST - 2])
        answers = heard(second)
        assert_blocked(sorted(answers), sorted(modest))
        assert_blocked(heard(stranger), new)
        assert front.limiter.refused == 2 and front.verdicts[Kind.BLOCKED] == 4 + BURST - 2 + 3 + 1
        assert ask(second, *["w.a.org"] * 2 * BATCH)
        listener._readable()
        assert len(heard(second)) == 1  # all that is left, of one client's batch
        listener._readable()
        listener._readable()
        assert heard(second) == [] and listener.unsent == 0
        await listener.close()
        await made.close()

    with ExitStack() as stack:
        asyncio.run(case(stack))
