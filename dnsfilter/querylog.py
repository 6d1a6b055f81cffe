"""The query log: JSON lines, bounded on disk, written in batches beside the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import sys
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
        self._pending: list[tuple[Resolved, Client, float, float]] = []
        self._enough = asyncio.Event()
        self._writing = asyncio.Lock()
        self.dropped = 0
        directory.mkdir(parents=True, exist_ok=True)

    def add(self, resolved: Resolved, client: Client, wall: float, seconds: float) -> None:
        """Note one query: cheap, the work is done when the batch is written."""
        if len(self._pending) < PENDING_MAX:
            self._pending.append((resolved, client, wall, seconds))
            if len(self._pending) == FLUSH_AT:
                self._enough.set()
        else:
            self.dropped += 1

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
            batch, self._pending = self._pending, []
            if not batch:
                return
            try:
                await asyncio.to_thread(self._write, batch)
            except OSError as error:
                self.dropped += len(batch)
                log.warning("query log not written", error=error.strerror, dropped=self.dropped)

    def _write(self, batch: list[tuple[Resolved, Client, float, float]]) -> None:
        data = self._encode(batch)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(data)
            size = file.tell()
        if size >= self._settings.max_bytes // 2:
            self._path.replace(self._path.with_suffix(".jsonl.1"))

    def _encode(self, batch: list[tuple[Resolved, Client, float, float]]) -> bytes:
        """What is the same for many lines is made once: this thread and the event loop share one interpreter."""
        tails: dict[tuple[object, ...], bytes] = {}
        lines = []
        for resolved, client, wall, seconds in batch:
            question, verdict = resolved.question, resolved.verdict
            key = (verdict, client) if question is None else (verdict, client, question.name, question.type)
            if (tail := tails.get(key)) is None:
                tail = tails[key] = _ENCODER.encode(self._tail(resolved, client))[1:]
            lines.append(b'{"time":%.3f,"ms":%.3f,%b\n' % (wall, seconds * 1000, tail))
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


def _cut(address: str) -> str:
    """The network that an address is in: /24 or /48."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return ""
    length = 24 if parsed.version == 4 else 48
    return str(ipaddress.ip_network(f"{address}/{length}", strict=False).network_address)
