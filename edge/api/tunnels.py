"""/v1/tunnels"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter

from warren.edge.api.context import Body, Context
from warren.edge.store.errors import InvalidError
from warren.edge.store.records import Tunnel
from warren.fabric.core.errors import DeniedError
from warren.fabric.identity.certificates import fingerprint
from warren.fabric.identity.statements import TunnelStatement, verify_tunnel


class NewTunnel(Body):
    """What the administrator's command has made; its keys stay there."""

    id: str
    name: str
    authority: str
    """Base64 of the CA certificate's DER."""
    statement: str
    """Base64 of the network key's statement on it."""
    revision: int
    """Inside that statement."""


class NewAuthority(Body):
    """A newer word of the network key: on another CA, or that the one before holds no longer."""

    authority: str
    statement: str
    revision: int


def router(context: Context) -> APIRouter:
    """The paths under /v1/tunnels."""
    api = APIRouter(prefix="/v1/tunnels")
    repository = context.repository

    @api.post("", status_code=201, response_model=None)
    async def add(body: NewTunnel) -> dict[str, Any]:
        authority, statement = _decode(body.authority, "authority"), _decode(body.statement, "statement")
        _verify(body.id, body.revision, authority, statement, context.identity.certificate)
        tunnel = await repository.add_tunnel(body.id, body.name, authority, statement, body.revision, context.seconds())
        return view(context, tunnel)

    @api.get("", response_model=None)
    async def show_all() -> list[dict[str, Any]]:
        tunnels = repository.snapshot.tunnels.values()
        return [view(context, tunnel) for tunnel in sorted(tunnels, key=lambda tunnel: tunnel.name)]

    @api.get("/{which}", response_model=None)
    async def show(which: str) -> dict[str, Any]:
        return view(context, await repository.tunnel(which))

    @api.patch("/{which}", response_model=None)
    async def rotate(which: str, body: NewAuthority) -> dict[str, Any]:
        tunnel = await repository.tunnel(which)
        authority, statement = _decode(body.authority, "authority"), _decode(body.statement, "statement")
        said = _verify(tunnel.id, body.revision, authority, statement, context.identity.certificate)
        return view(
            context,
            await repository.set_authority(
                tunnel.id, authority, statement, said.revision, former=said.former, until=said.until
            ),
        )

    @api.delete("/{which}", response_model=None)
    async def remove(which: str, force: bool = False) -> dict[str, Any]:
        return view(context, await repository.delete_tunnel(which, context.seconds(), force=force))

    return api


def view(context: Context, tunnel: Tunnel) -> dict[str, Any]:
    """A tunnel as JSON. `revision` is the signed one; `changed` the store's at the last change.

    `former` and `until`: SHA-256 (hex) of the CA before the present one, and the Unix time at which it ends; "" and 0
    if none holds. `authority`, `statement`: as they were given, for the administrator's command to verify.
    """
    holds = context.now() < tunnel.until
    return {
        "id": tunnel.id,
        "name": tunnel.name,
        "created": tunnel.created,
        "revision": tunnel.signed,
        "key": fingerprint(tunnel.authority).hex(),
        "former": fingerprint(tunnel.former).hex() if holds else "",
        "until": tunnel.until if holds else 0,
        "authority": base64.b64encode(tunnel.authority).decode(),
        "statement": base64.b64encode(tunnel.statement).decode(),
        "changed": tunnel.revision,
        "status": context.live.status(tunnel.id),
        "connectors": [asdict(connector) for connector in context.live.connectors(tunnel.id)],
    }


def _decode(text: str, field: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidError(f"{field}: this is not base64") from None


def _verify(id_: str, revision: int, authority: bytes, statement: bytes, network: bytes) -> TunnelStatement:
    """What agents will refuse is not stored."""
    try:
        said = verify_tunnel(statement, authority, network)
    except DeniedError as error:
        raise InvalidError(f"statement: {error}") from None
    if (said.tunnel, said.revision) != (id_, revision):
        raise InvalidError(f"statement: it is for tunnel {said.tunnel}, revision {said.revision}")
    return said
