"""An enrolled device that means harm: a program that does what it is told, and says what came of it.

python hostile_agent.py ATTACK,... [CIRCUIT ...]     circuits: those of others, in hex

It speaks with the product's own nodes and engines, so that everything up to its one step is as it should be.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec

from warren.agent.config import STATE, load_device
from warren.fabric.aio.call import ALPN as EDGE_ALPN
from warren.fabric.aio.call import LIMITS, Call
from warren.fabric.aio.node import Node
from warren.fabric.aio.owner import Identity
from warren.fabric.aio.peer_path import PeerPath
from warren.fabric.aio.udp import SOL_UDP, UDP_SEGMENT
from warren.fabric.core import frames
from warren.fabric.core.agent_peer import AgentPeer
from warren.fabric.core.credit import Budget
from warren.fabric.core.engine import Address, ClientConfig, Engine, Limits
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.link import LinkClosed, LinkReady
from warren.fabric.core.messages import attachment as switch_family
from warren.fabric.core.messages import session as judge_family
from warren.fabric.core.messages.peer import LABEL as PEER_LABEL
from warren.fabric.core.messages.peer import ON_STREAM, TO_CONNECTOR, Credit, Ended, Open, Resolve
from warren.fabric.core.peer import PeerClosed, PeerReady
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity import certificates, keys, proof
from warren.fabric.identity.statements import Edge

MARK = b"WARREN-FOREIGN-MARK"
PATIENCE = 15.0
QUIET = 0.7
"""Seconds after its last word in which the other side may end a connection."""
LARGE = (1 << 62) - 1

Speak = Callable[[Any, LinkReady], None]


def frame(*parts: int | bytes) -> bytes:
    """A QUIC packet's payload; integers are variable-length ones of 8 bytes."""
    return b"".join(part if isinstance(part, bytes) else (part | 3 << 62).to_bytes(8, "big") for part in parts)


FRAMES = [
    frame(0x02, LARGE, 0, 0, LARGE), frame(0x04, 0, 1, LARGE), frame(0x05, 0, 1), frame(0x06, LARGE, 0),
    frame(0x06, 0, 8, b"\x04\x00\x00\x04abcd"), frame(0x07, 0), frame(0x0F, 1_000_000, 0, 1, b"x"),
    frame(0x0F, 0, 1 << 40, 1, b"x"), frame(0x12, LARGE), frame(0x18, LARGE, LARGE, b"\x08" + bytes(8), bytes(16)),
    frame(0x19, LARGE), frame(0x1A, b"12345678") * 50, frame(0x1B, b"12345678"), frame(0x1E), frame(0x31, LARGE),
    frame(0x40), random.Random(1).randbytes(300),
]  # fmt: skip
"""Payloads of packets under true keys (RFC 9000, section 19), each of them wrong."""


def message(tag: str, **fields: object) -> bytes:
    body = msgspec.msgpack.encode({"type": tag, **fields})
    return len(body).to_bytes(4, "big") + body


GARBAGE = [
    b"\xff\xff\xff\xff", bytes(4), (3).to_bytes(4, "big") + b"\xc1\xc1\xc1",
    (1 << 16).to_bytes(4, "big") + bytes(70_000), (50_000).to_bytes(4, "big") + b"\x91" * 50_000,
    message("Surprise"), message("Attach", role="king"),
    message("Enter", role="agent", boot=b"", key=b"", signature=b""),
    message("Ask", request=1, index=9, peer=b"", permit=b""), message("Decide", request=1, protocol="sctp", port=1),
    message("Query", message=bytes(12)), message("Enrol", secret=b"", key=b"", signature=b""),
    random.Random(2).randbytes(3000),
]  # fmt: skip


class Hostile:
    """The device, its node towards the edge, and a peer connection when it wants one."""

    def __init__(self) -> None:
        self.device = load_device(STATE)
        self.engine = engine("aioquic")
        self.ready = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self.identity = Identity("agent", keys.public(self.device.key), self._sign, self.device.network)
        self.node = Node(self.engine, self.identity, self.device.edges.edges[0], self)

    def _sign(self, label: bytes, challenge: bytes, leaf: bytes) -> bytes:
        return proof.sign(self.device.key, label, challenge, leaf)

    # what the node tells

    def connected(self) -> None:
        self.ready.set()

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *words: None

    # connections

    async def enter(self) -> None:
        self.node.start()
        async with asyncio.timeout(PATIENCE):
            await self.ready.wait()

    async def peer(self, index: int = 0) -> Peer:
        granted = await self.node.judge.decide("tcp" if index == 0 else "udp", 7, address="10.10.0.10")
        made = Peer(self, granted.grant)
        circuit, where = await self.node.ask(index, made.id, granted.permit, ())
        root = certificates.pem(granted.authority)
        limits = Limits(idle_timeout=60.0, streams=1024, connection_window=256 << 20, datagrams=index == 1)
        config = ClientConfig("warren-peer/1", certificates.tunnel_name(granted.tunnel), root, limits)
        now = self.loop.time()

        def sign(challenge: bytes, leaf: bytes) -> tuple[bytes, bytes]:
            return self.identity.key, self._sign(PEER_LABEL, challenge, leaf)

        made.core = AgentPeer(self.engine.connect(config, now), now, Budget(), made.id, sign)
        made.path = PeerPath(where, circuit.circuit, circuit.size, made.core, made.heard, agent=True)
        made.path.flush()
        async with asyncio.timeout(PATIENCE):
            await made.proved.wait()
        return made

    async def call(self, speak: Speak) -> str:
        return await call_edge(self.engine, self.device.edges.edges[0], self.device.network, "agent", speak)


async def call_edge(engine: Engine, edge: Edge, network: bytes, role: str, speak: Speak) -> str:
    """A connection to the edge on which `speak` says something; how it ended, "" if it goes on."""
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def heard(event: object) -> None:
        match event:
            case LinkReady():
                speak(call.link, event)
            case LinkClosed(_, reason, _) if not ended.done():
                ended.set_result(reason or "closed")

    config = ClientConfig(EDGE_ALPN, edge.server_name, certificates.pem(network), LIMITS[role])
    call = Call(engine, config, (edge.host, edge.port), heard, lambda: False)
    call.start()
    with suppress(TimeoutError):
        async with asyncio.timeout(QUIET):
            return await ended
    call.end()
    return ""


def inject(connection: Any, path: PeerPath, payload: bytes) -> None:
    """A packet with this payload under true keys."""
    core = connection._core
    crypto = core._cryptos[next(epoch for epoch in core._cryptos if epoch.name == "ONE_RTT")]
    number, core._packet_number = core._packet_number, core._packet_number + 1
    header = bytes([0x41 | crypto.key_phase << 2]) + core._peer_cid.cid + (number & 0xFFFF).to_bytes(2, "big")
    packet = crypto.encrypt_packet(header, payload.ljust(4, b"\0"), number)
    path.socket._udp.socket.sendto(path.header + packet, path.socket.switch)


def interleave(socket: socket.socket, switch: Address, own: bytes, others: list[bytes], rnd: random.Random) -> None:
    """Others' circuit headers between segments with an own one, joined by the kernel, and alone."""
    heads = [rnd.choice([own, *others]) for _ in range(20)]
    parts = [head + (b"own" if head == own else MARK).ljust(1000, b".") for head in heads]
    socket.sendmsg([b"".join(parts)], [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", 1008))], 0, switch)
    socket.sendto(rnd.choice(others) + MARK, switch)


class Peer:
    """One peer connection to the connector."""

    core: AgentPeer
    path: PeerPath

    def __init__(self, hostile: Hostile, grant: bytes) -> None:
        self.id = os.urandom(16)
        self.grant = grant
        self.proved, self.over = asyncio.Event(), asyncio.Event()
        self.reason = ""
        self._hostile = hostile

    def heard(self, event: object) -> None:
        match event:
            case PeerReady():
                self.proved.set()
            case PeerClosed(reason, detail, _):
                self.reason = f"{reason.word} {detail}"
                self.over.set()

    @property
    def connection(self) -> Any:
        return self.core.connection

    @property
    def socket(self) -> socket.socket:
        return self.path.socket._udp.socket

    def say(self, data: bytes) -> None:
        """On the control stream."""
        assert self.core.control is not None
        self.connection.write(self.core.control.stream, data)
        self.path.flush()

    def open(self, data: bytes) -> int | None:
        stream: int | None = self.connection.open_stream()
        if stream is not None:
            self.connection.write(stream, data)
        return stream

    def asks(self, flow: bytes, protocol: Any = "tcp", port: int = 7) -> bytes:
        return ON_STREAM.encode(Open(flow, self.grant, protocol, port, address="10.10.0.10"))

    async def outcome(self) -> str:
        """How it ended; "" if it goes on."""
        with suppress(TimeoutError):
            async with asyncio.timeout(QUIET):
                await self.over.wait()
        found = self.reason
        if not found:
            self.core.close(Reason.CANCELLED, asyncio.get_running_loop().time())
            self.path.flush()
        return found


# --- attacks: each returns how its connections ended


async def on_frames(hostile: Hostile, *circuits: str) -> list[str]:
    async def one(payload: bytes) -> str:
        peer = await hostile.peer()
        for _ in range(3):
            inject(peer.connection, peer.path, payload)
        return await peer.outcome()

    return await asyncio.gather(*map(one, FRAMES))


async def on_control(hostile: Hostile, *circuits: str) -> list[str]:
    async def one(data: bytes) -> str:
        peer = await hostile.peer()
        peer.say(data)
        return await peer.outcome()

    found = await asyncio.gather(*map(one, GARBAGE))
    peer = await hostile.peer()
    for number in range(2000):
        peer.say(TO_CONNECTOR.encode(Credit(os.urandom(16), LARGE)) + TO_CONNECTOR.encode(Ended(bytes(16), "end", -1)))
        peer.say(TO_CONNECTOR.encode(Resolve(number, b"grant", b"no DNS")))
    found.append(await peer.outcome())
    return found


async def on_streams(hostile: Hostile, *circuits: str) -> list[str]:
    async def one(data: bytes) -> str:
        peer = await hostile.peer()
        peer.open(data)
        peer.path.flush()
        return await peer.outcome()

    found = await asyncio.gather(*map(one, GARBAGE[:8]))
    peer = await hostile.peer()
    while (stream := peer.open((16_384).to_bytes(4, "big") + bytes(8000))) is not None:
        if stream % 400 == 0:
            peer.path.flush()
            await asyncio.sleep(0)
    peer.path.flush()
    found.append(await peer.outcome())
    peer = await hostile.peer()
    for number in range(200):  # refused, and written to all the same
        stream = peer.open(ON_STREAM.encode(Open(os.urandom(16), b"no grant", "tcp", number, address="10.10.0.10")))
        for _ in range(4 if stream is not None else 0):
            peer.connection.write(stream, bytes(100_000))
        peer.path.flush()
        await asyncio.sleep(0.005)
    found.append(await peer.outcome())
    return found


async def on_credit(hostile: Hostile, *circuits: str) -> list[str]:
    """Writes past its credit, behind its end, and to a flow that is not opened yet."""
    found = []
    for more in (b"", TO_CONNECTOR.encode(Ended(b"f" * 16, "end", 3))):
        peer = await hostile.peer()
        stream = peer.open(peer.asks(b"f" * 16))
        if more:
            await asyncio.sleep(QUIET)
            peer.say(more)
        for _ in range(500):
            if peer.over.is_set():
                break
            peer.connection.write(stream, bytes(262_144))
            peer.path.flush()
            await asyncio.sleep(0.01)
        found.append(await peer.outcome())
    return found


async def on_datagrams(hostile: Hostile, *circuits: str) -> list[str]:
    rnd = random.Random(3)
    peer = await hostile.peer(1)
    peer.open(peer.asks(os.urandom(16), "udp"))
    for number in range(3000):
        size = rnd.choice([0, 1, 4, 5, 6, 7, 8, 100, 1100])
        head = struct.pack("!IBH", rnd.choice([0, 1, rnd.getrandbits(32)]), rnd.getrandbits(8), rnd.getrandbits(16))
        peer.connection.send_datagram((head if rnd.random() < 0.8 else b"") + rnd.randbytes(size))
        if number % 20 == 0:
            peer.path.flush()
            await asyncio.sleep(0.002)
    return [await peer.outcome()]


async def on_packets(hostile: Hostile, *circuits: str) -> list[str]:
    """Nothing that decrypts, on its own circuit; and control packets of every kind with its own and other slots."""
    rnd = random.Random(4)
    peer = await hostile.peer()
    slot = peer.path.socket.slot
    assert slot is not None
    for number in range(2000):
        head = rnd.choice([peer.path.header, bytes([frames.CONTROL]) + rnd.choice([slot.id, rnd.randbytes(7)])])
        data = head + bytes([rnd.randrange(8)]) + rnd.randbytes(rnd.choice([0, 3, 30, 60, 600, 1300]))
        peer.socket.sendto(data, peer.path.socket.switch)
        if number % 50 == 0:
            await asyncio.sleep(0.005)
    return [await peer.outcome()]


async def on_foreign(hostile: Hostile, *circuits: str) -> list[str]:
    """Others' circuit ids between segments of its own, joined by the kernel, and alone."""
    peer = await hostile.peer()
    others = [frames.header(bytes.fromhex(circuit)) for circuit in circuits]
    rnd = random.Random(5)
    for _ in range(100):
        interleave(peer.socket, peer.path.socket.switch, peer.path.header, others, rnd)
        await asyncio.sleep(0.005)
    return [await peer.outcome()]


async def on_attachment(hostile: Hostile, *circuits: str) -> list[str]:
    found = []

    def attach(link: Any, ready: LinkReady) -> Any:
        who = hostile.identity
        stream = link.connection.open_stream()
        signature = who.sign(switch_family.LABEL, ready.challenge, ready.leaf)
        first = switch_family.Attach("agent", os.urandom(16), who.key, signature)
        link.connection.write(stream, switch_family.TO_SWITCH.encode(first))
        return stream

    foreign = [bytes.fromhex(circuit) for circuit in circuits]
    honest = [switch_family.Drop(circuit, 7) for circuit in foreign]
    honest += [switch_family.Suspect(circuit) for circuit in foreign]  # type: ignore[misc]
    honest += [switch_family.Ask(n, n % 3, os.urandom(16), os.urandom(50)) for n in range(300)]  # type: ignore[misc]
    said = [*GARBAGE, b"".join(switch_family.TO_SWITCH.encode(one) for one in honest)]
    for data in said:
        found.append(
            await hostile.call(lambda link, ready, data=data: link.connection.write(attach(link, ready), data))
        )
    found.append(await hostile.call(lambda link, ready: (attach(link, ready), attach(link, ready))[0]))
    return found


async def on_session(hostile: Hostile, *circuits: str) -> list[str]:
    found = []

    def enter(link: Any, ready: LinkReady, **more: str) -> Any:
        who = hostile.identity
        stream = link.connection.open_stream()
        signature = who.sign(judge_family.LABEL, ready.challenge, ready.leaf)
        first = judge_family.Enter("agent", os.urandom(16), who.key, signature, **more)
        link.connection.write(stream, judge_family.TO_JUDGE.encode(first))
        return stream

    odd: list[Any] = [
        judge_family.Decide(n, "tcp", port, address=address, host=host)
        for n, (port, address, host) in enumerate(
            [
                (-1, "10.10.0.10", ""),
                (1 << 40, "10.10.0.10", ""),
                (80, "x" * 30_000, ""),
                (80, "", "\0.\n" * 5000),
                (80, "::ffff:10.10.0.10%eth0", ""),
                (80, "", "*.internal"),
                (80, "10.10.0.10", "payroll.internal"),
                (80, "", ""),
            ]
        )
    ]
    odd += [judge_family.Health(-5, True)]
    said = [*GARBAGE, b"".join(judge_family.TO_JUDGE.encode(one) for one in odd)]
    calls = (
        hostile.call(lambda link, ready, data=data: link.connection.write(enter(link, ready), data)) for data in said
    )
    found += await asyncio.gather(*calls)
    bad = "\x1b[31m\nTraceback\nKeyError: forged"
    found.append(await hostile.call(lambda link, ready: enter(link, ready, host=bad, program=bad)))

    def queries(link: Any, ready: LinkReady) -> None:
        enter(link, ready)
        for data in (b"", bytes(12), b"\xff" * 500, os.urandom(40), bytes(60_000)):
            stream = link.connection.open_stream()
            if stream is not None:
                link.connection.write(stream, judge_family.TO_JUDGE.encode(judge_family.Query(data)))

    found.append(await hostile.call(queries))
    return found


async def on_stranger(hostile: Hostile, *circuits: str) -> list[str]:
    """Without any proof: garbage on every kind of stream, many streams, and a handshake that goes no further."""

    def speak(link: Any, ready: LinkReady, data: bytes) -> None:
        for bidirectional in (True, False):
            stream = link.connection.open_stream(bidirectional=bidirectional)
            link.connection.write(stream, data)

    found = await asyncio.gather(*(hostile.call(partial(speak, data=data)) for data in GARBAGE))

    def many(link: Any, ready: LinkReady) -> None:
        while (stream := link.connection.open_stream()) is not None:
            link.connection.write(stream, (60_000).to_bytes(4, "big") + bytes(59_000))

    found.append(await hostile.call(many))
    return found


ATTACKS = {
    "frames": on_frames, "control": on_control, "streams": on_streams, "credit": on_credit, "datagrams": on_datagrams,
    "packets": on_packets, "foreign": on_foreign, "attachment": on_attachment, "session": on_session,
    "stranger": on_stranger,
}  # fmt: skip


async def main(attacks: str, *circuits: str) -> None:
    """Prints, by attack, how its connections ended, and whether another one of the same device works after it."""
    found = {}
    for attack in attacks.split(","):
        hostile = Hostile()
        await hostile.enter()
        ended = await ATTACKS[attack](hostile, *circuits)
        try:
            again = (await hostile.peer()).reason == ""
        except (DeniedError, TimeoutError):
            again = False
        await hostile.node.close()
        found[attack] = {"ended": ended, "again": again}
    print(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
