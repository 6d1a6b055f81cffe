"""A switch's core with proved attachments and bound slots, without packets on the way."""

from __future__ import annotations

import random

from warren.edge.switch.circuits import Circuits
from warren.edge.switch.model import Admission, Limits, Member
from warren.fabric.core import frames
from warren.fabric.core.engine import Address
from warren.fabric.core.frames import Challenge
from warren.fabric.core.messages import attachment as say
from warren.fabric.core.reasons import Reason

PEER = b"p" * 16


class Desk:
    """`permit` of an ask is the tunnel's name, or b"bad"."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.core = Circuits(b"B" * 16, self.permitted, random.Random(1).randbytes, 0.0, limits)
        self.said: dict[Member, list[say.ToNode]] = {}
        self.ports = 1000

    @staticmethod
    def permitted(permit: bytes, key: bytes) -> str | Reason:
        return Reason.BAD_GRANT if permit == b"bad" else permit.decode()

    def agent(self, name: bytes = b"agent", now: float = 0.0, claim: tuple[bytes, ...] = ()) -> Member:
        return self._took(self.core.attach(Admission(name, "agent", b"a" * 16), claim, now))

    def connector(
        self,
        boot: bytes = b"c" * 16,
        tunnel: str = "T",
        now: float = 0.0,
        claim: tuple[bytes, ...] = (),
        bound: bool = True,
    ) -> Member:
        member = self._took(self.core.attach(Admission(b"key" + boot, "connector", boot, tunnel), claim, now))
        if bound and not claim:
            self.bind(member, 0, now)
        return member

    def _took(self, member: Member) -> Member:
        self.said.setdefault(member, [])
        self.drain()
        return member

    def bind(
        self, member: Member, index: int = 0, now: float = 0.0, size: int = 1452, counter: int | None = None
    ) -> Address:
        """A whole binding from a new address."""
        self.ports += 1
        return self.bind_at(member, ("10.0.0.1", self.ports), index, now, size, counter)

    def bind_at(
        self, member: Member, address: Address, index: int, now: float, size: int = 1452, counter: int | None = None
    ) -> Address:
        slot = member.slots[index]
        number = slot.counter + 1 if counter is None else counter
        self.core.handle_control(frames.bind(slot.id, slot.key, number, False, size), address, now)
        challenge = self.packet()
        message = frames.decode(challenge)
        assert isinstance(message, Challenge)
        self.core.handle_control(frames.answer(slot.id, slot.key, number, False, message.cookie), address, now)
        self.packet()
        self.drain()
        return address

    def packet(self) -> bytes:
        out = self.core.poll_transmit()
        assert out is not None
        return out[1]

    def drain(self) -> None:
        while (message := self.core.poll_message()) is not None:
            self.said.setdefault(message[0], []).append(message[1])

    def ask(
        self, agent: Member, request: int = 1, permit: bytes = b"T", now: float = 0.0, **more: object
    ) -> say.ToNode | None:
        """What the agent hears at once, if anything."""
        before = len(self.heard(agent))
        self.core.ask(agent, say.Ask(request, 0, PEER, permit, **more), now)  # type: ignore[arg-type]
        after = self.heard(agent)
        return after[-1] if len(after) > before else None

    def heard(self, member: Member) -> list[say.ToNode]:
        self.drain()
        return self.said.setdefault(member, [])

    def circuit(self, agent: Member, request: int = 1, now: float = 0.0) -> bytes:
        answer = self.ask(agent, request, now=now)
        assert isinstance(answer, say.Circuit)
        return answer.circuit

    def wait(self, until: float) -> None:
        """Time passes, timer by timer."""
        while (at := self.core.poll_timeout()[0]) <= until:
            self.core.handle_timeout(at)
        self.drain()
