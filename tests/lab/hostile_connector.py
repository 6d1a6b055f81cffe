"""A connector with a valid token that means harm: to agents that come to it, to the edge, and to other connectors.

python -m tests.lab.hostile_connector TOKEN_FILE WHAT [CIRCUIT|slot:SLOT ...]     those of others, in hex

WHAT is `agents` (one attack for each peer connection that an agent makes, until all were tried) or `edge`. It is the
product's own connector up to its one step, and says at the end how each connection ended.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tests.lab.hostile_agent import FRAMES, GARBAGE, LARGE, MARK, PATIENCE, call_edge, inject, interleave
from warren.connector.app import AgentAtDoor, Connector
from warren.connector.config import ConnectorConfig
from warren.connector.face import make_face
from warren.fabric.aio.call import ALPN as EDGE_ALPN
from warren.fabric.aio.call import LIMITS, Call
from warren.fabric.aio.owner import Identity
from warren.fabric.aio.presence import Presence
from warren.fabric.core import frames
from warren.fabric.core.attachment import Attachment
from warren.fabric.core.attachment import Identity as Shown
from warren.fabric.core.connector_peer import ConnectorPeer
from warren.fabric.core.engine import ClientConfig
from warren.fabric.core.flow import Flow
from warren.fabric.core.link import LinkReady
from warren.fabric.core.messages import attachment as switch_family
from warren.fabric.core.messages import session as judge_family
from warren.fabric.core.messages.peer import (
    ON_STREAM,
    TO_AGENT,
    TO_CONNECTOR,
    Credit,
    Ended,
    Opened,
    Proved,
    Refused,
    Resolve,
    Resolved,
    Unreachable,
)
from warren.fabric.core.messages.presence import PRESENT, Present
from warren.fabric.core.peer import FlowAsked, PeerClosed, PeerEvent, PeerReady
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import certificates, keys
from warren.fabric.identity.statements import Edge

QUIET = 0.25
"""Seconds after an attack in which the agent may end the connection."""
FLOW = b"f" * 16


class Attack(NamedTuple):
    name: str
    ready: Callable[[AgentAtDoor, ConnectorPeer], None] = lambda door, peer: None
    """Once the agent has proved itself."""
    asked: Callable[[ConnectorPeer, Flow], None] = lambda peer, flow: None
    """Once it has asked for a flow."""


def on_control(data: bytes) -> Callable[[AgentAtDoor, ConnectorPeer], None]:
    def say(door: AgentAtDoor, peer: ConnectorPeer) -> None:
        assert peer.control is not None
        peer.connection.write(peer.control.stream, data)

    return say


def on_stream(*parts: bytes) -> Callable[[ConnectorPeer, Flow], None]:
    def say(peer: ConnectorPeer, flow: Flow) -> None:
        for part in parts:
            peer.connection.write(flow.stream, part)

    return say


def streams_of_its_own(door: AgentAtDoor, peer: ConnectorPeer) -> None:
    """A connector opens none."""
    for number in range(200):
        stream = peer.connection.open_stream(bidirectional=number % 2 == 0)
        if stream is not None:
            peer.connection.write(stream, ON_STREAM.encode(Opened("10.10.0.10")) + bytes(500))


def datagrams(peer: ConnectorPeer, flow: Flow) -> None:
    """Of flows that are and that are not, in fragments that fit nothing."""
    dice = random.Random(1)
    peer.connection.write(flow.stream, ON_STREAM.encode(Opened("10.66.0.1")))
    for _ in range(500):
        head = struct.pack("!IBH", dice.choice([0, 1, dice.getrandbits(32)]), dice.getrandbits(8), dice.getrandbits(16))
        body = dice.randbytes(dice.choice([0, 1, 4, 5, 7, 8, 100, 1000]))
        peer.connection.send_datagram((head if dice.random() < 0.8 else b"") + body)


def packets(others: list[bytes], slots: list[bytes], door: AgentAtDoor, peer: ConnectorPeer) -> None:
    """Nothing that decrypts, on its own circuit; others' circuits between its own; Binds of others' slots."""
    assert door.path is not None
    dice, path = random.Random(2), door.path
    udp, switch = path.socket._udp.socket, path.socket.switch
    for _ in range(50):
        udp.sendto(path.header + dice.randbytes(dice.choice([0, 1, 8, 60, 600, 1300])), switch)
        interleave(udp, switch, path.header, others, dice)
        for slot in slots:
            udp.sendto(frames.bind(slot, dice.randbytes(16), dice.getrandbits(40), True, frames.SMALLEST), switch)


def attacks(others: list[bytes], slots: list[bytes]) -> list[Attack]:
    def under_keys(payload: bytes) -> Callable[[AgentAtDoor, ConnectorPeer], None]:
        return lambda door, peer: inject(peer.connection, door.path, payload)  # type: ignore[arg-type]

    opened = ON_STREAM.encode(Opened("10.10.0.10"))
    odd = [
        TO_AGENT.encode(Proved()), TO_CONNECTOR.encode(Resolve(1, b"grant", b"query")),
        b"".join(TO_AGENT.encode(Credit(os.urandom(16), LARGE)) for _ in range(500)),
        b"".join(TO_AGENT.encode(Ended(os.urandom(16), "reset", -1)) for _ in range(500)),
        b"".join(TO_AGENT.encode(Resolved(n, os.urandom(50), 60_000)) for n in range(500)),
        b"".join(TO_AGENT.encode(Unreachable(os.urandom(16), 60_000)) for _ in range(500)),
    ]  # fmt: skip
    forged = "\x1b[31m\nTraceback\nERROR forged"
    return [
        *(Attack("frames", under_keys(payload)) for payload in FRAMES[::2]),
        *(Attack("control", on_control(data)) for data in [*GARBAGE[::2], *odd]),
        *(Attack("stream", asked=on_stream(data)) for data in GARBAGE[1:8:2]),
        Attack("stream", asked=on_stream(ON_STREAM.encode(Refused(60_000, forged * 300)))),
        Attack("stream", asked=on_stream(opened, opened, bytes(1 << 20), bytes(1 << 20))),
        Attack("ends", asked=lambda peer, flow: on_control(TO_AGENT.encode(Ended(flow.id, "end", 3)))(None, peer)),  # type: ignore[arg-type]
        Attack("streams", streams_of_its_own),
        Attack("packets", partial(packets, others, slots)),
    ]


class HostileConnector(Connector):
    """Answers agents as it should until they have proved themselves."""

    def __init__(self, token: str, others: list[bytes], slots: list[bytes]) -> None:
        super().__init__(ConnectorConfig(engine="aioquic"), token)
        self.left = attacks(others, slots), [Attack("datagrams", asked=datagrams)]
        """For peer connections that carry streams, and for those that carry datagrams."""
        self.ended: dict[str, list[str]] = {attack.name: [] for attack in [*self.left[0], *self.left[1]]}
        self.taken: list[str] = []
        """Slots of others that the switch gave it."""
        self.done = asyncio.Event()
        self._under_way: dict[AgentAtDoor, Attack] = {}

    def _handle(self, door: AgentAtDoor, event: PeerEvent) -> None:
        attack, peer = self._under_way.get(door), door.peer
        match event:
            case PeerReady() if self.left[door.offer.index] and peer is not None:
                attack = self._under_way[door] = self.left[door.offer.index].pop(0)
                attack.ready(door, peer)
                self._loop.call_later(QUIET, self._over, door, "")
            case FlowAsked(flow, _) if attack is not None and peer is not None:
                attack.asked(peer, flow)
            case PeerClosed(reason, detail, ours):
                self._over(door, "" if ours else f"{reason.word} {detail}")
                self._forget(door)

    def _over(self, door: AgentAtDoor, said: str) -> None:
        attack = self._under_way.pop(door, None)
        if attack is None:
            return
        self.ended[attack.name].append(said)
        if door.peer is not None and door.path is not None and not said:
            door.peer.close(Reason.PEER_GONE, self._loop.time())
            door.path.flush()
        if not any(self.left) and not self._under_way:
            self.done.set()


async def at_agents(connector: HostileConnector) -> None:
    async with asyncio.timeout(4 * PATIENCE):
        await connector.done.wait()


# --- towards the edge


async def at_the_edge(connector: HostileConnector, others: list[bytes], slots: list[bytes]) -> None:
    found = connector.ended = {"attachment": [], "session": [], "presence": []}
    who = make_face(keys.generate(), connector.token).identity
    edge = connector.token.edges().edges[0]
    dice = random.Random(3)

    def attach(link: Any, ready: LinkReady) -> Any:
        stream = link.connection.open_stream()
        signature = who.sign(switch_family.LABEL, ready.challenge, ready.leaf)
        first = switch_family.Attach("connector", os.urandom(16), who.key, signature, who.certificates, who.statement)
        link.connection.write(stream, switch_family.TO_SWITCH.encode(first))
        return stream

    def enter(link: Any, ready: LinkReady) -> Any:
        stream = link.connection.open_stream()
        signature = who.sign(judge_family.LABEL, ready.challenge, ready.leaf)
        first = judge_family.Enter(
            "connector", os.urandom(16), who.key, signature, certificates=who.certificates, statement=who.statement
        )
        link.connection.write(stream, judge_family.TO_JUDGE.encode(first))
        return stream

    def call(begin: Callable[[Any, LinkReady], Any], data: bytes) -> Any:
        def speak(link: Any, ready: LinkReady) -> None:
            link.connection.write(begin(link, ready), data)

        return call_edge(connector.engine, edge, connector.token.network, "connector", speak)

    to_switch: list[Any] = [switch_family.Drop(circuit[1:], 7) for circuit in others]
    to_switch += [switch_family.Suspect(circuit[1:]) for circuit in others]
    asks = [switch_family.Ask(n, n % 3, os.urandom(16), os.urandom(50)) for n in range(20)]
    said = [*GARBAGE, *(b"".join(map(switch_family.TO_SWITCH.encode, some)) for some in (to_switch, asks))]
    found["attachment"] = await asyncio.gather(*(call(attach, data) for data in said))
    connector.taken = await claimed(connector, who, edge, slots)
    to_judge: list[Any] = [judge_family.Health(-5, True), judge_family.Holding(tuple("x" * 20 for _ in range(2500)))]
    not_its_own: list[Any] = [
        judge_family.Decide(1, "tcp", 80, address="10.10.0.10"),
        judge_family.Choose(1, "default"),
        judge_family.Enrol(b"secret", who.key, b"", "mallory"),
    ]
    said = [*GARBAGE, *(judge_family.TO_JUDGE.encode(one) for one in [*to_judge, *not_its_own])]
    found["session"] = await asyncio.gather(*(call(enter, data) for data in said))
    presence = Presence(who, edge)
    for data in [PRESENT.encode(Present(who.key, b"x" * 64, who.certificates, who.statement)), *GARBAGE, MARK * 9000]:
        reader, writer = await asyncio.open_connection(
            edge.host, edge.port, ssl=presence._context, server_hostname=edge.server_name
        )
        with suppress(OSError, ssl.SSLError, asyncio.IncompleteReadError):
            if dice.random() < 0.5:
                await presence._prove(reader, writer)
            writer.write(data)
            async with asyncio.timeout(1):
                await reader.read()
                found["presence"].append("closed")
        writer.transport.abort()


async def claimed(connector: HostileConnector, who: Identity, edge: Edge, slots: list[bytes]) -> list[str]:
    """Those of the slots that the switch gives to an attachment which says that they are its own."""
    loop = asyncio.get_running_loop()
    given: asyncio.Future[list[str]] = loop.create_future()
    config = ClientConfig(EDGE_ALPN, edge.server_name, certificates.pem(connector.token.network), LIMITS["connector"])

    def drain() -> bool:
        event = attachment.poll_event()
        if isinstance(event, switch_family.Attached):
            given.set_result([slot.id.hex() for slot in event.slots if slot.id in slots])
        return event is not None

    call = Call(
        connector.engine,
        config,
        (edge.host, edge.port),
        lambda event: attachment.handle_link(event, loop.time()),
        drain,
    )
    shown = Shown(who.role, who.boot, who.key, who.certificates, who.statement)
    sign = partial(who.sign, switch_family.LABEL)
    attachment = Attachment(call.link, shown, sign, loop.time(), tuple(slots))
    call.start()
    async with asyncio.timeout(PATIENCE):
        found = await given
    call.end()
    return found


async def main(token: str, what: str, *words: str) -> None:
    """Prints, by attack, how its connections ended, and whether the connector itself still is connected."""
    slots = [bytes.fromhex(word[5:]) for word in words if word.startswith("slot:")]
    others = [frames.header(bytes.fromhex(word)) for word in words if not word.startswith("slot:")]
    connector = HostileConnector(token, others, slots)
    connector.start()
    async with asyncio.timeout(PATIENCE):
        while connector.nodes[0].state != "connected":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    print("connected", flush=True)
    await (at_agents(connector) if what == "agents" else at_the_edge(connector, others, slots))
    connected = connector.nodes[0].state == "connected"
    print(json.dumps({"ended": connector.ended, "connected": connected, "slots": connector.taken}), flush=True)
    await connector.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]).read_text(), *sys.argv[2:]))
