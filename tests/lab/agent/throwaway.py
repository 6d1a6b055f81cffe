"""A function of a test, run in a forked child with network and mount namespaces of its own.

Whatever it does to routes, rules, links or /etc is gone with the child, also when it fails.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from warren.lab.host_init import make_mounts_private

LIMIT_S = 60.0

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000


def in_throwaway_namespace(function: Callable[..., None]) -> Callable[..., None]:
    """Decorate a test: it runs in the child, its failure is the test's failure."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        if os.geteuid() != 0:
            pytest.skip("needs root for network namespaces")
        reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        child = os.fork()
        if child == 0:
            os.close(reader)
            os._exit(_run(function, args, kwargs, writer))
        os.close(writer)
        _await(child, reader)

    return pytest.mark.lab(wrapper)


def _run(function: Callable[..., None], args: Any, kwargs: Any, writer: int) -> int:
    try:
        os.setpgid(0, 0)
        enter_namespaces()
        function(*args, **kwargs)
    except BaseException:
        os.write(writer, traceback.format_exc().encode()[-60_000:])
        return 1
    return 0


def enter_namespaces() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET | _CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    make_mounts_private()
    from pyroute2 import IPRoute

    with IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname="lo")[0], state="up")


def _await(child: int, reader: int) -> None:
    os.set_blocking(reader, False)
    told = bytearray()
    until = time.monotonic() + LIMIT_S
    status = None
    while status is None and time.monotonic() < until:
        with contextlib.suppress(BlockingIOError):
            told += os.read(reader, 65536)
        done, code = os.waitpid(child, os.WNOHANG)
        if done:
            status = code
        else:
            time.sleep(0.01)
    if status is None:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        told += b"took too long"
    with contextlib.suppress(BlockingIOError):
        told += os.read(reader, 65536)
    os.close(reader)
    if status != 0:
        pytest.fail(told.decode(errors="replace") or f"child ended with status {status}", pytrace=False)


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """Poll until the condition is true; its value."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not true within {seconds} s: {condition}")
        time.sleep(0.01)
