"""Who is asked for a standby circuit, and when not."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from warren.agent import standby as module
from warren.agent.standby import Standbys
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.messages.attachment import Circuit
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.reasons import Reason

BOOT = b"b" * 16


class Switch:
    """An edge with one socket; what it was asked."""

    def __init__(self, name: str, *, bound: bool = True, state: str = "connected", has_it: bool = True) -> None:
        self.name, self.state, self.has_it = name, state, has_it
        self.sockets: Any = [SimpleNamespace(slot=SimpleNamespace(bound=bound), switch=name)]
        self.asked: list[tuple[Any, ...]] = []
        self.judge = self
        self.expired = b""
        """The pass that its clock holds for expired."""

    async def ask(
        self, index: int, peer: bytes, permit: bytes, tried: Any, boot: bytes = b"", *, patient: bool = True
    ) -> Any:
        self.asked.append((index, peer, permit, tried, boot, patient))
        if not self.has_it:
            raise DeniedError(Reason.TUNNEL_DOWN)
        if permit == self.expired:
            raise DeniedError(Reason.GRANT_EXPIRED)
        return Circuit(1, self.name.encode(), 1444, boot), self.sockets[0]

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Any:
        if port != 22:
            raise DeniedError(Reason.NO_ROUTE)
        return SimpleNamespace(tunnel="t" * 20, permit=f"for {address}".encode())


class Path:
    """Its circuits, by socket."""

    def __init__(self, first: Switch) -> None:
        self.held = {id(first.sockets[0]): b"first"}
        self.away: set[bytes] = set()

    @property
    def ways(self) -> list[Any]:
        return [SimpleNamespace(circuit=circuit) for circuit in self.held.values()]

    @property
    def counting(self) -> int:
        return len(self.held) - len(self.away)

    def through(self, socket: Any) -> bytes | None:
        return self.held.get(id(socket))

    def add(self, socket: Any, circuit: bytes, size: int) -> None:
        self.held[id(socket)] = circuit


class State:
    """One peer connection."""

    tunnel, tunnel_name, index, id, permit, boot, gone = "t" * 20, "payroll", 0, b"p" * 16, b"permit", BOOT, False

    def __init__(self, first: Switch, *, ready: bool = True) -> None:
        self.path = Path(first)
        self.peer = SimpleNamespace(ready=ready, closed=False)
        self.openings = {
            port: SimpleNamespace(wanted=SimpleNamespace(message=Open(b"", b"", "tcp", port, address="10.0.0.1")))
            for port in (22, 80)
        }
        """Flows; the one to port 80 is granted no more."""


def looks(state: State, switches: list[Switch], times: int = 3) -> None:
    """Standbys looks so often, one after the other."""

    async def main() -> None:
        peers: Any = SimpleNamespace(states=lambda: [state])
        standbys = Standbys(peers, lambda _: switches)
        for _ in range(times):
            standbys._look()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        standbys.close()

    asyncio.run(main())


def test_the_next_edge_is_asked_for_the_same_connector_process_and_once_only() -> None:
    one, other, third = Switch("one"), Switch("other"), Switch("third")
    state = State(one)
    looks(state, [one, other, third])
    assert other.asked == [(0, b"p" * 16, b"permit", (), BOOT, False)]
    assert not one.asked and not third.asked and len(state.path.held) == 2


def test_an_edge_whose_clock_says_that_the_pass_has_expired_gives_another_one() -> None:
    one, other = Switch("one"), Switch("other")
    other.expired = b"permit"
    state = State(one)
    looks(state, [one, other], times=5)
    assert [asked[2] for asked in other.asked] == [b"permit", b"for 10.0.0.1"]
    assert len(state.path.held) == 2 and state.permit == b"permit", "the other edge's clock says otherwise"


def test_one_edge_alone_is_not_asked() -> None:
    one = Switch("one")
    looks(State(one), [one])
    assert not one.asked


def test_what_is_not_bound_or_not_connected_waits() -> None:
    one, other, third = Switch("one"), Switch("other", bound=False), Switch("third", state="connecting")
    looks(State(one), [one, other, third])
    assert not other.asked and not third.asked


def test_a_connection_that_is_not_proved_has_none() -> None:
    one, other = Switch("one"), Switch("other")
    looks(State(one, ready=False), [one, other])
    assert not other.asked


def test_an_edge_without_that_connector_is_not_asked_again_at_once() -> None:
    one, other = Switch("one"), Switch("other", has_it=False)
    looks(State(one), [one, other])
    assert len(other.asked) == 1 and module.AGAIN[0] >= 1.0


def test_where_the_connector_is_away_a_third_edge_is_asked() -> None:
    one, other, third = Switch("one"), Switch("other"), Switch("third")
    state = State(one)
    state.path.add(other.sockets[0], b"second", 1444)
    state.path.away.add(b"second")
    looks(state, [one, other, third])
    assert third.asked and len(state.path.held) == 3
