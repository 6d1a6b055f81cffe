"""Answers for names that nobody asked for before: what one blocked name got, all get that are blocked alike.

The chain decides on the first of them, and says when nothing of its answer depends on the name (`Asked.general`). From
then on such a query is answered without being decoded: its name is walked once, over the wire, which shows that it is a
name and finds what lists and policy say of it (`Filter.likeness`); its header and what follows the name are compared as
bytes. A form ends as a whole answer does (`packets.py`): with the filter that made it, and at the next full minute.
"""

from __future__ import annotations

from typing import Final

import msgspec

from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Asked, Client, Resolved
from warren.fabric.core import dnswire as wire

BEHIND_MAX: Final = 64
"""Bytes behind the name that are compared: type, class, and an OPT without much in it."""
_HEADER: Final = wire.HEADER

Key = tuple[bytes, bytes, int]
"""The header without its id, what follows the name, and the likeness of the name."""
Forms = dict[Key, "Form"]
"""One client's over one transport."""


class Form(msgspec.Struct, gc=False):
    """The answer, without the query's id and name."""

    head: bytes
    """Flags and counts."""
    rest: bytes
    """Type and class of the question, and all records."""
    room: int
    """Where a question's name ends at the latest, lest the answer be too long."""
    client: Client
    resolved: Resolved
    """What the first of them got."""
    until: float
    """Monotonic."""
    filter: Filter
    log: bytes = b""
    """What its line in the query log has behind the name, once there was one."""


Alike = tuple[bytes, bytes, Form]
"""An answer, the wire name that it is about, and its form."""


def find(forms: Forms, query: bytes, filter_: Filter, now: float) -> Alike | None:
    """The answer, if one was formed that still holds; total on whatever `query` is."""
    end = query.find(0, _HEADER) + 1
    if not end:
        return None
    raw = query[_HEADER:end]
    name = raw.lower()
    said = filter_.likeness(name)
    if said < 0:
        return None
    form = forms.get((query[2:_HEADER], query[end:], said))
    if form is None or now >= form.until or form.filter is not filter_ or end > form.room:
        return None
    return query[:2] + form.head + raw + form.rest, name, form


def form_of(query: bytes, asked: Asked, resolved: Resolved, filter_: Filter, until: float) -> tuple[Key, Form] | None:
    """What `find` will find, if what the chain decided about `query` holds for other names."""
    question, message = asked.question, resolved.message
    end = wire.HEADER + len(question.raw)
    if not asked.general or question.cookie or question.padded or len(query) - end > BEHIND_MAX:
        return None
    said = filter_.likeness(question.name)
    if said < 0:
        return None
    rest = message[end:]
    form = Form(message[2 : wire.HEADER], rest, asked.limit - len(rest), asked.client, resolved, until, filter_)
    return (query[2 : wire.HEADER], query[end:], said), form
