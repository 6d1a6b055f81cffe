"""Every segment goes where its own header says, or nowhere."""

from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.edge.switch.fixture import Desk
from warren.edge.switch.forward import RUNS, Forwarder, Run, read_ancillary
from warren.edge.switch.model import Limits
from warren.fabric.core import frames
from warren.fabric.core.engine import Address

STRIDE = 40


class Town:
    """Agents 0…n-1 with a circuit each to one connector."""

    def __init__(self, agents: int = 3, limits: Limits | None = None) -> None:
        self.desk = Desk(limits)
        connector = self.desk.connector()
        site = connector.slots[0].address
        assert site is not None
        self.site = site
        self.homes: list[Address] = []
        self.headers: list[bytes] = []
        for number in range(agents):
            agent = self.desk.agent(b"agent %d" % number)
            self.homes.append(self.desk.bind(agent))
            self.headers.append(frames.header(self.desk.circuit(agent)))
        self.forwarder = Forwarder(self.desk.core)

    def forward(self, buffer: bytes, stride: int, source: Address) -> list[Run]:
        return self.forwarder.forward(buffer, stride, source, 0.0)

    def hints(self) -> list[tuple[Address, bytes]]:
        found = []
        while (packet := self.desk.core.poll_transmit()) is not None:
            found.append(packet)
        return found


def segment(header: bytes, fill: int, length: int = STRIDE) -> bytes:
    return header + bytes((fill,)) * (length - len(header))


def segments(runs: list[Run]) -> list[tuple[Address, bytes]]:
    found = []
    for to, data, stride in runs:
        whole = bytes(data)
        step = stride or len(whole)
        found += [(to, whole[at : at + step]) for at in range(0, len(whole), step)]
    return found


TOWN = Town(4, Limits(runs_burst=1e9))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=44), st.integers(9, STRIDE))
def test_interleaved_circuits_reach_their_owners_and_nobody_else(order: list[int], last: int) -> None:
    """The connector sends to several agents in one buffer; 4 is a circuit that does not exist."""
    headers = [*TOWN.headers, frames.header(b"nowhere")]
    parts = [segment(headers[n], at) for at, n in enumerate(order)]
    parts[-1] = parts[-1][:last]
    runs = TOWN.forward(b"".join(parts), STRIDE, TOWN.site)
    expected, count = [], 0
    for at, n in enumerate(order):
        count += at == 0 or order[at - 1] != n
        if n < 4 and count <= RUNS:
            expected.append((TOWN.homes[n], parts[at]))
    assert segments(runs) == expected


@given(st.lists(st.integers(0, 3), min_size=1, max_size=44))
def test_an_agent_that_mixes_in_foreign_circuits_reaches_nobody_by_them(order: list[int]) -> None:
    parts = [segment(TOWN.headers[n], at) for at, n in enumerate(order)]
    for to, data in segments(TOWN.forward(b"".join(parts), STRIDE, TOWN.homes[1])):
        assert to == TOWN.site
        assert data[:8] == TOWN.headers[1]


@given(st.binary(max_size=400), st.integers(0, 60))
def test_any_bytes_are_taken(data: bytes, stride: int) -> None:
    TOWN.forward(data, stride, TOWN.homes[0])
    TOWN.forward(TOWN.headers[0] + data, stride, TOWN.homes[0])
    TOWN.forward(bytes((frames.CONTROL,)) + data, stride, TOWN.homes[0])


def test_one_circuit_goes_on_as_it_came() -> None:
    town = Town()
    buffer = b"".join(segment(town.headers[0], n) for n in range(44))
    assert town.forward(buffer, STRIDE, town.homes[0]) == [(town.site, buffer, STRIDE)]
    assert town.forward(buffer[:STRIDE], 0, town.homes[0]) == [(town.site, buffer[:STRIDE], 0)]
    circuit = town.desk.core.table[town.headers[0]]
    assert (circuit.from_agent, circuit.from_connector, circuit.left_runs) == (45 * STRIDE, 0, 2)


def test_a_crafted_buffer_costs_a_bounded_number_of_sends() -> None:
    town = Town(44)
    buffer = b"".join(segment(header, 1) for header in town.headers)
    assert len(town.forward(buffer, STRIDE, town.site)) == RUNS
    assert town.forwarder.dropped["runs"] == 1


def test_a_stray_gets_one_hint_no_longer_than_itself() -> None:
    town = Town()
    elsewhere = ("203.0.113.1", 9)
    buffer = b"".join(segment(town.headers[0], n) for n in range(44))
    assert town.forward(buffer, STRIDE, elsewhere) == []
    assert town.hints() == [(elsewhere, frames.hint(frames.REBIND, town.headers[0][1:]))]
    assert town.forward(town.headers[0], 0, elsewhere) == []
    assert town.hints() == []


def test_an_unknown_circuit_is_said_to_be_unknown() -> None:
    town = Town()
    assert town.forward(segment(frames.header(b"nowhere"), 0), 0, town.homes[0]) == []
    assert town.hints() == [(town.homes[0], frames.hint(frames.UNKNOWN, b"nowhere"))]


def test_quic_behind_a_circuit_packet_is_dropped() -> None:
    town = Town()
    quic = bytes((0x43,)) + bytes(STRIDE - 1)
    runs = town.forward(segment(town.headers[0], 1) + quic, STRIDE, town.homes[0])
    assert segments(runs) == [(town.site, segment(town.headers[0], 1))]
    assert town.forwarder.dropped["foreign"] == 1


def test_strides_below_a_header_are_not_ours() -> None:
    town = Town()
    assert town.forward(town.headers[0] * 4, 8, town.homes[0]) == []
    assert town.forward(town.headers[0] * 4, 4, town.homes[0]) == []
    assert town.forwarder.dropped["foreign"] == 2


def test_control_in_a_batch_is_answered_each() -> None:
    town = Town()
    slot = next(iter(town.desk.core.members)).slots[0]
    binds = b"".join(frames.bind(slot.id, slot.key, slot.counter + 1 + n, False, 1232) for n in range(5))
    assert town.forward(binds, 1232, town.homes[0]) == []
    assert [len(packet) for _, packet in town.hints()] == [1232] * 5


def test_each_direction_of_a_circuit_has_its_bucket() -> None:
    town = Town(limits=Limits(runs_per_second=10.0, runs_burst=5.0))
    packet = segment(town.headers[0], 1)
    sent = [bool(town.forward(packet, 0, town.homes[0])) for _ in range(8)]
    assert sent == [True] * 5 + [False] * 3
    assert town.forward(packet, 0, town.site)
    assert town.forwarder.forward(packet, 0, town.homes[0], 1.0)
    assert town.forwarder.dropped["rate"] == 3


def test_nobody_there_yet() -> None:
    town = Town()
    agent = town.desk.agent(b"new")
    header = frames.header(town.desk.circuit(agent))
    assert town.forward(segment(header, 1), 0, town.site) == []
    assert town.forwarder.dropped["unbound"] == 1


def udp() -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
    sock.settimeout(2.0)
    return sock


def test_sending_keeps_segments_and_marks() -> None:
    """CE is passed on; ECT without CE is not."""
    town = Town()
    with udp() as out, udp() as into:
        buffer = b"".join(segment(town.headers[0], n) for n in range(3))
        for tos, expected in ((0x00, 0x00), (0x03, 0x03), (0x02, 0x00), (0x29, 0x28)):
            town.forwarder.send(out, (into.getsockname(), buffer, STRIDE), tos)
            for n in range(3):
                data, ancillary, _, _ = into.recvmsg(2048, 128)
                assert data == segment(town.headers[0], n)
                assert read_ancillary(ancillary) == (0, expected)


def test_a_full_socket_drops_one_run() -> None:
    town = Town()
    with udp() as out:
        out.setblocking(False)
        out.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)

        class Full(socket.socket):
            def sendto(self, *args: object) -> int:
                raise BlockingIOError

        with Full(socket.AF_INET, socket.SOCK_DGRAM) as full:
            town.forwarder.send(full, (("127.0.0.1", 9), b"x", 0))
        town.forwarder.send(out, (("127.0.0.1", 9), bytes(70_000), 0))
    assert town.forwarder.dropped == {"full": 1, "too_large": 1}


@pytest.mark.parametrize("old", [False, True])
def test_serve_tells_circuits_from_quic_and_passes_nothing_on_that_waited_through_a_standstill(old: bool) -> None:
    town = Town()
    got: list[bytes] = []
    with udp() as switch, udp() as node:
        switch.setblocking(False)
        node.sendto(b"\xc3 quic", switch.getsockname())
        node.sendto(segment(frames.header(b"nowhere"), 0), switch.getsockname())
        more = town.forwarder.serve(
            switch, lambda: 0.0, lambda buffer, stride, source, now: got.append(buffer), old=old
        )
        assert not more and got == [b"\xc3 quic"]
        if old:
            assert town.forwarder.dropped == {"old": 1}
        else:
            assert node.recv(100) == frames.hint(frames.UNKNOWN, b"nowhere")
