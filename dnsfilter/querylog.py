"""The query log: JSON lines, bounded on disk, written in batches beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import structlog

from warren.dnsfilter.core.records import type_name
from warren.dnsfilter.core.verdict import Client, Resolved
from warren.dnsfilter.settings import LogSettings
from warren.fabric.core import dnswire as wire

PENDING_MAX: Final = 50_000
"""Lines that wait for the disk, 300 bytes each; after that new ones are counted and dropped."""
FLUSH_S: Final = 1.0
FLUSH_AT: Final = 10_000
"""Lines that are written before the second is over: 100,000 queries a second would fill it twice."""
SWITCH_S: Final = 0.0005
"""How long the writing thread keeps the interpreter from the event loop; Python's own 5 ms would delay queries."""

_ENCODER: Final = msgspec.json.Encoder()
_BEGIN: Final = b'{"time":%.3f,"ms":%.3f,'
_NAME: Final = b'"name":"'
_PLAIN: Final = b"*/-_0123456789abcdefghijklmnopqrstuvwxyz"
"""Characters of wire names that stand for themselves."""
_SHORT: Final = min(_PLAIN) + 1
"""Bytes of a wire name in which no label is so long that its length is one of them."""
_DOTTED: Final = b"\n" + b"." * (min(_PLAIN) - 1) + bytes(range(min(_PLAIN), 256))
"""The root's length ends a line, the others separate labels."""
_Alone = tuple[Resolved, Client, float, float]
"""A query: its end, who asked, when (since 1970), and how long it took."""

log = structlog.get_logger()


class Line(msgspec.Struct, omit_defaults=True):
    """One query, behind `time` (seconds since 1970) and `ms` (from the query's arrival to the answer)."""

    name: str
    type: str
    verdict: str
    address: str = ""
    device: str = ""
    user: str = ""
    stage: str = ""
    rule: str = ""
    list: str = ""
    upstream: str = ""


class QueryLog:
    """Appends to `queries.jsonl`, which at half of its bound becomes `queries.jsonl.1` in place of the last one."""

    def __init__(self, settings: LogSettings, directory: Path) -> None:
        self._settings = settings
        self._path = directory / "queries.jsonl"
        self._pending: list[_Alone | bytes] = []
        """Queries, and whole lines of many."""
        self._waiting = 0
        """Lines of all that."""
        self._enough = asyncio.Event()
        self._writing = asyncio.Lock()
        self.dropped = 0
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, resolved: Resolved, client: Client, wall: float, seconds: float) -> None:
        """Note one query: cheap, the work is done when the batch is written."""
        if self._takes(1):
            self._pending.append((resolved, client, wall, seconds))

    def add_together(self, ends: Sequence[bytes], wall: float, seconds: float) -> None:
        """Note queries that were answered together. `ends`: of `end`, made once for each answer that is given again."""
        if self._takes(len(ends)):
            begin = _BEGIN % (wall, seconds * 1000)
            self._pending.append(begin + begin.join(ends))

    def add_alike(self, names: Sequence[bytes], ends: Sequence[bytes], wall: float, seconds: float) -> None:
        """Note queries for different wire names. `ends`: of `end_behind_name`."""
        if self._takes(len(names)):
            begin, texts = _BEGIN % (wall, seconds * 1000) + _NAME, _texts(names)
            if ends.count(ends[0]) == len(ends):
                self._pending.append(begin + (ends[0] + begin).join(texts) + ends[0])
            else:
                self._pending.append(b"".join([begin + name + end for name, end in zip(texts, ends, strict=True)]))

    def end(self, resolved: Resolved, client: Client) -> bytes:
        """What a line has behind its times."""
        return _ENCODER.encode(self._tail(resolved, client))[1:] + b"\n"

    def end_behind_name(self, resolved: Resolved, client: Client) -> bytes:
        """What it has behind the name as well, which the line of another name has too."""
        tail = self._tail(resolved, client)
        tail.name = ""
        return _ENCODER.encode(tail)[1 + len(_NAME) :] + b"\n"

    def _takes(self, count: int) -> bool:
        """Whether so many lines more may wait."""
        if self._waiting + count > PENDING_MAX:
            self.dropped += count
            return False
        self._waiting += count
        if self._waiting >= FLUSH_AT:
            self._enough.set()
        return True

    async def run(self) -> None:
        """Write until cancelled, and once more then."""
        sys.setswitchinterval(SWITCH_S)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(FLUSH_S):
                        await self._enough.wait()
                self._enough.clear()
                await asyncio.shield(self._flush())
        finally:
            await asyncio.shield(self._flush())

    async def _flush(self) -> None:
        """Write what waits, after the batch that is being written: one that is cancelled would be lost."""
        async with self._writing:
            batch, count, self._pending, self._waiting = self._pending, self._waiting, [], 0
            if not batch:
                return
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                self.dropped += count
                log.warning("query log not written", error=error.strerror, dropped=self.dropped)

    def _write(self, batch: Sequence[_Alone | bytes]) -> None:
        data = self._encode(batch)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            size = file.tell()
        if size >= self._settings.max_bytes // 2:
            self._path.replace(self._path.with_suffix(".jsonl.1"))

    def _encode(self, batch: Sequence[_Alone | bytes]) -> bytes:
        """What is the same for many lines is made once: this thread and the event loop share one interpreter."""
        ends: dict[tuple[object, ...], bytes] = {}
        lines = []
        for one in batch:
            if isinstance(one, bytes):
                lines.append(one)
                continue
            resolved, client, wall, seconds = one
            question, verdict = resolved.question, resolved.verdict
            key = (verdict, client) if question is None else (verdict, client, question.name, question.type)
            if (end := ends.get(key)) is None:
                end = ends[key] = self.end(resolved, client)
            lines.append(_BEGIN % (wall, seconds * 1000) + end)
        return b"".join(lines)

    def _tail(self, resolved: Resolved, client: Client) -> Line:
        verdict, question = resolved.verdict, resolved.question
        return Line(
            "" if question is None else wire.name_text(question.name),
            "" if question is None else type_name(question.type),
            verdict.kind.value,
            *self._client(client),
            verdict.stage,
            verdict.rule,
            verdict.list,
            verdict.upstream,
        )

    def _client(self, client: Client) -> tuple[str, str, str]:
        if self._settings.anonymise:
            return _cut(client.address), "", ""
        return client.address, client.device, client.user


def _texts(names: Sequence[bytes]) -> list[bytes]:
    """Wire names in presentation form, as JSON has them.

    All at once if they are plain: then what is no character of a name are the lengths of its labels, which with their
    own bytes make up its length.
    """
    sizes = list(map(len, names))
    if max(sizes) <= _SHORT and min(sizes) > 1:
        joined = b"".join(names)
        lengths = joined.translate(None, _PLAIN)
        if sum(lengths) + len(lengths) == len(joined):
            return joined.translate(_DOTTED)[1:-1].split(b"\n.")
    if len(names) == 1:
        return [_ENCODER.encode(wire.name_text(names[0]))[1:-1]]
    return [text for name in names for text in _texts((name,))]


def _cut(address: str) -> str:
    """The network that an address is in: /24 or /48."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    length = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False).network_address)
