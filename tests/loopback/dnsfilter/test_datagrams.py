"""Datagrams in batches, on sockets of both families."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from warren.dnsfilter.datagrams import Datagrams

COUNT, ROOM, ANSWER = 8, 64, 100


@pytest.fixture(params=["127.0.0.1", "::1"])
def bound(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    try:
        made = socket.socket(family, socket.SOCK_DGRAM)
        made.bind((request.param, 0))
    except OSError:
        pytest.skip("no such address here")
    made.setblocking(False)
    with made:
        yield made


def asker(bound: socket.socket) -> socket.socket:
    made = socket.socket(bound.family, socket.SOCK_DGRAM)
    made.settimeout(10)
    made.connect(bound.getsockname()[:2])
    return made


def received(batch: Datagrams) -> list[bytes]:
    return [ident + rest for ident, rest in batch.receive()]


def answer(batch: Datagrams, answers: dict[int, bytes]) -> None:
    batch.answer(list(answers), list(answers.values()))


def test_each_answer_goes_where_its_query_came_from(bound: socket.socket) -> None:
    batch = Datagrams(bound, COUNT, ROOM, ANSWER)
    assert batch.receive() == [] and batch.send() == 0
    with ExitStack() as stack:
        askers = [stack.enter_context(asker(bound)) for _ in range(3)]
        for turn in range(3):  # places are used again, for longer and shorter ones
            sent = [b"%d %d" % (turn, number) * (turn * 3 % 5 + 1) for number in range(COUNT + 1)]
            for number, text in enumerate(sent):
                askers[number % 3].send(text)
            got = received(batch)
            assert got == sent[:COUNT]
            for number in range(COUNT):
                assert batch.source(number)[:2] == askers[number % 3].getsockname()[:2]
            for some in ([0, 2, 3, 4], [], [7], [6]):  # not all are answered together
                answer(batch, {number: b"re: " + got[number] for number in some})
            assert batch.send() == 0
            assert received(batch) == sent[COUNT:]
            bound.sendto(b"alone", batch.source(0))
            for number in range(COUNT):
                if number not in (1, 5):
                    assert askers[number % 3].recv(ROOM * 2) == b"re: " + sent[number]
            assert askers[COUNT % 3].recv(ROOM) == b"alone"


def test_a_long_datagram_is_cut_and_one_may_be_empty(bound: socket.socket) -> None:
    batch = Datagrams(bound, COUNT, ROOM, ANSWER)
    with asker(bound) as one:
        for text in (bytes(ROOM + 10), b"", b"x"):
            one.send(text)
        assert batch.receive() == [(bytes(2), bytes(ROOM - 2)), (b"", b""), (b"x", b"")]
        answer(batch, {2: bytes(ANSWER)})
        assert batch.send() == 0 and one.recv(ROOM * 4) == bytes(ANSWER)


def test_hosts_are_told_apart_by_address_alone() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound, ExitStack() as stack:
        bound.bind(("0.0.0.0", 0))
        bound.setblocking(False)
        batch = Datagrams(bound, COUNT, ROOM, ANSWER)
        for host in ("127.0.0.1", "127.0.0.1", "127.0.0.2"):
            one = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            one.bind((host, 0))
            one.sendto(b"x", ("127.0.0.1", bound.getsockname()[1]))
        assert len(batch.receive()) == 3
        first, same, other = batch.hosts(3)
        assert first == same != other


def test_what_the_socket_does_not_take_is_counted_and_the_rest_goes() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound, socket.socket(type=socket.SOCK_DGRAM) as one:
        bound.bind(("127.0.0.1", 0))
        bound.setblocking(False)
        one.settimeout(10)
        one.connect(bound.getsockname())
        batch = Datagrams(bound, COUNT, ROOM, ANSWER)
        for text in (b"a", b"b", b"c"):
            one.send(text)
        got = received(batch)
        batch._names[batch._name_size + 2 : batch._name_size + 4] = bytes(2)  # port 0: EINVAL
        answer(batch, dict(enumerate(got)))
        assert batch.send() == 1
        assert [one.recv(9), one.recv(9)] == [b"a", b"c"]
