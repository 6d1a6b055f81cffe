"""A small authoritative name server for the lab: the names it is given, and NXDOMAIN for all others.

python -m warren.lab.nameserver --listen 10.10.0.53 --zone FILE payroll.internal=10.10.0.10 db.internal=10.10.0.20

`--zone` has records of any type, one in a line as in a zone file (RFC 1035, section 5), unknown ones as in RFC 3597.
"""

from __future__ import annotations

import argparse
import socket
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dnslib import AAAA, QTYPE, RCODE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer, TCPServer, UDPServer

TTL = 60  # seconds
UDP_LIMIT = 1232  # bytes of an answer over UDP; longer ones are cut (TC)
CHAIN = 8  # CNAMEs followed


class Names(BaseResolver):  # type: ignore[misc]  # dnslib has no types
    """Records by name; an empty answer for other types of a known name, and for names between known ones."""

    def __init__(self, addresses: Mapping[str, str], zone: str = "") -> None:
        self._records: dict[str, list[RR]] = {}
        given = [_address(name, address) for name, address in addresses.items()]
        for record in [*given, *RR.fromZone(zone)]:
            self._records.setdefault(_key(record.rname), []).append(record)
        self._between = {parent for name in self._records for parent in _parents(name)}

    def resolve(self, request: DNSRecord, handler: Any) -> DNSRecord:
        reply = request.reply(ra=0)
        name = _key(request.q.qname)
        for _ in range(CHAIN):
            known = self._records.get(name, ())
            found = [record for record in known if request.q.qtype in (record.rtype, QTYPE.ANY)]
            aliases = [record for record in known if record.rtype == QTYPE.CNAME and not found]
            reply.add_answer(*found, *aliases)
            if not aliases:
                break
            name = _key(aliases[0].rdata.label)
        if name not in self._records and name not in self._between:
            reply.header.rcode = RCODE.NXDOMAIN
        return reply


class Cutting(DNSHandler):  # type: ignore[misc]  # dnslib has no types
    """Sets TC on long answers over UDP."""

    udplen = UDP_LIMIT


def _address(name: str, address: str) -> RR:
    if ":" in address:
        return RR(name, QTYPE.AAAA, ttl=TTL, rdata=AAAA(address))
    return RR(name, QTYPE.A, ttl=TTL, rdata=A(address))


def _key(name: Any) -> str:
    return str(name).rstrip(".").lower()


def _parents(name: str) -> Iterable[str]:
    while name := name.partition(".")[2]:
        yield name


def _server_kind(tcp: bool) -> Any:
    base: Any = TCPServer if tcp else UDPServer
    return type("Six", (base,), {"address_family": socket.AF_INET6})


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m warren.lab.nameserver", description="Answers the names it is given."
    )
    parser.add_argument("--listen", required=True, metavar="ADDRESS", help="address to answer on, UDP and TCP port 53")
    parser.add_argument("--zone", type=Path, metavar="FILE", help="more records, as in a zone file")
    parser.add_argument("names", nargs="+", metavar="NAME=ADDRESS")
    given = parser.parse_args()
    names = Names(dict(pair.split("=", 1) for pair in given.names), given.zone.read_text() if given.zone else "")
    logger = DNSLogger("request,reply")
    for tcp in (False, True):
        kind = _server_kind(tcp) if ":" in given.listen else None
        DNSServer(
            names, address=given.listen, port=53, tcp=tcp, logger=logger, handler=Cutting, server=kind
        ).start_thread()
    print(f"answering on {given.listen}", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
