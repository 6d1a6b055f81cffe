"""/v1/devices"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from warren.edge.api.context import Body, Context
from warren.edge.store.records import Device


class NewDevice(Body):
    """A device that may enrol once."""

    name: str
    secret_hash: str
    """SHA-256 of the enrolment secret, hex; the secret itself stays with the administrator's command."""
    expires: int
    """Unix time in seconds."""


class DeviceChange(Body):
    """What of a device is to be changed; what is left out stays."""

    vnet: str | None = None
    vnets: list[str] | None = None
    """Virtual networks that its user may choose besides."""
    user: str | None = None
    groups: list[str] | None = None
    tags: list[str] | None = None


def router(context: Context) -> APIRouter:
    """The paths under /v1/devices."""
    api = APIRouter(prefix="/v1/devices")
    repository = context.repository

    @api.post("", status_code=201, response_model=None)
    async def add(body: NewDevice) -> dict[str, Any]:
        return view(await repository.add_device(body.name, body.secret_hash, body.expires, context.seconds()))

    @api.get("", response_model=None)
    async def show_all() -> list[dict[str, Any]]:
        return [view(device) for device in await repository.devices()]

    @api.patch("/{which}", response_model=None)
    async def change(which: str, body: DeviceChange) -> dict[str, Any]:
        device = await repository.set_device(
            which, vnet=body.vnet, vnets=body.vnets, user=body.user, groups=body.groups, tags=body.tags
        )
        shown = view(device)
        named = [*([body.vnet] if body.vnet is not None else []), *(body.vnets or [])]
        if empty := [vnet for vnet in named if vnet not in repository.snapshot.networks]:
            shown["warning"] = f"no route is in virtual network {', '.join(empty)} yet"
        return shown

    @api.delete("/{which}", response_model=None)
    async def remove(which: str) -> dict[str, Any]:
        return view(await repository.delete_device(which, context.seconds()))

    return api


def view(device: Device) -> dict[str, Any]:
    """A device as JSON; `enrolled` and `seen` are null while it has not."""
    return {
        "id": device.id,
        "name": device.name,
        "state": "enrolled" if device.enrolled else "waiting",
        "thumbprint": device.thumbprint,
        "host": device.host,
        "vnet": device.vnet,
        "vnet_choices": list(device.choices),
        "user": device.user,
        "groups": list(device.groups),
        "tags": list(device.tags),
        "created": device.created,
        "expires": device.expires,
        "enrolled": device.enrolled or None,
        "seen": device.seen or None,
        "revision": device.revision,
    }
