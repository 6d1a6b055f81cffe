"""A small authoritative name server for the lab: the names it is given, and NXDOMAIN for all others.

python -m warren.lab.nameserver --listen 10.10.0.53 payroll.internal=10.10.0.10 db.internal=10.10.0.20
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Mapping
from typing import Any

from dnslib import QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSLogger, DNSServer

TTL = 60  # seconds


class Names(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    """A records by name; an empty answer for other types of a known name."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        self._addresses = {name.rstrip(".").lower(): address for name, address in addresses.items()}

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        reply = request.reply(ra=0)
        address = self._addresses.get(str(request.q.qname).rstrip(".").lower())
        if address is None:
            reply.header.rcode = RCODE.NXDOMAIN
        elif request.q.qtype in (QTYPE.A, QTYPE.ANY):
            reply.add_answer(RR(request.q.qname, QTYPE.A, ttl=TTL, rdata=A(address)))
        return reply


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m warren.lab.nameserver", description="Answers the names it is given."
    )
    parser.add_argument("--listen", required=True, metavar="ADDRESS", help="address to answer on, UDP and TCP port 53")
    parser.add_argument("names", nargs="+", metavar="NAME=ADDRESS")
    given = parser.parse_args()
    names = Names(dict(pair.split("=", 1) for pair in given.names))
    logger = DNSLogger("request,reply")
    for tcp in (False, True):
        DNSServer(names, address=given.listen, port=53, tcp=tcp, logger=logger).start_thread()
    print(f"answering on {given.listen}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
