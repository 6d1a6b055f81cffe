"""Brings this device in: its key is made here, the edge learns the public half with the enrolment key's secret."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from warren.agent.config import Device, save_device
from warren.fabric.aio.call import Call
from warren.fabric.aio.lookup import edge_address
from warren.fabric.core.engine import ClientConfig, Engine
from warren.fabric.core.errors import ConfigError, DeniedError
from warren.fabric.core.link import LinkClosed, LinkEvent, LinkReady
from warren.fabric.core.reasons import TLS_ALERTS, Reason
from warren.fabric.core.session import Enrolment, EnrolmentDone, SessionRefused
from warren.fabric.identity import certificates, keys, proof, statements, tokens

ALPN = "warren-attach/1"
PATIENCE = 10.0
"""Seconds for one edge; then the next is tried."""


async def enrol(engine: Engine, text: str, state: Path, *, force: bool = False) -> Device:
    """Enrols with the enrolment key `text` and writes the state directory.

    Raises ConfigError (a bad key, already enrolled, no edge answers), DeniedError (the edge refuses).
    """
    key = tokens.parse_enrolment_key(text)
    if key.expires < time.time():
        raise ConfigError("the enrolment key has expired: make a new one with `warren device add NAME`")
    if (state / "device.json").exists() and not force:
        raise ConfigError(f"this device is enrolled already ({state}): use --force to enrol it anew")
    device_key = keys.generate()
    failures = []
    for edge in key.edges().edges:
        try:
            done = await _ask(engine, key, edge, device_key)
        except (TimeoutError, OSError, ConnectionError) as error:
            failures.append(f"{edge}: {_words(error)}")
            continue
        device = Device(done.device, done.name, device_key, key.network, key.edges())
        save_device(state, device, key.signed_edges)
        return device
    raise ConfigError(f"no edge answers ({'; '.join(failures)}): is UDP to it open, and does it run?")


async def _ask(
    engine: Engine, key: tokens.EnrolmentKey, edge: statements.Edge, device_key: Ed25519PrivateKey
) -> EnrolmentDone:
    answer: asyncio.Future[EnrolmentDone] = asyncio.get_running_loop().create_future()
    config = ClientConfig(ALPN, edge.server_name, certificates.pem(key.network))
    address = await edge_address(edge)

    def sign(label: bytes, challenge: bytes, leaf: bytes) -> bytes:
        return proof.sign(device_key, label, challenge, leaf)

    def handle(event: LinkEvent) -> None:
        match event:
            case LinkReady():
                enrolment.start(event, key.secret, keys.public(device_key), sign, socket.gethostname())
            case LinkClosed(code, reason, _) if not answer.done():
                answer.set_exception(_closed(code, reason))

    def drain() -> bool:
        busy = False
        while (event := enrolment.poll_event()) is not None:
            busy = True
            if answer.done():
                continue
            match event:
                case EnrolmentDone():
                    answer.set_result(event)
                case SessionRefused(reason, detail):
                    answer.set_exception(DeniedError(reason, detail))
        return busy

    call = Call(engine, config, address, handle, drain)
    enrolment = Enrolment(call.link)
    call.start()
    try:
        async with asyncio.timeout(PATIENCE):
            return await answer
    finally:
        call.close(Reason.CANCELLED)


def _words(error: Exception) -> str:
    """What the person reads; a time-out has no text of its own."""
    return getattr(error, "strerror", None) or str(error) or "no answer"


def _closed(code: int, reason: str) -> Exception:
    if code in TLS_ALERTS:  # a TLS alert: it answers, and is not who it should be
        return ConfigError(f"the edge's certificate is not of this network ({reason}): is the enrolment key for it?")
    return ConnectionError(reason or "the edge closed the connection")
