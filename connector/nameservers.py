"""The nameservers of this host's resolv.conf, asked as a stub resolver asks: UDP, TCP where the answer was cut.

Used for what getaddrinfo can't ask: every type but A and AAAA, and whether a name without an address is there at all.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from ipaddress import ip_address
from pathlib import Path

from warren.fabric.core import dnsreply, dnswire
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

RESOLV_CONF = Path("/etc/resolv.conf")
SERVERS = 3
"""What the C library reads (MAXNS in resolv.h)."""
ROUNDS, WAIT = 2, 1.0
"""Times that each server is asked, and seconds for one answer."""
PATIENCE = 4.5
"""Seconds for everything: a little less than the agent waits."""
ASKING = 256
"""Questions under way for all devices together: each holds one socket."""
ANSWER_MAX = 32_768
"""Bytes of an answer that is sent on: 32 of them fit what may wait on a control stream."""
DNS_PORT = 53

Server = tuple[str, int]
"""Address and port."""


class Nameservers:
    """One for a connector process."""

    def __init__(self, path: Path = RESOLV_CONF, port: int = DNS_PORT) -> None:
        self._path = path
        self._port = port
        self._asking = 0

    async def ask(self, question: dnswire.Question, only: Server | None = None) -> bytes:
        """The first answer that is one (NOERROR or NXDOMAIN), or the last failure that a server told.

        `only`: this server is asked instead of those in resolv.conf.

        Raises DeniedError: RESOLVER_FAILED (nobody answers, or too much), LIMIT.
        """
        if self._asking >= ASKING:
            raise DeniedError(Reason.LIMIT, "questions to the private resolver")
        self._asking += 1
        try:
            async with asyncio.timeout(PATIENCE):
                answer = await self._round(question, only)
        except TimeoutError:
            answer = b""
        finally:
            self._asking -= 1
        if not answer:
            raise DeniedError(Reason.RESOLVER_FAILED, question.text)
        if len(answer) > ANSWER_MAX:
            raise DeniedError(Reason.RESOLVER_FAILED, f"an answer of {len(answer)} bytes, {ANSWER_MAX} are carried")
        return answer

    async def _round(self, question: dnswire.Question, only: Server | None) -> bytes:
        failure = b""
        for _ in range(ROUNDS):
            asked = (only,) if only is not None else tuple((server, self._port) for server in servers(self._path))
            for server in asked:
                try:
                    async with asyncio.timeout(WAIT):
                        answer = await self._asked(server, question)
                except (OSError, TimeoutError, asyncio.IncompleteReadError):
                    continue
                if answer[3] & 15 in (dnswire.NOERROR, dnswire.NXDOMAIN):
                    return answer
                failure = answer
            if failure:
                break
        return failure

    async def _asked(self, server: Server, question: dnswire.Question) -> bytes:
        query = dnswire.build_query(secrets.randbelow(1 << 16), question.raw, question.type)
        answer = await self._by_udp(server, query, question)
        if answer[2] << 8 & dnswire.TC:
            answer = await self._by_tcp(server, query, question)
        return answer

    async def _by_udp(self, server: Server, query: bytes, question: dnswire.Question) -> bytes:
        loop = asyncio.get_running_loop()
        with socket.socket(_family(server[0]), socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, server)
            await loop.sock_sendall(sock, query)
            while True:
                answer = await loop.sock_recv(sock, dnswire.TCP_MAX)
                if _answers(answer, query, question):
                    return answer

    async def _by_tcp(self, server: Server, query: bytes, question: dnswire.Question) -> bytes:
        reader, writer = await asyncio.open_connection(*server, limit=dnswire.TCP_MAX + 1)
        try:
            writer.write(len(query).to_bytes(2, "big") + query)
            answer = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        finally:
            writer.close()
        if not _answers(answer, query, question):
            raise OSError("an answer to something else")
        return answer


def servers(path: Path) -> tuple[str, ...]:
    """As resolv.conf(5): read anew for each question, so that a change of network counts at once; none: the host."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    found = []
    for line in lines:
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                ip_address(words[1])
            except ValueError:
                continue
            found.append(words[1])
    return tuple(found[:SERVERS]) or ("127.0.0.1",)


def _family(server: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in server else socket.AF_INET


def _answers(answer: bytes, query: bytes, question: dnswire.Question) -> bool:
    """Whether it is the answer to that query: same id, name and type (RFC 5452, section 9.1)."""
    if answer[:2] != query[:2]:
        return False
    reply = dnsreply.read_reply(answer)
    if reply is None:  # cut in the middle of a record, where a server cuts so
        return len(answer) >= dnswire.HEADER and bool(answer[2] << 8 & dnswire.TC) and bool(answer[2] & 0x80)
    return reply.name == question.name and reply.type == question.type
