"""Names, resolved with the resolver of the private network: this host's own.

Addresses come from getaddrinfo, so that the hosts file and whatever nsswitch.conf names count, as for every program of
this host. What getaddrinfo can't tell is asked of the nameservers in resolv.conf: all other types, and whether a name
without addresses exists (NXDOMAIN has to stay NXDOMAIN, and no data has to stay no data).
"""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import ip_address

from warren.connector.nameservers import Nameservers
from warren.fabric.core import dnswire
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

PATIENCE = 5.0
"""Seconds for one name; the agent's app asks again after as many."""
ADDRESSES = 8
"""Addresses of one name that are tried."""
TTL = 30
"""Seconds, of addresses: getaddrinfo does not say how long they hold."""

_ABSENT = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


def take_names_as_they_are() -> None:
    """Turns the `search` list off for this process, before its first look-up (resolv.conf(5), LOCALDOMAIN).

    A grant is for one name: another one, that a suffix made of it, must be neither dialled nor hide that the first is
    not there. musl has no such switch.
    """
    os.environ["LOCALDOMAIN"] = "."


async def addresses(host: str, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[str]:
    """The addresses of `host`, in the order in which this host's resolver would try them.

    Raises DeniedError: NO_SUCH_NAME, RESOLVER_FAILED.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(PATIENCE):
            found = await loop.getaddrinfo(host, None, family=family, type=socket.SOCK_STREAM)
    except TimeoutError:
        raise DeniedError(Reason.RESOLVER_FAILED, host) from None
    except socket.gaierror as error:
        absent = error.errno in _ABSENT
        raise DeniedError(Reason.NO_SUCH_NAME if absent else Reason.RESOLVER_FAILED, host) from None
    except UnicodeError:
        raise DeniedError(Reason.NO_SUCH_NAME, host) from None
    unique = dict.fromkeys(str(entry[4][0]) for entry in found)
    return list(unique)[:ADDRESSES]


async def answer(question: dnswire.Question, nameservers: Nameservers) -> bytes:
    """A whole DNS message. Raises DeniedError: RESOLVER_FAILED, NO_SUCH_NAME (where no nameserver can be asked)."""
    if question.type not in (dnswire.A, dnswire.AAAA):
        return await nameservers.ask(question)
    try:
        found = await addresses(question.text)
    except DeniedError as error:
        if error.reason is not Reason.NO_SUCH_NAME:
            raise
    else:
        packed = [ip_address(text.partition("%")[0]).packed for text in found]
        return dnswire.answer_addresses(question, packed, TTL)
    try:
        return await nameservers.ask(question)
    except DeniedError:
        raise DeniedError(Reason.NO_SUCH_NAME, question.text) from None
