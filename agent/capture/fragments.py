"""Fragments that an app's kernel makes of datagrams longer than the TUN's MTU, put together again. Pure.

TCP never comes in fragments (its segments fit). Bounded in number, bytes and time; what overlaps or never becomes whole
is dropped (RFC 791, section 3.2; RFC 5722 on overlaps).
"""

from __future__ import annotations

from warren.agent.capture.headers import IPV6_HEADER, VNET_HEADER, Unread, upper_layer

PACKETS = 64
"""Packets that are being put together; one beyond pushes the oldest out."""
BYTES = 2 << 20
"""Of all of them: some thirty of the longest."""
PIECES = 1400
"""Fragments of one packet: enough for the smallest MTU of all (68, RFC 791). Each is compared with all before it."""
PATIENCE = 2.0
"""Seconds: they come from this machine's own kernel, in one go."""
LONGEST = 65_535
_MORE = 0x2000
_OFFSET = 0x1FFF


class Fragments:
    """Give it every fragment; it gives back whole packets (with an empty vnet header)."""

    def __init__(self) -> None:
        self._open: dict[bytes, _Partial] = {}
        self._bytes = 0
        self.dropped = 0
        """Packets that never became whole."""

    def take(self, packet: memoryview, now: float) -> bytes | None:
        """`packet`: a fragment with its vnet header, whose headers were found sound (headers.read)."""
        if packet[VNET_HEADER] >> 4 == 6:
            return self._take_ipv6(packet, now)
        header = (packet[VNET_HEADER] & 15) * 4
        total = packet[VNET_HEADER + 2] << 8 | packet[VNET_HEADER + 3]
        flags = packet[VNET_HEADER + 6] << 8 | packet[VNET_HEADER + 7]
        start = (flags & _OFFSET) * 8
        payload = bytes(packet[VNET_HEADER + header : VNET_HEADER + total])
        last = not flags & _MORE
        if not payload or start + len(payload) > LONGEST - header or (not last and len(payload) % 8):
            self.dropped += 1
            return None
        key = bytes(packet[VNET_HEADER + 4 : VNET_HEADER + 6]) + bytes(packet[VNET_HEADER + 9 : VNET_HEADER + 10])
        key += bytes(packet[VNET_HEADER + 12 : VNET_HEADER + 20])
        return self._add(key, bytes(packet[VNET_HEADER : VNET_HEADER + header]), start, payload, last, now)

    def _take_ipv6(self, packet: memoryview, now: float) -> bytes | None:
        """The header that is kept is what stands before the fragment header, which itself goes (RFC 8200, 4.5)."""
        length = packet[VNET_HEADER + 4] << 8 | packet[VNET_HEADER + 5]
        packet = packet[VNET_HEADER : VNET_HEADER + IPV6_HEADER + length]
        found = upper_layer(packet)
        if isinstance(found, Unread) or not found.fragment:
            self.dropped += 1
            return None
        place = packet[found.fragment + 2] << 8 | packet[found.fragment + 3]
        payload, last = bytes(packet[found.start :]), not place & 1
        start = place & 0xFFF8
        header = bytearray(packet[: found.fragment])
        header[found.named_at] = found.protocol
        if not payload or start + len(payload) > LONGEST - len(header) or (not last and len(payload) % 8):
            self.dropped += 1
            return None
        key = bytes(packet[found.fragment + 4 : found.fragment + 8]) + bytes(packet[8:IPV6_HEADER])
        return self._add(key, bytes(header), start, payload, last, now)

    def _add(self, key: bytes, header: bytes, start: int, payload: bytes, last: bool, now: float) -> bytes | None:
        partial = self._open.get(key)
        if partial is None:
            self._make_room(now)
            partial = self._open[key] = _Partial(now + PATIENCE)
        if start == 0:
            partial.header = header
        if not partial.add(start, payload, last):
            self._close(key)
            self.dropped += 1
            return None
        self._bytes += len(payload)
        whole = partial.whole()
        if whole is not None:
            self._close(key)
        return whole

    def _make_room(self, now: float) -> None:
        while self._open:
            oldest = next(iter(self._open))
            if self._open[oldest].until > now and len(self._open) < PACKETS and self._bytes < BYTES:
                return
            self._close(oldest)
            self.dropped += 1

    def _close(self, key: bytes) -> None:
        self._bytes -= sum(map(len, self._open.pop(key).pieces.values()))


class _Partial:
    __slots__ = ("end", "header", "pieces", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.header = b""
        self.pieces: dict[int, bytes] = {}
        self.end = -1

    def add(self, start: int, payload: bytes, last: bool) -> bool:
        """False if it overlaps what is there, or there are two ends, or too many pieces."""
        stop = start + len(payload)
        if len(self.pieces) >= PIECES:
            return False
        if any(start < at + len(piece) and at < stop for at, piece in self.pieces.items()):
            return False
        if (last and self.end >= 0) or 0 <= self.end < stop:
            return False
        self.pieces[start] = payload
        if last:
            self.end = stop
        return True

    def whole(self) -> bytes | None:
        if self.end < 0 or not self.header or sum(map(len, self.pieces.values())) != self.end:
            return None
        payload = b"".join(piece for _, piece in sorted(self.pieces.items()))
        if self.header[0] >> 4 == 6:
            length = (len(self.header) - IPV6_HEADER + len(payload)).to_bytes(2, "big")
            return bytes(VNET_HEADER) + self.header[:4] + length + self.header[6:] + payload
        total = (len(self.header) + len(payload)).to_bytes(2, "big")
        head = self.header[:2] + total + self.header[4:6] + b"\0\0" + self.header[8:]
        return bytes(VNET_HEADER) + head + payload
