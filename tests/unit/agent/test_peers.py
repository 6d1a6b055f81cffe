"""What a tunnel must show before the agent asks for a circuit to it: no trust at first sight."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from tests.unit.fabric.identity.world import OTHER, WORLD
from warren.agent.opening import Wanted
from warren.agent.peers import Peers, believed
from warren.fabric.aio.circuits import CircuitSocket
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.flow import Flow
from warren.fabric.core.messages.attachment import Circuit
from warren.fabric.core.messages.peer import Open
from warren.fabric.core.messages.session import Granted
from warren.fabric.core.reasons import Reason
from warren.fabric.engines import engine
from warren.fabric.identity import certificates, keys, statements


class Switch:
    """Counts who is asked for, and has no connector."""

    def __init__(self) -> None:
        self.asked = 0

    async def ask(
        self,
        index: int,
        peer: bytes,
        permit: bytes,
        tried: tuple[bytes, ...],
        boot: bytes = b"",
        *,
        patient: bool = True,
    ) -> tuple[Circuit, CircuitSocket]:
        self.asked += 1
        raise DeniedError(Reason.TUNNEL_DOWN)

    async def decide(self, protocol: str, port: int, *, address: str = "", host: str = "") -> Granted:
        raise DeniedError(Reason.NO_ROUTE)


class App:
    """A flow's owner, who remembers how it ended."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []
        self.told = asyncio.Event()

    def opened(self, flow: Flow, address: str) -> None:
        raise AssertionError("it was opened")

    def refused(self, reason: Reason, detail: str) -> None:
        self.reasons.append(reason)
        self.told.set()

    def readable(self, flow: Flow) -> None:
        pass

    def writable(self, flow: Flow) -> None:
        pass


def granted(statement: bytes, authority: bytes = WORLD.tunnel_ca, tunnel: str = WORLD.tunnel) -> Granted:
    return Granted(1, b"grant", b"permit", tunnel, "office", authority, statement, "route")


def try_each(*grants: Granted) -> tuple[list[Reason], int]:
    """How a flow with each of these grants ends, one after the other; how often a circuit was asked for."""

    async def main() -> tuple[list[Reason], int]:
        switch, app = Switch(), App()
        peers = Peers(engine(), WORLD.network, lambda challenge, leaf: (b"", b""), lambda _: switch)
        for grant in grants:
            app.told.clear()
            peers.open(Wanted(grant, Open(b"f" * 16, b"grant", "tcp", 80, address="10.0.0.1"), app))
            await asyncio.wait_for(app.told.wait(), 5)
        peers.close()
        return app.reasons, switch.asked

    return asyncio.run(main())


def test_a_tunnel_that_the_network_key_signed_is_asked_for() -> None:
    assert try_each(granted(WORLD.statement)) == ([Reason.TUNNEL_DOWN], 1)


OWN = keys.generate()
OWN_CA = certificates.make_tunnel_authority(OWN, WORLD.tunnel)


@pytest.mark.parametrize(
    "lie",
    [
        granted(statements.sign_tunnel(OWN, WORLD.tunnel, OWN_CA, 1), OWN_CA),
        granted(WORLD.statement, OWN_CA),
        granted(OTHER.statement, OTHER.tunnel_ca, OTHER.tunnel),
        granted(statements.sign_tunnel(WORLD.edge_ca_key, WORLD.tunnel, OWN_CA, 1), OWN_CA),
        granted(WORLD.statement, tunnel=OTHER.tunnel),
        granted(b""),
    ],
    ids=["own-key", "own-ca", "other-network", "edge-ca", "other-name", "nothing"],
)
def test_an_edge_that_names_a_tunnel_of_its_own_making_is_not_believed(lie: Granted) -> None:
    assert try_each(lie) == ([Reason.WRONG_TUNNEL], 0)


def test_a_revision_below_the_highest_seen_is_refused() -> None:
    newer = statements.sign_tunnel(WORLD.network_key, WORLD.tunnel, WORLD.tunnel_ca, 2)
    reasons, asked = try_each(granted(newer), granted(WORLD.statement))
    assert (reasons, asked) == ([Reason.TUNNEL_DOWN, Reason.STALE_GRANT], 1)


NEXT_CA = certificates.make_tunnel_authority(keys.generate(), WORLD.tunnel)
ROTATED = statements.sign_tunnel(WORLD.network_key, WORLD.tunnel, NEXT_CA, 2, WORLD.tunnel_ca, 1000)


def held_against(named: bytes, former: bytes = WORLD.tunnel_ca, now: float = 999.0) -> bytes:
    grant = msgspec.structs.replace(granted(ROTATED, NEXT_CA), former=former)
    said = statements.verify_tunnel(grant.statement, grant.authority, WORLD.network)
    return believed(grant, said, named, now)


def test_while_both_keys_hold_a_connector_is_held_against_the_one_that_it_shows() -> None:
    fingerprint = certificates.fingerprint
    assert held_against(fingerprint(NEXT_CA)) == held_against(b"") == NEXT_CA
    assert held_against(fingerprint(WORLD.tunnel_ca)) == WORLD.tunnel_ca


@pytest.mark.parametrize(
    ("named", "former", "now"),
    [
        (WORLD.tunnel_ca, WORLD.tunnel_ca, 1000.0),
        (OWN_CA, OWN_CA, 999.0),
        (OWN_CA, WORLD.tunnel_ca, 999.0),
        (WORLD.tunnel_ca, OWN_CA, 999.0),
        (WORLD.tunnel_ca, b"", 999.0),
    ],
    ids=["over", "own-former", "own-named", "other-former", "none"],
)
def test_no_key_is_believed_that_the_statement_does_not_name(named: bytes, former: bytes, now: float) -> None:
    with pytest.raises(DeniedError) as denied:
        held_against(certificates.fingerprint(named), former, now)
    assert denied.value.reason is Reason.STALE_GRANT
