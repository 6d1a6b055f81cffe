"""What the resolver itself costs for each query over UDP, in one process: `python -m tests.bench.dns.handling`.

Processor time of the listener's handler while it takes queries from its socket, decides, logs and sends; the sender is
outside of what is counted. As the published runs: 200 rules, the query log, counters and limits on. µs, the best of
rounds, as other load on the machine only adds; *handler* is without the system calls.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from tests.bench.dns.ours import RULES
from tests.bench.dns.world import IN_TURN, listed
from warren.dnsfilter.clients import ClientBook
from warren.dnsfilter.core.building import Builder
from warren.dnsfilter.core.config import Group, ResolverConfig, Upstream
from warren.dnsfilter.core.lists import ListParser
from warren.dnsfilter.core.policy import CompiledPolicy, ListInfo, Policy, PolicyRule
from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.datagrams import ID, Datagram, Source
from warren.dnsfilter.front import Front
from warren.dnsfilter.querylog import QueryLog
from warren.dnsfilter.resolver import Resolver
from warren.dnsfilter.settings import LimitSettings, LogSettings
from warren.dnsfilter.udp import BATCH, UdpListener
from warren.fabric.core import dnsreply
from warren.fabric.core import dnswire as wire
from warren.fabric.core.selectors import Who

EACH: Final = 9_600
"""Queries of a round: whole batches."""
ROUNDS: Final = 13
HOST: Final = bytes((127, 0, 0, 1))
PLENTY: Final = 10_000_000


class Wired:
    """Datagrams that cost nothing: what was put in comes out, what goes out is counted."""

    def __init__(self) -> None:
        self.waiting: list[Datagram] = []
        self.sent = 0

    def receive(self) -> list[Datagram]:
        return self.waiting

    def hosts(self, count: int) -> list[bytes]:
        return [HOST] * count

    def source(self, number: int) -> Source:
        return "127.0.0.1", 5353

    def answer(self, numbers: Sequence[int], answers: Sequence[bytes]) -> None:
        self.sent += len(numbers)

    def send(self) -> int:
        return 0


class Sink:
    """The socket, for answers that go alone."""

    def __init__(self, wired: Wired) -> None:
        self._wired = wired

    def sendto(self, message: bytes, where: Source) -> int:
        self._wired.sent += 1
        return len(message)


def resolver(entries: int) -> Resolver:
    builder = Builder()
    parser = ListParser(builder, "ads")
    for number in range(entries):
        parser.feed(f"||{listed(number)}^\n".encode())
    parser.end()
    rules = [
        PolicyRule(f"r{n}", "block", who=Who(devices=(f"d{n}",)), names=(f"*.n{n}.test.example",))
        for n in range(RULES - 1)
    ]
    policy = Policy(rules=(*rules, PolicyRule("ads", "block", categories=("ads",))))
    filter_ = Filter(builder.finish(), CompiledPolicy(policy, [ListInfo("ads", categories=("ads",))], ("default",)))
    config = ResolverConfig(groups={"default": Group((Upstream("127.0.0.1", 9),))})
    return Resolver(config, filter=filter_)


def fill_cache(made: Resolver, names: Sequence[str]) -> None:
    for name in names:
        question = wire.read_question(wire.build_query(1, wire.name_wire(name), wire.A))
        assert isinstance(question, wire.Question)
        reply = dnsreply.read_reply(wire.answer(question, records=[wire.Record(wire.A, bytes((192, 0, 2, 1)), 86400)]))
        assert reply is not None
        key = (question.name, wire.A, 0, "default")
        made.cache.put(key, reply, "127.0.0.1", time.monotonic())


def queries(names: Sequence[str]) -> list[bytes]:
    """Without EDNS, as dnsperf asks."""
    return [
        wire.build_query(number & 0xFFFF, wire.name_wire(name), wire.A, edns=False) for number, name in enumerate(names)
    ]


async def measure(entries: int) -> dict[str, dict[str, float]]:
    made = resolver(entries)
    step = entries // IN_TURN or 1
    cached = [f"www{n}.popular.example" for n in range(IN_TURN)]
    fill_cache(made, cached)
    asked = {
        "blocked": queries([f"x.{listed(n * step % entries)}" for n in range(IN_TURN)]),
        "cached": queries(cached),
        "once": queries([f"y.{listed(n)}" for n in range(entries)]),
        "cached, other bytes": _recased(cached),
    }
    said: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as name:
        query_log = QueryLog(LogSettings(enabled=True), Path(name))
        front = Front(made, ClientBook(()), LimitSettings(per_second=PLENTY, burst=PLENTY), query_log)
        listener = UdpListener(front, "127.0.0.1", 0)
        for kind, all_of_kind in asked.items():
            texts = itertools.cycle(all_of_kind)
            said[kind] = {
                "handler": await _rounds(texts, lambda some: _unwired(listener, some), query_log),
                "with the socket": await _rounds(texts, lambda some: _wired(listener, some), query_log),
            }
        await listener.close()
    await made.close()
    return said


def _recased(names: Sequence[str]) -> list[bytes]:
    """Each name many times, its case another each time."""
    out = []
    for turn in range(1 << 6):
        for number, name in enumerate(names):
            raw = bytearray(wire.name_wire(name))
            for bit in range(6):
                if turn >> bit & 1:
                    raw[-8 + bit] ^= 0x20
            out.append(wire.build_query(number & 0xFFFF, bytes(raw), wire.A, edns=False))
    return out


async def _rounds(texts: Iterator[bytes], handle: Callable[[Sequence[bytes]], float], log: QueryLog) -> float:
    """µs of processor each, the log's writing with it."""
    figures = []
    for _ in range(ROUNDS):
        some = list(itertools.islice(texts, EACH))
        spent = handle(some)
        started = time.process_time()
        await log._flush()
        figures.append((spent + time.process_time() - started) / EACH * 1e6)
    return min(figures)


def _unwired(listener: UdpListener, some: Sequence[bytes]) -> float:
    its: Any = listener
    wired = Wired()
    kept, its._batch, its._socket = (its._batch, its._socket), wired, Sink(wired)
    spent = 0.0
    for at in range(0, len(some), BATCH):
        wired.waiting = [(query[:ID], query[ID:]) for query in some[at : at + BATCH]]
        started = time.process_time()
        its._readable()
        spent += time.process_time() - started
    assert wired.sent == len(some)
    its._batch, its._socket = kept
    return spent


def _wired(listener: UdpListener, some: Sequence[bytes]) -> float:
    spent = 0.0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asker:
        asker.connect(("127.0.0.1", listener.port))
        for at in range(0, len(some), BATCH):
            part = some[at : at + BATCH]
            for query in part:
                asker.send(query)
            started = time.process_time()
            listener._readable()
            spent += time.process_time() - started
            for _ in part:
                asker.recv(4096)
    return spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--entries", type=int, default=300_000)
    for kind, figures in asyncio.run(measure(parser.parse_args().entries)).items():
        print(f"{kind:22}" + "".join(f"{what}: {figure:6.2f} µs   " for what, figure in figures.items()))


if __name__ == "__main__":
    main()
