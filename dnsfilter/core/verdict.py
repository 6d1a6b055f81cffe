"""What was decided about a query, by what, and for whom."""

from __future__ import annotations

import enum

import msgspec

from warren.fabric.core.dnswire import TCP_MAX, Question
from warren.fabric.core.selectors import Subject


class Kind(enum.Enum):
    """How a query ended. The value is the word in logs and metrics."""

    HOST_ROUTE = "host_route"
    """Under a hostname route: the connector is asked, nothing is answered here."""
    LOCAL = "local"
    """Answered here: a private or special-use name, or a question that no resolver forwards."""
    BLOCKED = "blocked"
    OVERRIDDEN = "overridden"
    CACHED = "cached"
    STALE = "stale"
    FORWARDED = "forwarded"
    FAILED = "failed"
    """No upstream answered, or none may be asked."""
    MALFORMED = "malformed"

    __hash__ = object.__hash__  # the members are their own; Enum's runs in Python, for every query counted


Client = Subject
"""Who asks."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """The decision, with what made it."""

    kind: Kind
    stage: str
    """The stage of the chain that decided."""
    rule: str = ""
    """In words: rule, zone or list entry."""
    list: str = ""
    upstream: str = ""
    route: str = ""
    """Id of the hostname route, for HOST_ROUTE."""


class Resolved(msgspec.Struct, frozen=True, gc=False):
    """The end of a query: `message` goes back to the client, or nothing when it is empty."""

    message: bytes
    verdict: Verdict
    question: Question | None = None


class Said(msgspec.Struct, frozen=True, gc=False):
    """What an answer leads to."""

    chain: tuple[bytes, ...] = ()
    """Targets of its CNAMEs, as wire names."""
    addresses: tuple[bytes, ...] = ()
    """4 or 16 bytes each."""


class Asked(msgspec.Struct):
    """One query on its way through the chain."""

    question: Question
    client: Client
    now: float
    """Monotonic, in seconds."""
    limit: int = TCP_MAX
    """Bytes that the answer may have."""
    group: str = "default"
    """The upstreams that may be asked; stages choose it."""
    wall: float = 0.0
    """Seconds since 1970, UTC, for rules that hold at certain times."""
    rule: str = ""
    """The policy rule that let it pass."""
    inspect: bool = True
    """Whether what the answer leads to is looked at; not, if a rule allowed the name."""
    alias: bytes = b""
    """Wire name that is resolved instead, behind a CNAME that leads there."""
    entry: object = None
    """The cache's entry that the answer was made of."""
    general: bool = False
    """The answer is that of every name of which lists and policy say the same, but for the name in its question."""
    refresh: bool = False
    """Answered, but ask the upstreams too: the answer is about to end."""
