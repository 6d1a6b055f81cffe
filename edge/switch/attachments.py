"""Attachments as the switch's side sees them: proof, then messages to and from the core (protocol.md, section 3).

Whoever owns the endpoint calls `enter` for each new connection and greets it with the challenge that this returns,
reads the first message of its streams (`FirstMessage`), gives an `Attach` to `attach`, and calls `drain` after every
round. Who may attach is decided by the callable `admit`: the switch knows nothing of devices and tunnels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import structlog

from warren.edge.switch.circuits import Circuits
from warren.edge.switch.model import Admission, Member
from warren.fabric.core.engine import Connection, StreamReset, StreamStopped
from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.link import CHALLENGE
from warren.fabric.core.messages.attachment import (
    TO_NODE,
    TO_SWITCH,
    Ask,
    Attach,
    Beat,
    Drop,
    Rejected,
    Suspect,
    ToNode,
    ToSwitch,
)
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream, StreamHandler

UNPROVED = 256
"""Connections that have not proved themselves: a TLS handshake's memory each (about 75 KiB)."""
PROOF_WAIT = 10.0
"""Seconds that one may remain so."""

Admit = Callable[[Attach, bytes], "Admission | Reason"]
"""(attach, the challenge that was sent) → what the proof showed, or why it is none."""

_log = structlog.get_logger()


class Lobby:
    """Connections that have not proved themselves yet, bounded in number and time."""

    def __init__(self, most: int = UNPROVED, wait: float = PROOF_WAIT) -> None:
        self._most, self._wait = most, wait
        self._until: dict[Connection, float] = {}

    def enter(self, connection: Connection, now: float) -> bool:
        """Whether there was room."""
        if len(self._until) >= self._most:
            return False
        self._until[connection] = now + self._wait
        return True

    def leave(self, connection: Connection) -> None:
        """It proved itself (an attachment, or a session), or is gone."""
        self._until.pop(connection, None)

    def overdue(self, now: float) -> list[Connection]:
        return [connection for connection, until in self._until.items() if until <= now]

    def poll_timeout(self) -> float | None:
        """Entered in order, so the first is the earliest."""
        return next(iter(self._until.values()), None)


class _Attachment:
    """One proved attachment's control stream (a StreamHandler)."""

    def __init__(
        self, circuits: Circuits, member: Member, connection: Connection, messages: MessageStream[ToSwitch, ToNode]
    ) -> None:
        self.connection, self.messages = connection, messages
        self._circuits, self._member = circuits, member

    def handle_readable(self, stream: int, now: float) -> None:
        for message in self.messages.handle_readable():
            match message:
                case Ask():
                    self._circuits.ask(self._member, message, now)
                case Drop():
                    self._circuits.drop(self._member, message, now)
                case Suspect():
                    self._circuits.suspect(self._member, message, now)
                case Beat():
                    self._circuits.beat(self._member, now)
                case Attach():
                    raise WireError("attached twice")
        if self.messages.finished:
            raise WireError("the node ended the attachment's stream")

    def handle_writable(self, stream: int, now: float) -> None:
        self.messages.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("the node reset the attachment's stream")


class _Refused:
    """What is left of an attachment that was not admitted: its answer, until the connection ends."""

    def __init__(self, messages: MessageStream[ToSwitch, ToNode]) -> None:
        self._messages = messages

    def handle_readable(self, stream: int, now: float) -> None:
        pass

    def handle_writable(self, stream: int, now: float) -> None:
        self._messages.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        pass


class Attachments:
    """All attachments of one switch."""

    def __init__(self, circuits: Circuits, admit: Admit, random: Callable[[int], bytes]) -> None:
        """`random(n)`: n unguessable bytes, for challenges."""
        self.circuits = circuits
        self.lobby = Lobby()
        self.counters: Counter[str] = Counter()
        self._admit = admit
        self._random = random
        self._challenges: dict[Connection, bytes] = {}
        self._members: dict[Connection, Member] = {}
        self._streams: dict[Member, _Attachment] = {}
        self._touched: dict[Connection, None] = {}

    def enter(self, connection: Connection, now: float) -> bytes | None:
        """A new connection: the challenge to greet it with, or None when there is no room (the caller closes it with
        Reason.LIMIT)."""
        if not self.lobby.enter(connection, now):
            self.counters["no_room"] += 1
            return None
        challenge = self._challenges[connection] = self._random(CHALLENGE)
        return challenge

    def challenge(self, connection: Connection) -> bytes | None:
        """What this connection was asked to sign; for a session on the same connection, too."""
        return self._challenges.get(connection)

    def attach(
        self, connection: Connection, messages: MessageStream[Any, Any], attach: Attach, now: float
    ) -> StreamHandler:
        """The first message of a stream was `Attach`: proof, and from here on the stream's handler. A refusal is said
        on the stream; the node closes, or the lobby does when its time is up. Raises WireError."""
        challenge = self._challenges.get(connection)
        if challenge is None or connection in self._members:
            raise WireError("attached twice")
        stream = messages.become(TO_SWITCH, TO_NODE)
        self._touched[connection] = None
        admission = self._admit(attach, challenge)
        if isinstance(admission, Reason):
            return self._refuse(stream, admission)
        try:
            member = self.circuits.attach(admission, attach.slots, now)
        except DeniedError as error:
            return self._refuse(stream, error.reason)
        self.lobby.leave(connection)
        self._members[connection] = member
        found = self._streams[member] = _Attachment(self.circuits, member, connection, stream)
        self.counters[f"attached_{admission.role}"] += 1
        _log.info("attached", role=admission.role, tunnel=admission.tunnel, boot=admission.boot.hex()[:8])
        return found

    def _refuse(self, stream: MessageStream[ToSwitch, ToNode], reason: Reason) -> _Refused:
        self.counters[f"rejected_{reason.word}"] += 1
        _log.info("attachment rejected", reason=reason.word)
        stream.send(Rejected(reason.code))
        stream.finish()
        return _Refused(stream)

    def handle_closed(self, connection: Connection, now: float) -> None:
        """The connection is over, whoever ended it."""
        self.lobby.leave(connection)
        self._challenges.pop(connection, None)
        member = self._members.pop(connection, None)
        if member is not None:
            self._streams.pop(member, None)
            self.circuits.detach(member, now)
            _log.info("detached", role=member.role, tunnel=member.tunnel, boot=member.boot.hex()[:8])

    def expel(self, key: bytes, reason: Reason, now: float) -> None:
        """The node with this key may stay no longer."""
        for member in self.circuits.expel(key, reason, now):
            stream = self._streams.pop(member, None)
            if stream is not None:
                self._members.pop(stream.connection, None)
                self._close(stream.connection, reason, now)

    def member(self, connection: Connection) -> Member | None:
        """Who a connection turned out to be."""
        return self._members.get(connection)

    def drain(self, now: float) -> list[Connection]:
        """Gives the core's messages to their streams; returns the connections to `Endpoint.touch`."""
        while (message := self.circuits.poll_message()) is not None:
            stream = self._streams.get(message[0])
            if stream is None:
                continue
            try:
                stream.messages.send(message[1])
                self._touched[stream.connection] = None
            except WireError:
                self._close(stream.connection, Reason.PROTOCOL, now)
        touched, self._touched = list(self._touched), {}
        return touched

    def poll_timeout(self) -> float:
        lobby = self.lobby.poll_timeout()
        core = self.circuits.poll_timeout()[0]
        return core if lobby is None else min(core, lobby)

    def handle_timeout(self, now: float) -> None:
        self.circuits.handle_timeout(now)
        for connection in self.lobby.overdue(now):
            self.lobby.leave(connection)
            self.counters["unproved"] += 1
            self._close(connection, Reason.TIMED_OUT, now)

    def _close(self, connection: Connection, reason: Reason, now: float) -> None:
        connection.close(reason.code, reason.text, now)
        self._touched[connection] = None
