"""Datagrams in batches: one system call takes what has come, one sends what is answered (recvmmsg(2), sendmmsg(2)).

Python's own `recvfrom` and `sendto` cost 1.4 µs more for each query with its answer, of 4.9. All that the kernel reads
and writes is laid out once: room for datagrams, for the addresses that they came from, and for an answer to each.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from typing import Final

_LIBC: Final = ctypes.CDLL(None)
_RECEIVE: Final = _LIBC.recvmmsg
_RECEIVE.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_SEND: Final = _LIBC.sendmmsg
_SEND.argtypes = _RECEIVE.argtypes[:4]


class _Part(ctypes.Structure):
    """struct iovec. A size_t, as a pointer, is an unsigned long on Linux."""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    """struct msghdr."""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("parts", ctypes.c_void_p),
        ("parts_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):
    """struct mmsghdr: with how many bytes were received."""

    _fields_ = (("header", _Header), ("received", ctypes.c_uint))


_NAME: Final = ctypes.sizeof(_Message) // ctypes.sizeof(ctypes.c_size_t)
"""Words from one message's `name`, its first, to the next one's."""
_RECEIVED, _RECEIVED_STEP = _Message.received.offset // 4, ctypes.sizeof(_Message) // 4

Source = tuple[str, int] | tuple[str, int, int, int]
"""An address as `socket.sendto` takes it."""


class Datagrams:
    """A bound socket that does not block."""

    def __init__(self, bound: socket.socket, count: int, room: int, answer_room: int) -> None:
        """`count` datagrams at once, the first `room` bytes of each; answers of at most `answer_room` bytes."""
        self._fd = bound.fileno()
        self._family = bound.family
        self._count, self._room, self.answer_room = count, room, answer_room
        self._name_size = 16 if bound.family == socket.AF_INET else 28  # struct sockaddr_in, sockaddr_in6
        self._names = bytearray(count * self._name_size)
        self._names_at = _place(self._names)
        self._in, self._out = bytearray(count * room), bytearray(count * answer_room)
        self._in_messages, in_parts = self._laid_out(self._in, room)
        self._out_messages, self._out_parts = self._laid_out(self._out, answer_room)
        self._kept = in_parts  # the kernel's, by address
        self._in_at = ctypes.addressof(self._in_messages)
        self._out_at = ctypes.addressof(self._out_messages)
        self._received = memoryview(self._in_messages).cast("B").cast("I")
        self._to = memoryview(self._out_messages).cast("B").cast("L")
        self._lengths = memoryview(self._out_parts).cast("B").cast("L")
        self._waiting = 0

    def receive(self) -> list[bytes]:
        """What has come, at most `count`; empty: nothing, or an ICMP error about an earlier answer."""
        got = _RECEIVE(self._fd, self._in_at, self._count, socket.MSG_DONTWAIT, None)
        data, room, sizes = self._in, self._room, self._received
        return [
            bytes(data[at * room : at * room + sizes[at * _RECEIVED_STEP + _RECEIVED]]) for at in range(max(got, 0))
        ]

    def host(self, number: int) -> bytes:
        """The address of the host that the datagram of that number came from: the same bytes for the same host."""
        at = number * self._name_size
        return bytes(self._names[at + 4 : at + 8] if self._name_size == 16 else self._names[at + 8 : at + 28])

    def source(self, number: int) -> Source:
        """Where it came from, for an answer that is not sent with the others."""
        name = bytes(self._names[number * self._name_size : (number + 1) * self._name_size])
        port = int.from_bytes(name[2:4], "big")
        if self._name_size == 16:
            return socket.inet_ntop(self._family, name[4:8]), port
        scope = int.from_bytes(name[24:28], sys.byteorder)
        return socket.inet_ntop(self._family, name[8:24]), port, 0, scope

    def answer(self, number: int, message: bytes) -> None:
        """Have it sent, with the others, to where the datagram of that number came from; one answer each."""
        waiting, size = self._waiting, len(message)
        at = waiting * self.answer_room
        self._out[at : at + size] = message
        self._lengths[2 * waiting + 1] = size
        self._to[waiting * _NAME] = self._names_at + number * self._name_size
        self._waiting = waiting + 1

    def send(self) -> int:
        """Send them; how many the socket did not take."""
        at, waiting, unsent, self._waiting = 0, self._waiting, 0, 0
        while at < waiting:
            address = self._out_at + at * ctypes.sizeof(_Message)
            sent = _SEND(self._fd, address, waiting - at, socket.MSG_DONTWAIT)
            if sent <= 0:  # it is the first of them that can't be sent
                sent, unsent = 1, unsent + 1
            at += sent
        return unsent

    def _laid_out(self, data: bytearray, room: int) -> tuple[ctypes.Array[_Message], ctypes.Array[_Part]]:
        messages, parts = (_Message * self._count)(), (_Part * self._count)()
        data_at, parts_at = _place(data), ctypes.addressof(parts)
        for number in range(self._count):
            parts[number].base, parts[number].length = data_at + number * room, room
            message = messages[number].header
            message.name, message.name_length = self._names_at + number * self._name_size, self._name_size
            message.parts, message.parts_count = parts_at + number * ctypes.sizeof(_Part), 1
        return messages, parts


def _place(data: bytearray) -> int:
    """Its address, which holds for as long as it does: it cannot be resized from now on."""
    return ctypes.addressof((ctypes.c_char * len(data)).from_buffer(data))
