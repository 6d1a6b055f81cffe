"""TLS 1.3 on TCP with the certificates that QUIC connections have: verified against one root, by one name."""

from __future__ import annotations

import os
import socket
import ssl

from warren.fabric.core.engine import ClientConfig, ServerConfig

HANDSHAKE_TIME = 10.0
"""Seconds."""
KEEP_ALIVE = (60, 15, 4)
"""Idle seconds, seconds between probes, probes: a host that vanished is noticed after two minutes."""


def client_context(config: ClientConfig) -> ssl.SSLContext:
    """Of `config` only ALPN and root; the name is given when connecting."""
    context = _context(ssl.PROTOCOL_TLS_CLIENT, (config.alpn,))
    context.load_verify_locations(cadata=config.root.decode())
    return context


def server_context(config: ServerConfig) -> ssl.SSLContext:
    """Shows what the QUIC endpoint shows."""
    context = _context(ssl.PROTOCOL_TLS_SERVER, config.alpn)
    descriptor = os.memfd_create("warren-tls")  # OpenSSL takes files only: this one never has a name
    try:
        os.write(descriptor, config.chain + config.key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


def keep_alive(sock: socket.socket) -> None:
    """Lets the kernel find out when the other host is gone."""
    idle, interval, count = KEEP_ALIVE
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, idle)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, interval)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, count)


def _context(kind: ssl._SSLMethod, alpn: tuple[str, ...]) -> ssl.SSLContext:
    context = ssl.SSLContext(kind)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(list(alpn))
    context.options |= ssl.OP_NO_COMPRESSION
    return context
