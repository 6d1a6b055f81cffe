"""A TUN device: super-packets in and out.

With IFF_VNET_HDR and TCP segmentation offload the kernel hands over, and takes, TCP packets of up to 64 KiB with a
10-byte virtio-net header in front; checksums stay partial on the way through. What is read from one such device may be
written to another unchanged. Source: Documentation/networking/tuntap.rst, linux/if_tun.h, linux/virtio_net.h.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import struct
from pathlib import Path
from typing import Self

from warren.agent.capture.headers import VNET_HEADER
from warren.fabric.core.errors import ConfigError

MAX_PACKET = VNET_HEADER + 65_536
"""Bytes of the largest super-packet with its vnet header (`gso_max_size` of a TUN device)."""

_DEVICE = "/dev/net/tun"
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_OFFLOAD_CHECKSUM, _OFFLOAD_TSO4, _OFFLOAD_TSO6 = 1, 2, 4
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _SIOCSIFMTU = 0x8913, 0x8914, 0x8922
_IFF_UP, _IFF_MULTICAST = 0x0001, 0x1000
_MAX_NAME = 15  # IFNAMSIZ without the closing zero

_REMEDY = {
    errno.ENOENT: f"{_DEVICE} is missing: load the module (modprobe tun) or pass the device into the container",
    errno.ENODEV: f"the kernel has no TUN driver behind {_DEVICE}: load the module (modprobe tun)",
    errno.EACCES: f"no permission to open {_DEVICE}: run as root",
    errno.EPERM: "no permission to make a TUN device: run as root, or with CAP_NET_ADMIN",
    errno.EBUSY: "a TUN device of that name is in use: stop the other agent, or choose another interface name",
}


class Tun:
    """One TUN device in the network namespace of the thread that opens it; it vanishes when it is closed.

    `fd` is non-blocking; one `readv` gives one packet with its vnet header.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd

    @classmethod
    def open(cls, name: str, mtu: int) -> Self:
        """Make the device and bring it up, without addresses, multicast or IPv6 autoconfiguration. `ConfigError`."""
        if not 0 < len(name.encode()) <= _MAX_NAME:
            raise ConfigError(f"interface name {name!r} is too long: 1 to {_MAX_NAME} bytes")
        fd = -1
        try:
            fd = os.open(_DEVICE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
            fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))
            fcntl.ioctl(fd, _TUNSETOFFLOAD, _OFFLOAD_CHECKSUM | _OFFLOAD_TSO4 | _OFFLOAD_TSO6)
            _bring_up(name, mtu)
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            remedy = _REMEDY.get(error.errno or 0, f"can't make TUN device {name}: {error.strerror}")
            raise ConfigError(remedy) from error
        return cls(name, fd)

    def write(self, packet: memoryview | bytes) -> bool:
        """Give one packet, vnet header in front, to the kernel; False if it did not take it (full, or not valid)."""
        try:
            os.write(self.fd, packet)
        except OSError:
            return False
        return True

    def set_mtu(self, mtu: int) -> None:
        """OSError if the kernel refuses."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", self.name.encode(), mtu))

    def close(self) -> None:
        """Remove the device, with its addresses and routes."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def _bring_up(name: str, mtu: int) -> None:
    generate_mode = Path(f"/proc/sys/net/ipv6/conf/{name}/addr_gen_mode")
    with contextlib.suppress(OSError):  # no IPv6, or a read-only /proc/sys: what IPv6 then sends is dropped and counted
        generate_mode.write_text("1")  # none: no link-local address, hence no router solicitations into the device
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFMTU, struct.pack("16si20x", name.encode(), mtu))
        answer = fcntl.ioctl(control, _SIOCGIFFLAGS, struct.pack("16sH22x", name.encode(), 0))
        (flags,) = struct.unpack_from("H", answer, 16)
        flags = flags & ~_IFF_MULTICAST | _IFF_UP
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", name.encode(), flags))
