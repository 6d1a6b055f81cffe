"""What the native engine offers, as another implementation hears it: aioquic at the far end takes notes.

Skipped where the module is not installed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aioquic import tls
from aioquic.buffer import Buffer

from tests.certificates import SERVER_NAME
from tests.sim.network import Address, Nat, Network
from tests.sim.peers import Peer, Serving, connected, pair
from tests.unit.fabric.engines.wire import AIOQUIC, SHOWN, Wire
from warren.fabric.core.engine import ClientConfig, Connected, Connection, Engine, Event, Limits, Readable, ServerConfig
from warren.fabric.engines.aioquic.core import Core

pytest.importorskip("warren_quic", exc_type=ImportError).Connection  # noqa: B018  # a bare folder imports too

from warren.fabric.engines.native import NativeEngine  # noqa: E402  # only then

NATIVE = NativeEngine()
LIMITS = Limits(size=1392, datagrams=True, keep_alive=1.0)
DISABLE_ACTIVE_MIGRATION = 0x0C
PLAIN = {*range(0x11), 0x20}
"""Transport parameters of RFC 9000 and RFC 9221."""
ACK_FREQUENCY = 0xFF04DE1B
"""min_ack_delay, draft 07: it changes when acknowledgements leave, and nothing of paths or first bytes."""
ANSWER = bytes(100_000)


@dataclass
class Notes:
    """What aioquic's ends have heard."""

    parameters: list[int] = field(default_factory=list)
    """Ids of the other end's transport parameters."""
    challenges: list[Address] = field(default_factory=list)
    tickets: int = 0


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    heard = Notes()
    parse, challenge = Core._parse_transport_parameters, Core._handle_path_challenge_frame
    ticket = tls.pull_new_session_ticket

    def parsed(core: Core, data: bytes, from_session_ticket: bool = False) -> None:
        buf = Buffer(data=data)
        while not buf.eof():
            heard.parameters.append(buf.pull_uint_var())
            buf.pull_bytes(buf.pull_uint_var())
        parse(core, data, from_session_ticket)

    def challenged(core: Core, context: Any, *rest: Any) -> None:
        heard.challenges.append(context.network_path.addr)
        challenge(core, context, *rest)

    def ticketed(buf: Buffer) -> Any:
        heard.tickets += 1
        return ticket(buf)

    monkeypatch.setattr(Core, "_parse_transport_parameters", parsed)
    monkeypatch.setattr(Core, "_handle_path_challenge_frame", challenged)
    monkeypatch.setattr(tls, "pull_new_session_ticket", ticketed)
    return heard


def is_greased(parameter: int) -> bool:
    """RFC 9000, section 18.1: to be ignored, and sent so that everybody does."""
    return parameter % 31 == 27


def beyond(parameters: list[int]) -> set[int]:
    """Those that would be multipath, NAT traversal, reports of addresses, a greased QUIC bit, or news to us."""
    return {one for one in parameters if not is_greased(one)} - PLAIN - {ACK_FREQUENCY}


@pytest.mark.parametrize("engines", [(NATIVE, AIOQUIC), (AIOQUIC, NATIVE)], ids=["client", "server"])
def test_a_peer_connection_offers_nothing_beyond_the_plain_protocol(
    engines: tuple[Engine, Engine], notes: Notes
) -> None:
    wire = Wire(LIMITS, engines=engines)
    assert wire.told(wire.client, Connected) and wire.told(wire.server, Connected)
    assert 0x0F in notes.parameters and beyond(notes.parameters) == set()
    if engines[1] is NATIVE:
        assert DISABLE_ACTIVE_MIGRATION in notes.parameters
    assert notes.tickets == 0, "without a ticket there is no 0-RTT"


def test_the_server_of_a_peer_connection_does_not_look_at_addresses(notes: Notes) -> None:
    """They are the caller's: whoever switches circuits says `path_changed`, and nobody is asked to prove a path."""
    network = Network(11)
    near, far = network.host("10.0.0.1", nat=Nat("198.51.100.1")), network.host("203.0.113.9")
    client, server = pair(network, (AIOQUIC, NATIVE), (near, far), SHOWN, LIMITS, reading)
    assert network.run_until(lambda: connected(client, server), 5.0)
    stream = client.live.open_stream()
    assert stream is not None
    for number in range(4):
        before = server.to
        network.rebind(near, f"198.51.100.{number + 2}")
        client.live.write(stream, b"x" * 5_000)
        client.drain()
        assert network.run_until(lambda before=before: server.to != before, 5.0)  # type: ignore[misc]
    assert notes.challenges == []
    assert not any(type(event).__name__ == "Closed" for event in (*client.events, *server.events))


def reading(peer: Peer, event: Event) -> None:
    if isinstance(event, Readable):
        peer.live.read(event.stream, 1 << 20)


class Asked:
    """An endpoint's side: every first byte is answered by much."""

    def __init__(self) -> None:
        self.connection: Connection | None = None

    def __call__(self, connection: Connection, event: Event) -> None:
        self.connection = connection
        if isinstance(event, Readable) and connection.read(event.stream, 10):
            connection.write(event.stream, ANSWER)


def test_an_endpoint_validates_a_client_that_has_moved(notes: Notes) -> None:
    """Before that its new address gets three times what came from there; what is left of it, though it be a byte, may
    be a whole datagram."""
    network = Network(12)
    moving = network.host("10.0.0.5", nat=Nat("198.51.100.1"))
    asked, got = Asked(), bytearray()

    def take(peer: Peer, event: Event) -> None:
        if isinstance(event, Readable):
            got.extend(peer.live.read(event.stream, 1 << 20))

    served = ServerConfig(("test/1",), SHOWN.chain, SHOWN.key, LIMITS)
    serving = Serving(network, network.host("203.0.113.9"), NATIVE.endpoint(served, network.now), asked)
    client = Peer(network, moving, take, header=b"")
    client.to = serving.socket.address
    client.connection = AIOQUIC.connect(ClientConfig("test/1", SERVER_NAME, SHOWN.root, LIMITS), network.now)
    client.drain()
    assert network.run_until(lambda: asked.connection is not None and client.saw(Connected), 5.0)
    network.run(network.now + 2.0)
    assert DISABLE_ACTIVE_MIGRATION not in notes.parameters and beyond(notes.parameters) == set()
    notes.challenges.clear()

    new = "198.51.100.77"
    network.rebind(moving, new)
    network.trace = measured(new, lambda: bool(notes.challenges))
    stream = client.live.open_stream()
    assert stream is not None
    client.live.write(stream, b"?")
    client.drain()
    assert network.run_until(lambda: len(got) == len(ANSWER), 30.0)
    assert notes.challenges
    assert asked.connection is not None and serving.endpoint.address(asked.connection)[0] == new


def measured(new: str, challenged: Callable[[], bool]) -> Callable[[float, Address, Address, bytes], None]:
    """Looks at what comes from the new address and what arrives there, until the first that answers a challenge."""
    came = went = 0
    answered = False

    def look(now: float, source: Address, to: Address, data: bytes) -> None:
        nonlocal came, went, answered
        if source[0] == new:
            came += len(data)
            answered = answered or challenged()
        else:
            assert answered or went <= 3 * came, (went, came)
            went += len(data)

    return look


def test_every_first_byte_is_quics_and_none_is_0_rtt() -> None:
    """Of clients and endpoint, the Retry among them: whoever shares the socket tells QUIC by its first two bits."""
    network = Network(13)
    firsts: set[int] = set()
    network.trace = lambda now, source, to, data: firsts.add(data[0])
    asked, got = Asked(), bytearray()
    served = ServerConfig(("test/1",), SHOWN.chain, SHOWN.key, LIMITS, retry=True, half_open=1)
    serving = Serving(network, network.host("203.0.113.9"), NATIVE.endpoint(served, network.now), asked)

    def take(peer: Peer, event: Event) -> None:
        if isinstance(event, Connected) and (stream := peer.live.open_stream()) is not None:
            peer.live.write(stream, b"?")
        elif isinstance(event, Readable):
            got.extend(peer.live.read(event.stream, 1 << 20))

    client = Peer(network, network.host("10.0.0.5"), take, header=b"")
    client.to = serving.socket.address
    client.connection = NATIVE.connect(ClientConfig("test/1", SERVER_NAME, SHOWN.root, LIMITS), network.now)
    client.drain()
    assert network.run_until(lambda: len(got) == len(ANSWER), 30.0)
    client.live.close(0, "", network.now)
    client.drain()
    network.run(network.now + 1.0)
    assert {first & 0x40 for first in firsts} == {0x40}, "the QUIC bit (RFC 9000, section 17)"
    long = {(first >> 4) & 3 for first in firsts if first & 0x80}
    assert long == {0, 2, 3}, "Initial, Handshake, Retry; 1 would be 0-RTT"
