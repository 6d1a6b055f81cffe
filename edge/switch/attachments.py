"""Attachments as the switch's side sees them: proof, then messages to and from the core (protocol.md, section 3).

Whoever owns the endpoint greets each connection with a challenge, reads the first message of its streams and gives an
`Attach` to `begin`; the connections that have proved nothing are its to bound. `flush` after every round gives the
core's messages to their streams. Who may attach is decided by the callable `admit`: the switch knows nothing of devices
and tunnels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import structlog

from warren.edge.switch.circuits import Circuits
from warren.edge.switch.model import Admission, Member
from warren.fabric.core.engine import StreamReset, StreamStopped
from warren.fabric.core.errors import DeniedError, WireError
from warren.fabric.core.messages.attachment import Ask, Attach, Beat, Drop, Rejected, Suspect, ToNode, ToSwitch
from warren.fabric.core.reasons import Reason
from warren.fabric.core.streams import MessageStream

Admit = Callable[[Attach, bytes], "Admission | Reason"]
"""(attach, the challenge that was sent) → what the proof showed, or why it is none."""

_log = structlog.get_logger()


class Attachment:
    """One attachment's control stream (a StreamHandler). `member` is None where it was not admitted: then there is
    nothing but the answer, and the node closes."""

    def __init__(
        self,
        owner: Attachments,
        messages: MessageStream[ToSwitch, ToNode],
        member: Member | None,
        flush: Callable[[], None],
        close: Callable[[Reason], None],
    ) -> None:
        self.messages, self.member = messages, member
        self.flush, self.close = flush, close
        self._owner = owner

    def handle_readable(self, stream: int, now: float) -> None:
        if self.member is None:
            return
        for message in self.messages.handle_readable():
            self._heard(self.member, message, now)
        if self.messages.finished:
            raise WireError("the node ended the attachment's stream")

    def _heard(self, member: Member, message: ToSwitch, now: float) -> None:
        core = self._owner.circuits
        match message:
            case Ask():
                core.ask(member, message, now)
            case Drop():
                core.drop(member, message, now)
            case Suspect():
                core.suspect(member, message, now)
            case Beat():
                core.beat(member, now)
            case Attach():
                raise WireError("attached twice")

    def handle_writable(self, stream: int, now: float) -> None:
        self.messages.handle_writable()

    def handle_ended(self, stream: int, event: StreamReset | StreamStopped, now: float) -> None:
        raise WireError("the node reset the attachment's stream")

    def gone(self, now: float) -> None:
        """The connection is over, whoever ended it."""
        member, self.member = self.member, None
        if member is not None:
            self._owner.forget(member, now)


class Attachments:
    """All attachments of one switch."""

    def __init__(self, circuits: Circuits, admit: Admit) -> None:
        self.circuits = circuits
        self.counters: Counter[str] = Counter()
        self._admit = admit
        self._of: dict[Member, Attachment] = {}

    def begin(
        self,
        messages: MessageStream[ToSwitch, ToNode],
        attach: Attach,
        challenge: bytes,
        *,
        flush: Callable[[], None],
        close: Callable[[Reason], None],
        now: float,
    ) -> Attachment:
        """The first message of a stream was `Attach`: proof, and from here on the stream's handler. A refusal is said
        on the stream. `flush()`: something was written to the connection; `close(reason)`: end it."""
        admission = self._admit(attach, challenge)
        if isinstance(admission, Reason):
            return self._refuse(messages, admission, flush, close)
        try:
            member = self.circuits.attach(admission, attach.slots, now)
        except DeniedError as error:
            return self._refuse(messages, error.reason, flush, close)
        found = self._of[member] = Attachment(self, messages, member, flush, close)
        self.counters[f"attached_{member.role}"] += 1
        _log.info("attached", role=member.role, tunnel=member.tunnel, boot=member.boot.hex()[:8])
        return found

    def _refuse(
        self,
        messages: MessageStream[ToSwitch, ToNode],
        reason: Reason,
        flush: Callable[[], None],
        close: Callable[[Reason], None],
    ) -> Attachment:
        self.counters[f"rejected_{reason.word}"] += 1
        _log.info("attachment rejected", reason=reason.word)
        messages.send(Rejected(reason.code))
        messages.finish()
        flush()
        return Attachment(self, messages, None, flush, close)

    def expel(self, key: bytes, reason: Reason, now: float) -> None:
        """The node with this key may stay no longer: its circuits end, its connections are closed."""
        for member in self.circuits.expel(key, reason, now):
            attachment = self._of.pop(member, None)
            if attachment is not None:
                attachment.member = None
                attachment.close(reason)

    def forget(self, member: Member, now: float) -> None:
        """Its attachment has ended; slots and circuits are held."""
        self._of.pop(member, None)
        self.circuits.detach(member, now)
        _log.info("detached", role=member.role, tunnel=member.tunnel, boot=member.boot.hex()[:8])

    def flush(self, now: float) -> None:
        """Gives the core's messages to their streams."""
        touched: dict[Attachment, None] = {}
        while (message := self.circuits.poll_message()) is not None:
            attachment = self._of.get(message[0])
            if attachment is None:
                continue
            if isinstance(message[1], Rejected):
                self._superseded(attachment, message[0], Reason.of(message[1].reason))
                continue
            try:
                attachment.messages.send(message[1])
                touched[attachment] = None
            except WireError as error:
                _log.info("a node does not read", boot=message[0].boot.hex()[:8], detail=str(error))
                attachment.close(Reason.PROTOCOL)
        for attachment in touched:
            attachment.flush()

    def _superseded(self, attachment: Attachment, member: Member, reason: Reason) -> None:
        """The core has let go of it already, for newer attachments of the same key."""
        self._of.pop(member, None)
        attachment.member = None
        attachment.close(reason)
