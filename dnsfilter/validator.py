"""DNSSEC by libunbound (Debian's libunbound8): it asks our upstreams, walks the chain of trust and says what is bogus.

The library's own thread does the work; its descriptor becomes readable when an answer is there (`_process`), so that
nothing here waits. Only what unbound.h promises is used; the layout of `ub_result` is that of versions 1.4.20 to today.
"""

from __future__ import annotations

import asyncio
import ctypes
import ctypes.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from warren.dnsfilter.core.config import Upstream
from warren.fabric.core import dnswire as wire
from warren.fabric.core.errors import ConfigError

SYSTEM_ANCHORS: Final = ("/usr/share/dns/root.key", "/var/lib/unbound/root.key", "/etc/unbound/root.key")
"""Debian's dns-root-data, and what unbound-anchor keeps."""
_OPTIONS: Final = {
    "module-config:": "validator iterator",
    "use-caps-for-id:": "yes",
    "do-not-query-localhost:": "no",
    "edns-buffer-size:": str(wire.UDP_MAX),
    "msg-cache-size:": "1m",  # answers are kept by ours
    "rrset-cache-size:": "4m",
    "key-cache-size:": "1m",
    "neg-cache-size:": "1m",
    "outgoing-range:": "512",
    "num-queries-per-thread:": "1024",
    "val-log-level:": "0",
}
_NO_LOG: Final = 0

log = structlog.get_logger()


class _Result(ctypes.Structure):
    """struct ub_result."""

    _fields_ = (
        ("qname", ctypes.c_char_p),
        ("qtype", ctypes.c_int),
        ("qclass", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("len", ctypes.c_void_p),
        ("canonname", ctypes.c_char_p),
        ("rcode", ctypes.c_int),
        ("answer_packet", ctypes.c_void_p),
        ("answer_len", ctypes.c_int),
        ("havedata", ctypes.c_int),
        ("nxdomain", ctypes.c_int),
        ("secure", ctypes.c_int),
        ("bogus", ctypes.c_int),
        ("why_bogus", ctypes.c_char_p),
    )


_Callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Result))


class Validated(msgspec.Struct, frozen=True, gc=False):
    """What the library says."""

    message: bytes
    """The answer, with all signatures in it; empty: it had none."""
    secure: bool
    bogus: str = ""
    """Why it must not be believed."""


def available() -> bool:
    """Whether the library is installed."""
    return _library() is not None


class Validator:
    """One context of the library: one group of upstreams."""

    def __init__(
        self, upstreams: Sequence[Upstream], anchors: Sequence[str], insecure: Iterable[str], ca: str = ""
    ) -> None:
        """`anchors`: files; none: the system's for the root. `insecure`: zones. `ca`: a PEM file for upstreams over
        TLS. ConfigError: no library, no anchor, or an upstream that it can't ask."""
        library = _library()
        if library is None:
            raise ConfigError("dnssec: libunbound is not installed; install libunbound8, or take another mode")
        self._lib = library
        self._ctx = ctypes.c_void_p(library.ub_ctx_create())
        self._number = 0
        self._waiting: dict[int, asyncio.Future[Validated]] = {}
        self._callback = _Callback(self._answered)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._set_up(upstreams, anchors or _system_anchors(), insecure, ca)

    async def ask(self, name: bytes, kind: int) -> Validated:
        """Ask and validate. OSError: the library could not. `name`: wire name."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
            self._loop.add_reader(self._lib.ub_fd(self._ctx), self._process)
        self._number += 1
        number, ident = self._number, ctypes.c_int()
        answer: asyncio.Future[Validated] = self._loop.create_future()
        self._waiting[number] = answer
        try:
            self._check(
                self._lib.ub_resolve_async(
                    self._ctx,
                    _full(name),
                    kind,
                    wire.IN,
                    ctypes.c_void_p(number),
                    self._callback,
                    ctypes.byref(ident),
                )
            )
            return await answer
        except asyncio.CancelledError:
            self._lib.ub_cancel(self._ctx, ident)
            raise
        finally:
            self._waiting.pop(number, None)

    def close(self) -> None:
        """End it, with its thread."""
        if self._loop is not None:
            self._loop.remove_reader(self._lib.ub_fd(self._ctx))
            self._loop = None
        if self._ctx:
            self._lib.ub_ctx_delete(self._ctx)
            self._ctx = ctypes.c_void_p()

    def _set_up(self, upstreams: Sequence[Upstream], anchors: Sequence[str], insecure: Iterable[str], ca: str) -> None:
        lib, tls = self._lib, {bool(upstream.tls_name) for upstream in upstreams}
        if len(tls) > 1 or any(upstream.path for upstream in upstreams):
            raise ConfigError(
                "dnssec: libunbound asks upstreams either all in the clear or all over tls://; change the group, or "
                "take the mode upstream"
            )
        lib.ub_ctx_debuglevel(self._ctx, _NO_LOG)
        self._check(lib.ub_ctx_async(self._ctx, 1))
        options = [*_OPTIONS.items(), *(("domain-insecure:", zone) for zone in insecure)]
        if tls == {True}:
            self._check(lib.ub_ctx_set_tls(self._ctx, 1))
            options.append(("tls-cert-bundle:", ca or "/etc/ssl/certs/ca-certificates.crt"))
        for key, value in options:
            if lib.ub_ctx_set_option(self._ctx, key.encode(), value.encode()) and key == "domain-insecure:":
                raise ConfigError(f"dnssec: libunbound does not take {value!r} as a zone")
        for upstream in upstreams:
            name = f"#{upstream.tls_name}" if upstream.tls_name else ""
            self._check(lib.ub_ctx_set_fwd(self._ctx, f"{upstream.host}@{upstream.port}{name}".encode()))
        for anchor in anchors:
            if not Path(anchor).is_file() or lib.ub_ctx_add_ta_file(self._ctx, anchor.encode()):
                raise ConfigError(f"dnssec: {anchor}: no file with trust anchors; give DS or DNSKEY records")

    def _process(self) -> None:
        error = self._lib.ub_process(self._ctx)
        if error:
            log.warning("libunbound failed", error=self._lib.ub_strerror(error).decode())

    def _answered(self, number: int | None, error: int, result: Any) -> None:
        """The library's callback: within `ub_process`, so on the event loop."""
        answer = self._waiting.get(number or 0)
        try:
            if answer is None or answer.done():
                return
            if error:
                answer.set_exception(OSError(self._lib.ub_strerror(error).decode()))
                return
            said = result.contents
            message = ctypes.string_at(said.answer_packet, said.answer_len) if said.answer_packet else b""
            why = (said.why_bogus or b"it does not validate").decode("utf-8", "replace") if said.bogus else ""
            answer.set_result(Validated(message, bool(said.secure), why))
        finally:
            if result:
                self._lib.ub_resolve_free(result)

    def _check(self, error: int) -> None:
        if error:
            raise OSError(f"libunbound: {self._lib.ub_strerror(error).decode()}")


def _full(name: bytes) -> bytes:
    """With the final dot, so that nothing is put behind it."""
    return wire.name_text(name).encode() + (b"." if len(name) > 1 else b"")


def _system_anchors() -> Sequence[str]:
    for path in SYSTEM_ANCHORS:
        if Path(path).is_file():
            return (path,)
    raise ConfigError("dnssec: no trust anchor of the root; install dns-root-data, or name a file in dnssec.anchors")


def _library() -> Any:
    """The library with the types of its functions, or None."""
    try:
        library = ctypes.CDLL("libunbound.so.8")
    except OSError:
        return None
    context = ctypes.c_void_p
    for name, arguments in {
        "ub_ctx_set_fwd": [context, ctypes.c_char_p],
        "ub_ctx_set_tls": [context, ctypes.c_int],
        "ub_ctx_set_option": [context, ctypes.c_char_p, ctypes.c_char_p],
        "ub_ctx_add_ta_file": [context, ctypes.c_char_p],
        "ub_ctx_async": [context, ctypes.c_int],
        "ub_ctx_debuglevel": [context, ctypes.c_int],
        "ub_fd": [context],
        "ub_process": [context],
        "ub_cancel": [context, ctypes.c_int],
        "ub_ctx_delete": [context],
        "ub_resolve_free": [ctypes.POINTER(_Result)],
        "ub_strerror": [ctypes.c_int],
        "ub_resolve_async": [
            context,
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_int,
            ctypes.c_void_p,
            _Callback,
            ctypes.POINTER(ctypes.c_int),
        ],
    }.items():
        getattr(library, name).argtypes = arguments
    library.ub_ctx_create.restype = ctypes.c_void_p
    library.ub_strerror.restype = ctypes.c_char_p
    library.ub_ctx_delete.restype = None
    library.ub_resolve_free.restype = None
    return library
