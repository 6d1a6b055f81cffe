"""What the API shows of the running edge. The judge's sessions implement `Live`; the store knows nothing of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Status = Literal["inactive", "healthy", "degraded", "down"]
"""inactive: no connector has ever been here; down: there was one, and none is; degraded: some are missing or drain."""


@dataclass(frozen=True, slots=True)
class ConnectorView:
    """A running connector of a tunnel. `boot`: id of the process, hex; `since`: Unix time in seconds."""

    boot: str
    host: str
    since: int
    flows: int
    draining: bool = False
    program: str = ""
    """Its program and version."""
    revision: int = 0
    """Of the statement in its token."""
    key: str = ""
    """SHA-256 of the tunnel CA that it shows, hex."""


class Live(Protocol):
    """The running edge, as the API asks for it; answers at once, from memory."""

    def status(self, tunnel: str) -> Status:
        """Of the tunnel with this id."""

    def connectors(self, tunnel: str) -> Sequence[ConnectorView]:
        """Of the tunnel with this id."""


class NothingLive:
    """An edge to which nobody is attached."""

    def status(self, tunnel: str) -> Status:
        """Nobody has ever been here."""
        return "inactive"

    def connectors(self, tunnel: str) -> Sequence[ConnectorView]:
        """None."""
        return ()
