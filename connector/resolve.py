"""Names, resolved with the resolver of the private network: this host's own (hosts file, resolv.conf)."""

from __future__ import annotations

import asyncio
import socket

from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason

PATIENCE = 5.0
"""Seconds for one name; the agent's app asks again after as many."""
ADDRESSES = 8
"""Addresses of one name that are tried."""

_ABSENT = {socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME)}


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
