"""What a daemon may no longer do once it has opened what needed root: capabilities(7), given up for good.

Called by each daemon when its sockets and devices are open, so that somebody who takes it over gains little, also where
it is run by hand and no unit bounds it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable
from pathlib import Path

NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
}
"""Those that some daemon keeps, by their bits (linux/capability.h)."""
_LAST = 63
"""Bits that a set can have."""
_VERSION_3 = 0x20080522  # linux/capability.h
_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 23, 24, 38, 47  # linux/prctl.h
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def keep_only(names: Iterable[str]) -> None:
    """Gives up every capability but `names`, in this thread and all that it starts, and every way to get one back.

    Call it before other threads are started: the kernel keeps these sets per thread. What the process never had is not
    gained. A kernel that refuses (a sandbox's filter) is logged, and the daemon goes on.
    """
    mask = sum(1 << NUMBERS[name] for name in names)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
    try:
        _prctl(libc, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
        _bound(libc, mask)
        _reduce(libc, mask)
        _prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)
    except OSError as error:
        import structlog  # late: the guardian wants to be small

        structlog.get_logger().warning("capabilities could not be given up", error=error.strerror)


def to_write_in(directory: Path) -> tuple[str, ...]:
    """What root needs to go on writing there: nothing, unless the directory is somebody else's."""
    return () if directory.stat().st_uid == os.geteuid() else ("CAP_DAC_OVERRIDE",)


def _bound(libc: ctypes.CDLL, mask: int) -> None:
    """What no program started from here can have. Needs CAP_SETPCAP: without it, a unit has set a bound already."""
    for bit in range(_LAST + 1):
        if mask >> bit & 1:
            continue
        if libc.prctl(_PR_CAPBSET_READ, bit, 0, 0, 0) != 1:
            continue  # not in the set, or not known to this kernel
        try:
            _prctl(libc, _PR_CAPBSET_DROP, bit)
        except PermissionError:
            return


def _reduce(libc: ctypes.CDLL, mask: int) -> None:
    header = (ctypes.c_uint32 * 2)(_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; low words, then high ones
    _check(libc.capget(header, sets))
    for index in range(6):
        sets[index] &= mask >> 32 * (index // 3) & 0xFFFFFFFF
    sets[2] = sets[5] = 0
    _check(libc.capset(header, sets))


def _prctl(libc: ctypes.CDLL, option: int, argument: int) -> None:
    if libc.prctl(option, argument, 0, 0, 0) != 0 and ctypes.get_errno() != errno.EINVAL:  # EINVAL: an older kernel
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
