"""Plays systemd-resolved on a host where systemd can't run: its D-Bus interface, and its stub on 127.0.0.53.

Run in a lab's host: `python resolved_peer.py UPLINK CALLS`. UPLINK is the nameserver of link 1; each call
that changes something is a JSON line in CALLS. A query goes to the link with the longest domain that holds the name,
else to the uplink; `.local` is multicast DNS's, unless a link has a domain that holds the name.
"""

import asyncio
import json
import socket
import sys
from pathlib import Path
from typing import Annotated, Any

from dbus_fast import BusType, DBusError
from dbus_fast.aio import MessageBus
from dbus_fast.annotations import DBusBool, DBusInt32, DBusSignature, DBusStr
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_method, dbus_property
from dnslib import RCODE, DNSRecord

Servers = Annotated[list[list[Any]], DBusSignature("a(iay)")]
ServersOfLinks = Annotated[list[list[Any]], DBusSignature("a(iiay)")]
Domains = Annotated[list[list[Any]], DBusSignature("a(sb)")]

STUB = "127.0.0.53"
UPLINK = 1
PATIENCE = 5.0


class Manager(ServiceInterface):
    def __init__(self, uplink: str, calls: Path) -> None:
        super().__init__("org.freedesktop.resolve1.Manager")
        self.servers: dict[int, list[str]] = {UPLINK: [uplink]}
        self.domains: dict[int, list[str]] = {}
        self._calls = calls

    def _called(self, member: str, index: int, *words: Any) -> None:
        if member != "RevertLink":
            try:
                socket.if_indextoname(index)
            except OSError:
                raise DBusError("org.freedesktop.resolve1.NoSuchLink", f"Link {index} not known") from None
        with self._calls.open("a") as file:
            file.write(json.dumps([member, *words]) + "\n")

    @dbus_property(access=PropertyAccess.READ)
    def DNS(self) -> ServersOfLinks:
        return [
            [index, socket.AF_INET, socket.inet_aton(server)]
            for index, servers in self.servers.items()
            for server in servers
        ]

    @dbus_property(access=PropertyAccess.READ)
    def FallbackDNS(self) -> ServersOfLinks:
        return []

    @dbus_method()
    def SetLinkDNS(self, index: DBusInt32, addresses: Servers) -> None:
        self.servers[index] = [socket.inet_ntoa(bytes(packed)) for _, packed in addresses]
        self._called("SetLinkDNS", index, self.servers[index])

    @dbus_method()
    def SetLinkDomains(self, index: DBusInt32, domains: Domains) -> None:
        assert all(routing for _, routing in domains)
        self.domains[index] = [name for name, _ in domains]
        self._called("SetLinkDomains", index, self.domains[index])

    @dbus_method()
    def SetLinkDefaultRoute(self, index: DBusInt32, enable: DBusBool) -> None:
        self._called("SetLinkDefaultRoute", index, enable)

    @dbus_method()
    def SetLinkLLMNR(self, index: DBusInt32, mode: DBusStr) -> None:
        self._called("SetLinkLLMNR", index, mode)

    @dbus_method()
    def SetLinkMulticastDNS(self, index: DBusInt32, mode: DBusStr) -> None:
        self._called("SetLinkMulticastDNS", index, mode)

    @dbus_method()
    def SetLinkDNSOverTLS(self, index: DBusInt32, mode: DBusStr) -> None:
        self._called("SetLinkDNSOverTLS", index, mode)

    @dbus_method()
    def SetLinkDNSSEC(self, index: DBusInt32, mode: DBusStr) -> None:
        self._called("SetLinkDNSSEC", index, mode)

    @dbus_method()
    def RevertLink(self, index: DBusInt32) -> None:
        self.servers.pop(index, None)
        self.domains.pop(index, None)
        self._called("RevertLink", index)

    @dbus_method()
    def FlushCaches(self) -> None:
        pass

    def server_for(self, name: str) -> str | None:
        """Whom the stub asks; None: nobody."""
        held = [
            (len(domain), index)
            for index, domains in self.domains.items()
            for domain in domains
            if name == domain or name.endswith(f".{domain}") or domain == "."
        ]
        if held:
            return self.servers[max(held)[1]][0]
        return None if name.endswith(".local") else self.servers[UPLINK][0]


class Stub(asyncio.DatagramProtocol):
    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: Any) -> None:
        task = asyncio.create_task(self._answer(data, address))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, address: Any) -> None:
        query = DNSRecord.parse(data)
        server = self._manager.server_for(str(query.q.qname).rstrip("."))
        if server is None:
            reply = query.reply()
            reply.header.rcode = RCODE.NXDOMAIN
            self._transport.sendto(reply.pack(), address)
            return
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)
            sock.connect((server, 53))
            await loop.sock_sendall(sock, data)
            async with asyncio.timeout(PATIENCE):
                self._transport.sendto(await loop.sock_recv(sock, 65_535), address)


async def main(uplink: str, calls: Path) -> None:
    bus = await MessageBus(bus_type=BusType.SYSTEM).connect()
    manager = Manager(uplink, calls)
    bus.export("/org/freedesktop/resolve1", manager)
    await bus.request_name("org.freedesktop.resolve1")
    loop = asyncio.get_running_loop()
    await loop.create_datagram_endpoint(lambda: Stub(manager), local_addr=(STUB, 53))
    sys.stdout.write("resolving\n")
    sys.stdout.flush()
    await bus.wait_for_disconnect()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
