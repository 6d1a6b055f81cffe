"""The store's contents and every change to them, with nothing that only one database knows.

Each change is one transaction that first raises the store's revision: that row's lock puts the changes of all
processes in one order. Before it commits, the new snapshot is read inside it; after it, the snapshot is swapped and
`on_change` called, in the same order. Times (`now`: Unix time in seconds) are passed in.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Table, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from warren.dnsfilter.policies import Revision
from warren.edge.store import rows, schema, values
from warren.edge.store.errors import ExistsError, InUseError, InvalidError, LimitError, NotFoundError
from warren.edge.store.policies import PolicyShelf
from warren.edge.store.records import DEFAULT_NETWORK, Change, Device, Kind, Route, Tombstone, Tunnel
from warren.edge.store.snapshot import Snapshot, advance, build
from warren.fabric.core.errors import DeniedError
from warren.fabric.core.reasons import Reason
from warren.fabric.identity import tokens
from warren.fabric.identity.keys import new_id

TUNNELS_LIMIT = 1_000
"""Tunnels: a few kilobytes each in every edge's memory."""
ROUTES_LIMIT = 4_000
"""Routes: all of them, each a name of 253 characters, still fit the one message that tells an agent (1 MiB)."""
DEVICES_LIMIT = 10_000
"""Devices: about a kilobyte each in every edge's memory, and read anew at every change."""
AUTHORITY_LIMIT = 8_192
"""Bytes of a tunnel's CA certificate; an honest one has about 350."""
STATEMENT_LIMIT = 1_024
"""Bytes of the network key's statement on a tunnel; an honest one has about 200."""
EDGES_LIMIT = 32_768
"""Bytes of the signed list of edges."""
COUNTER_LIMIT = (1 << 63) - 1
"""Largest integer that databases and the wire keep."""


_ROUTE_FORMS: Mapping[Kind, Callable[[str], str]] = {
    "ip": values.cidr,
    "host": values.hostname,
    "resolver": values.zone,
}
CHANGE_SECONDS = 10.0
"""How long a change may take, with its wait for others: then whoever asked for it hears that the store is away."""
TOMBSTONES_KEPT = 5_000
"""Tombstones in memory, the newest: what a connector that enters is told fits one message."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What a database that several edges use has beside the one that writes."""

    reading: AsyncEngine
    """Each transaction of it sees one moment."""
    announce: str
    """SQL that tells the others of a change when its transaction commits."""
    listen: Callable[[Callable[[], None]], Coroutine[Any, Any, None]]
    """Calls back when another edge has announced a change, maybe for nothing; runs until it is cancelled."""


class Repository:
    """The store. One for each edge process; `open_store` makes it, `close` ends it."""

    def __init__(
        self, engine: AsyncEngine, shared: Shared | None = None, bring_up: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """`shared`: None where one process at a time has the database. `bring_up`: done once, before anything else."""
        self._bring_up = bring_up
        self.shared = shared
        self._engine = engine
        self._reading = shared.reading if shared is not None else engine
        self._order = asyncio.Lock()
        self._snapshot = build(0, 0, (), (), ())
        self.policies = PolicyShelf(engine, self._change)
        self._tombstones: list[Tombstone] = []
        self.on_change: Callable[[Snapshot, Change], None] = lambda snapshot, change: None
        """Called in the event loop after every change, in order; must not block nor raise."""

    @property
    def snapshot(self) -> Snapshot:
        """The state after the last change; swapped, never altered."""
        return self._snapshot

    @property
    def database(self) -> str:
        """What kind of database it is in."""
        return self._engine.dialect.name

    async def close(self) -> None:
        """Lets go of the database."""
        await self._engine.dispose()

    # the whole

    def begin_with(self, snapshot: Snapshot, tombstones: list[Tombstone]) -> None:
        """What the store held when it was read last, while it can't be."""
        self._snapshot, self._tombstones = snapshot, tombstones

    async def _ready(self) -> None:
        if self._bring_up is not None:
            await self._bring_up()
            self._bring_up = None

    async def refresh(self) -> bool:
        """Reads the store again if another process has changed it; whether it had."""
        async with self._order:
            await self._ready()
            async with self._reading.connect() as connection:
                epoch, revision = await rows.version(connection)
                if (epoch, revision) == (self._snapshot.epoch, self._snapshot.revision):
                    return False
                snapshot, buried = await self._read_all(connection)
            self._swap(snapshot, buried, Change(everything=True))
            return True

    async def new_epoch(self, now_ms: int, *, above: int = 0) -> int:
        """Begins an epoch: after `init`, and after a restore that replaced a store of epoch `above`."""
        async with self._change() as (connection, change):
            epoch = max(now_ms, self._snapshot.epoch + 1, above + 1)
            await connection.execute(update(schema.state).where(rows.STATE_ROW).values(epoch=epoch))
            change.everything = True
        return epoch

    def tombstones(self, after: int = 0, *, since: int = 0) -> list[Tombstone]:
        """What was deleted after that revision, and since that Unix time, in order; the last `TOMBSTONES_KEPT`."""
        return [stone for stone in self._tombstones if stone.revision > after and stone.deleted >= since]

    # edges

    async def set_edges(self, signed: bytes, replaced: bytes) -> bool:
        """The network's new list of edges, in the place of the one it was made from; False if that is another by now.

        Who calls has verified it.
        """
        if not 0 < len(signed) <= EDGES_LIMIT:
            raise InvalidError(f"a list of edges has 1 to {EDGES_LIMIT} bytes")
        table = schema.edges
        async with self._change() as (connection, change):
            found = (await connection.execute(select(table.c.signed))).scalar_one_or_none() or b""
            if found == replaced:
                await connection.execute(delete(table))
                await connection.execute(insert(table).values(id=1, signed=signed))
            change.everything = True
        return found == replaced

    # tunnels

    async def tunnel(self, which: str) -> Tunnel:
        """The one with this id or name. Raises NotFoundError."""
        async with self._engine.connect() as connection:
            return rows.to_tunnel(await rows.find(connection, schema.tunnels, which, "tunnel"))

    async def add_tunnel(
        self, id_: str, name: str, authority: bytes, statement: bytes, signed: int, now: int
    ) -> Tunnel:
        """A tunnel that the administrator's command has made. Raises StoreError."""
        values.identifier(id_)
        values.name(name, "tunnel")
        _check_authority(authority, statement, signed)
        async with self._change() as (connection, change):
            await _refuse_taken(connection, schema.tunnels, id_, name, "tunnel")
            await _refuse_full(connection, schema.tunnels, TUNNELS_LIMIT, "tunnels")
            tunnel = Tunnel(id_, name, authority, statement, signed, now, change.revision)
            await rows.insert_record(connection, schema.tunnels, tunnel)
            change.changed.add(id_)
        return tunnel

    async def set_authority(
        self, which: str, authority: bytes, statement: bytes, signed: int, *, former: bytes = b"", until: int = 0
    ) -> Tunnel:
        """A newer word of the network key on a tunnel's CA. `former`: SHA-256 of the present one, if that is to hold
        beside the new one until `until` (Unix time, seconds). Raises StoreError."""
        _check_authority(authority, statement, signed)
        table = schema.tunnels
        async with self._change() as (connection, change):
            tunnel = rows.to_tunnel(await rows.find(connection, table, which, "tunnel"))
            if signed <= tunnel.signed:
                raise ExistsError(f"tunnel {tunnel.name} has revision {tunnel.signed} already: ask again")
            if former and former != hashlib.sha256(tunnel.authority).digest():
                raise InvalidError(f"the key before it is not the one that tunnel {tunnel.name} has")
            new = {"authority": authority, "statement": statement, "signed": signed, "revision": change.revision}
            kept = {"former": tunnel.authority if former else b"", "until": until if former else 0}
            await connection.execute(update(table).where(table.c.id == tunnel.id).values(**new, **kept))
            change.changed.add(tunnel.id)
            changed = (await connection.execute(select(table).where(table.c.id == tunnel.id))).one()
        return rows.to_tunnel(changed)

    async def delete_tunnel(self, which: str, now: int, *, force: bool = False) -> Tunnel:
        """Deletes it; its routes too if `force`. Raises NotFoundError, InUseError (routes lead to it)."""
        async with self._change() as (connection, change):
            tunnel = rows.to_tunnel(await rows.find(connection, schema.tunnels, which, "tunnel"))
            query = select(schema.routes).where(schema.routes.c.tunnel == tunnel.id).order_by(schema.routes.c.value)
            routes = [rows.to_route(row) for row in await connection.execute(query)]
            if routes and not force:
                more = f" and {len(routes) - 3} more" if len(routes) > 3 else ""
                shown = ", ".join(route.value for route in routes[:3])
                raise InUseError(f"routes lead to tunnel {tunnel.name} ({shown}{more}): delete them first, or force it")
            for route in routes:
                await change.bury(connection, schema.routes, route.id, "route", now)
            await change.bury(connection, schema.tunnels, tunnel.id, "tunnel", now)
        return tunnel

    # routes

    async def add_route(
        self,
        kind: Kind,
        value: str,
        tunnel: str,
        now: int,
        *,
        vnet: str = DEFAULT_NETWORK,
        comment: str = "",
        servers: Sequence[str] = (),
    ) -> Route:
        """A route to the tunnel with that id or name; `servers` for a resolver route. Raises StoreError."""
        value = _ROUTE_FORMS[kind](value)
        asked = values.servers(servers) if kind == "resolver" else ()
        if servers and not asked:
            raise InvalidError("only a resolver route has servers")
        values.virtual_network(vnet)
        values.comment(comment)
        table = schema.routes
        async with self._change() as (connection, change):
            target = rows.to_tunnel(await rows.find(connection, schema.tunnels, tunnel, "tunnel"))
            same = (table.c.vnet == vnet) & (table.c.kind == kind) & (table.c.value == value)
            existing = (await connection.execute(select(table).where(same))).one_or_none()
            if existing is not None:
                owner = rows.to_tunnel(await rows.find(connection, schema.tunnels, existing.tunnel, "tunnel"))
                raise ExistsError(
                    f"{value} leads to tunnel {owner.name} in virtual network {vnet} already (route {existing.id}): "
                    "delete that one first, or choose another virtual network"
                )
            await _refuse_full(connection, table, ROUTES_LIMIT, "routes")
            route = Route(new_id(), kind, value, target.id, vnet, comment, now, change.revision, asked)
            await rows.insert_record(connection, table, route)
            change.changed.add(route.id)
        return route

    async def delete_route(self, id_: str, now: int) -> Route:
        """Raises NotFoundError."""
        async with self._change() as (connection, change):
            query = select(schema.routes).where(schema.routes.c.id == id_)
            row = (await connection.execute(query)).one_or_none()
            if row is None:
                raise NotFoundError(f"there is no route {id_[:80]!r}: `warren route ip list` shows the ids")
            await change.bury(connection, schema.routes, row.id, "route", now)
        return rows.to_route(row)

    # devices

    async def devices(self) -> list[Device]:
        """All, by name, with when they were last seen (a snapshot does not follow that)."""
        query = select(schema.devices).order_by(schema.devices.c.name)
        async with self._engine.connect() as connection:
            return [rows.to_device(row) for row in await connection.execute(query)]

    async def add_device(self, name: str, secret_hash: str, expires: int, now: int) -> Device:
        """A device that may enrol once, until `expires`, with the secret that has this SHA-256 (hex).

        Raises StoreError.
        """
        values.name(name, "device")
        values.digest(secret_hash, "secret_hash")
        if not now < expires <= COUNTER_LIMIT:
            raise InvalidError("expires has to be a Unix time in the future, in seconds")
        table = schema.devices
        async with self._change() as (connection, change):
            await _refuse_taken(connection, table, "", name, "device")
            if await rows.exists(connection, table, table.c.secret_hash == secret_hash):
                raise ExistsError("another device has that enrolment secret: make a new one")
            await _refuse_full(connection, table, DEVICES_LIMIT, "devices")
            device = Device(
                id=new_id(), name=name, thumbprint="", host="", vnet=DEFAULT_NETWORK, user="", groups=(), tags=(),
                created=now, expires=expires, enrolled=0, seen=0, revision=change.revision, home=DEFAULT_NETWORK,
            )  # fmt: skip
            await rows.insert_record(connection, table, device, thumbprint=None, secret_hash=secret_hash)
            change.changed.add(device.id)
        return device

    async def set_device(
        self,
        which: str,
        *,
        vnet: str | None = None,
        vnets: Sequence[str] | None = None,
        user: str | None = None,
        groups: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
    ) -> Device:
        """Changes what is not None of the device with that id or name. Raises StoreError.

        `vnet`: its home, and where it is from now on. `vnets`: others that its user may choose.
        """
        new: dict[str, Any] = {}
        if vnet is not None:
            new["vnet"] = new["home"] = values.virtual_network(vnet)
        if vnets is not None:
            new["vnets"] = values.virtual_networks(vnets)
        if user is not None:
            new["user"] = values.user(user)
        if groups is not None:
            new["groups"] = values.labels(groups, "group")
        if tags is not None:
            new["tags"] = values.labels(tags, "tag")
        table = schema.devices
        async with self._change() as (connection, change):
            found = rows.to_device(await rows.find(connection, table, which, "device"))
            if vnet is None and vnets is not None and found.vnet not in new["vnets"]:
                new["vnet"] = found.home or found.vnet  # what it had chosen is not allowed any more
            return await _changed_device(connection, change, found.id, new)

    async def choose_network(self, id_: str, vnet: str) -> Device:
        """What a device's user chose. Raises DeniedError: DEVICE_UNKNOWN, or VNET_NOT_ALLOWED by the administrator."""
        device = self._snapshot.devices_by_id.get(id_)
        if device is not None and device.vnet == vnet:
            return device
        table = schema.devices
        async with self._change() as (connection, change):
            row = (await connection.execute(select(table).where(table.c.id == id_))).one_or_none()
            if row is None:
                raise DeniedError(Reason.DEVICE_UNKNOWN)
            choices = rows.to_device(row).choices
            if vnet not in choices:
                raise DeniedError(Reason.VNET_NOT_ALLOWED, f"there is {', '.join(choices)}")
            return await _changed_device(connection, change, id_, {"vnet": vnet})

    async def enrol(self, secret: bytes, thumbprint: str, host: str, now: int) -> Device:
        """Spends an enrolment secret for the key with this thumbprint. Of racing ones, one wins.

        Raises DeniedError(ENROLMENT_KEY), also for a key that another device has.
        """
        table = schema.devices
        spent = table.c.secret_hash == tokens.secret_hash(secret)
        values.digest(thumbprint, "a thumbprint")
        async with self._change() as (connection, change):
            row = (await connection.execute(select(table).where(spent))).one_or_none()
            if row is None:
                raise DeniedError(Reason.ENROLMENT_KEY, "nobody waits for it: it was deleted, or is another network's")
            if row.enrolled:
                raise DeniedError(Reason.ENROLMENT_KEY, f"device {row.name} has used it")
            if now >= row.expires:
                raise DeniedError(Reason.ENROLMENT_KEY, "it has expired: ask for a new one")
            if await rows.exists(connection, table, table.c.thumbprint == thumbprint):
                raise DeniedError(Reason.ENROLMENT_KEY, "this device's key is enrolled already, under another name")
            said = values.said_host(host)
            new = {"thumbprint": thumbprint, "host": said, "enrolled": now, "seen": now, "revision": change.revision}
            await connection.execute(update(table).where(table.c.id == row.id).values(**new))
            change.changed.add(row.id)
            enrolled = (await connection.execute(select(table).where(table.c.id == row.id))).one()
        return rows.to_device(enrolled)

    async def mark_seen(self, when: Mapping[str, int]) -> None:
        """Device id → Unix time. No change in the sense of revisions; gather some before calling."""
        if not when:
            return
        ordered = sorted(when.items())  # of two edges that do this at once, none waits for the other for ever
        query = update(schema.devices).where(schema.devices.c.id == bindparam("device")).values(seen=bindparam("at"))
        async with self._engine.begin() as connection:
            await connection.execute(query, [{"device": device, "at": at} for device, at in ordered])

    async def delete_device(self, which: str, now: int) -> Device:
        """Raises NotFoundError."""
        async with self._change() as (connection, change):
            device = rows.to_device(await rows.find(connection, schema.devices, which, "device"))
            await change.bury(connection, schema.devices, device.id, "device", now)
        return device

    # how a change is made

    @asynccontextmanager
    async def _change(self) -> AsyncIterator[tuple[AsyncConnection, _Step]]:
        async with asyncio.timeout(CHANGE_SECONDS), self._order:
            await self._ready()
            async with self._engine.begin() as connection:
                await connection.execute(
                    update(schema.state).where(rows.STATE_ROW).values(revision=schema.state.c.revision + 1)
                )
                epoch, revision = await rows.version(connection)
                step = _Step(revision)
                step.everything = (epoch, revision - 1) != (self._snapshot.epoch, self._snapshot.revision)
                yield connection, step
                snapshot, buried = await self._next(connection, step)
                if self.shared is not None:
                    await connection.exec_driver_sql(self.shared.announce)
            self._swap(snapshot, buried, step.result())

    async def _next(self, connection: AsyncConnection, step: _Step) -> tuple[Snapshot, list[Tombstone]]:
        if step.everything:
            return await self._read_all(connection)
        changed = await rows.read_some(connection, step.changed)
        gone = [tombstone.id for tombstone in step.deleted]
        snapshot = advance(self._snapshot, step.revision, changed, gone, step.policy)
        return snapshot, [*self._tombstones, *step.deleted][-TOMBSTONES_KEPT:]

    async def _read_all(self, connection: AsyncConnection) -> tuple[Snapshot, list[Tombstone]]:
        return await rows.read_all(connection), await rows.read_tombstones(connection, TOMBSTONES_KEPT)

    def _swap(self, snapshot: Snapshot, buried: list[Tombstone], change: Change) -> None:
        self._snapshot, self._tombstones = snapshot, buried
        self.on_change(snapshot, change)


class _Step:
    """What one transaction does, gathered for `Change`."""

    def __init__(self, revision: int) -> None:
        self.revision = revision
        self.changed: set[str] = set()
        self.deleted: list[Tombstone] = []
        self.everything = False
        self.policy: Revision | None = None
        """The DNS policy that was applied."""

    async def bury(self, connection: AsyncConnection, table: Table, id_: str, kind: str, now: int) -> None:
        """Deletes a row and leaves its tombstone."""
        tombstone = Tombstone(id_, kind, self.revision, now)
        await connection.execute(delete(table).where(table.c.id == id_))
        await rows.insert_record(connection, schema.tombstones, tombstone)
        self.deleted.append(tombstone)

    def result(self) -> Change:
        return Change(frozenset(self.changed), tuple(self.deleted), self.everything)


async def _changed_device(connection: AsyncConnection, change: _Step, id_: str, new: dict[str, Any]) -> Device:
    table = schema.devices
    await connection.execute(update(table).where(table.c.id == id_).values(**new, revision=change.revision))
    change.changed.add(id_)
    return rows.to_device((await connection.execute(select(table).where(table.c.id == id_))).one())


async def _refuse_taken(connection: AsyncConnection, table: Table, id_: str, name: str, what: str) -> None:
    taken = await rows.exists(connection, table, table.c.name.in_([name, id_]) | table.c.id.in_([name, id_]))
    if taken:
        raise ExistsError(f"there is a {what} {name} already: choose another name, or delete that one first")
    if id_ and await rows.exists(connection, schema.tombstones, schema.tombstones.c.id == id_):
        raise ExistsError(f"a {what} with the id {id_} was deleted before: make one with a new id")


def _check_authority(authority: bytes, statement: bytes, signed: int) -> None:
    if not 0 < len(authority) <= AUTHORITY_LIMIT or not 0 < len(statement) <= STATEMENT_LIMIT:
        raise InvalidError(
            f"a tunnel needs its CA certificate (1 to {AUTHORITY_LIMIT} bytes) and its statement "
            f"(1 to {STATEMENT_LIMIT} bytes)"
        )
    if not 0 <= signed <= COUNTER_LIMIT:
        raise InvalidError(f"a tunnel's revision is a number from 0 to {COUNTER_LIMIT}")


async def _refuse_full(connection: AsyncConnection, table: Table, limit: int, what: str) -> None:
    count = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
    if count >= limit:
        raise LimitError(f"there are {count} {what} already, more are not allowed: delete some first")
