"""The store as this edge last knew it, in a file beside its keys: what it starts from while the database is away.

The copy is written after a change, and now and then to say that nothing has changed. How old it is counts on
CLOCK_BOOTTIME of the same boot of the host; after another one nobody knows, and the edge, which has started, grants
nothing until it has read the store itself.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from warren.dnsfilter.policies import Revision
from warren.edge.store.records import Device, Route, Tombstone, Tunnel
from warren.edge.store.snapshot import Snapshot, build
from warren.fabric.aio.elapsed import elapsed
from warren.fabric.identity.files import write_private

FILE = "store.copy"
"""In the edge's state directory."""
WRITE_EVERY, WRITE_SHARE = 30.0, 20
"""Seconds after which it is written again though nothing has changed, and at most so small a part of the lease: by so
much an edge that starts may take its view for older than it is."""
LIMIT = 64 << 20
"""Bytes that are read: a full store has a tenth of that."""
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class _Form(msgspec.Struct, frozen=True):
    """What is in the file, as MessagePack. `confirmed`: CLOCK_BOOTTIME at which the store was known to be so."""

    owner: str
    boot: str
    confirmed: float
    epoch: int
    revision: int
    tunnels: list[Tunnel]
    routes: list[Route]
    devices: list[Device]
    edges: bytes
    policy: Revision | None
    tombstones: list[Tombstone]


@dataclass(frozen=True, slots=True)
class Kept:
    """What was in a copy. `age`: seconds since the store was known to be so; infinite if nobody knows."""

    snapshot: Snapshot
    tombstones: list[Tombstone]
    age: float


class StoreCopy:
    """In one file."""

    def __init__(self, path: Path, owner: str, boot_id: Path = BOOT_ID) -> None:
        """`owner`: the edge's id; a copy of another edge's, which was here before, is none."""
        self.path, self._owner = path, owner
        self._boot_id = boot_id

    def write(self, snapshot: Snapshot, tombstones: list[Tombstone], confirmed: float) -> None:
        """In the place of the one before; blocks for a disk's time. Raises ConfigError."""
        form = _Form(
            self._owner,
            self._boot(),
            confirmed,
            snapshot.epoch,
            snapshot.revision,
            list(snapshot.tunnels.values()),
            list(snapshot.routes.values()),
            list(snapshot.devices_by_id.values()),
            snapshot.edges,
            snapshot.policy,
            tombstones,
        )
        write_private(self.path, msgspec.msgpack.encode(form), replace=True)

    def read(self) -> Kept | None:
        """None: there is none, or none that this program can read."""
        try:
            with self.path.open("rb") as file:
                said = msgspec.msgpack.decode(file.read(LIMIT), type=_Form)
        except (OSError, msgspec.MsgspecError):
            return None
        if said.owner != self._owner:
            return None
        age = max(0.0, elapsed() - said.confirmed) if said.boot == self._boot() else math.inf
        snapshot = build(said.epoch, said.revision, said.tunnels, said.routes, said.devices, said.edges, said.policy)
        return Kept(snapshot, said.tombstones, age)

    def _boot(self) -> str:
        """Of this boot of the host; another one each time where the kernel does not tell."""
        try:
            return self._boot_id.read_text().strip()
        except OSError:
            return os.urandom(8).hex()
