"""Answers for names that nobody asked for before: what one blocked name got, all get that are blocked alike.

The chain decides on the first of them, and says when nothing of its answer depends on the name (`Asked.general`). From
then on such a query is answered without being decoded: its name is walked once, over the wire, which shows that it is a
name and finds what lists and policy say of it (`Filter.likenesses`); its header and what follows the name are compared
as bytes. A form ends as a whole answer does (`packets.py`): with the filter that made it, and at the next full minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from warren.dnsfilter.core.stages.filtering import Filter
from warren.dnsfilter.core.verdict import Asked, Client, Resolved
from warren.fabric.core import dnswire as wire

BEHIND_MAX: Final = 64
"""Bytes behind the name that are compared: type, class, and an OPT without much in it."""
_ID: Final = 2
_HEAD: Final = wire.HEADER - _ID
"""Bytes of a header behind the id."""

Around = tuple[bytes, bytes]
"""What stands around the name: the header without its id, and all that follows."""


class Form(msgspec.Struct, gc=False, eq=False):
    """The answer, without the query's id and name."""

    head: bytes
    """Flags and counts."""
    rest: bytes
    """Type and class of the question, and all records."""
    room: int
    """Bytes that a question's name may have, lest the answer be too long."""
    client: Client
    resolved: Resolved
    """What the first of them got."""
    until: float
    """Monotonic."""
    filter: Filter
    log: bytes = b""
    """What its line in the query log has behind the name, once there was one."""


Forms = dict[Around, dict[int, Form]]
"""One client's over one transport, at last by the likeness of the name."""
Query = tuple[int, bytes, Forms]
"""Which of those that came together, the query without its id, and its client's forms."""
Alike = tuple[int, bytes, bytes, Form]
"""Which of those that came together, its wire name as it was asked for and in lower case, and its form."""
_NONE: Final[Forms] = {}
_NOBODY: Final[dict[int, Form]] = {}


def find(queries: Sequence[Query], filter_: Filter, now: float) -> list[Alike]:
    """Those for which an answer was formed that still holds; total on whatever they are."""
    raws = [rest[_HEAD : rest.find(0, _HEAD) + 1] for _, rest, _ in queries]
    names = [raw.lower() for raw in raws]
    found: list[Alike] = []
    known, head, tail, alike = _NONE, b"", b"", _NOBODY  # most have the same around their names
    holds: Form | None = None  # and then the same form
    for (number, rest, forms), raw, name, said in zip(queries, raws, names, filter_.likenesses(names), strict=True):
        if said < 0:
            continue
        before, behind = rest[:_HEAD], rest[_HEAD + len(raw) :]
        if forms is not known or behind != tail or before != head:
            known, head, tail, alike = forms, before, behind, forms.get((before, behind), _NOBODY)
        form = alike.get(said)
        if form is None or len(raw) > form.room:
            continue
        if form is not holds:
            if now >= form.until or form.filter is not filter_:
                continue
            holds = form
        found.append((number, raw, name, form))
    return found


def form_of(
    query: bytes, asked: Asked, resolved: Resolved, filter_: Filter, until: float
) -> tuple[Around, int, Form] | None:
    """What `find` will find, if what the chain decided about `query` holds for other names: what stands around the
    name, its likeness, and the form."""
    question, message = asked.question, resolved.message
    end = wire.HEADER + len(question.raw)
    if not asked.general or question.cookie or question.padded or len(query) - end > BEHIND_MAX:
        return None
    said = filter_.likenesses([question.name])[0]
    if said < 0:
        return None
    rest = message[end:]
    room = asked.limit - len(rest) - wire.HEADER
    form = Form(message[_ID : wire.HEADER], rest, room, asked.client, resolved, until, filter_)
    return (query[_ID : wire.HEADER], query[end:]), said, form
