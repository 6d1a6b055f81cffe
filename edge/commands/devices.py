"""warren device: who may come in."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from warren.edge.admin import check_name
from warren.edge.client import Client
from warren.edge.commands import options, screen
from warren.fabric.core.errors import ConfigError
from warren.fabric.identity.files import write_private
from warren.fabric.identity.tokens import secret_hash

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Devices: who may reach what lies behind the tunnels.",
)


@app.command(
    epilog="Examples:  `warren device add anns-laptop`   ·   `warren device add anns-laptop --key-file anns-laptop.key`"
)
def add(
    name: Annotated[str, typer.Argument(help="A name of your choice, as in anns-laptop.")],
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="Write the enrolment key there (0600) instead of printing it."),
    ] = None,
    socket: options.Socket = options.SOCKET,
    admin_dir: options.AdminDir = options.ADMIN,
    json: options.Json = False,
) -> None:
    """Add a device, and print the enrolment key that brings it in: once, within an hour.

    On the device, `warren agent enrol` asks for it. The key is shown only now; the edge keeps its hash.
    """
    check_name(name, "device")
    target = None if key_file == Path("-") else key_file
    if target is not None and target.exists():
        raise ConfigError(f"{target} is there already: name another --key-file, or remove it")
    admin, client = options.administrator(admin_dir), Client(socket)
    options.same_network(client, admin)
    key = admin.new_enrolment_key()
    with ExitStack() as undo:
        if target is not None:
            write_private(target, f"{key}\n".encode())
            undo.callback(target.unlink, missing_ok=True)
        made = client.post(
            "/v1/devices", {"name": name, "secret_hash": secret_hash(key.secret), "expires": key.expires}
        )
        undo.pop_all()
    if json:
        screen.show_json({**made, **({"key": str(key)} if target is None else {"key_file": str(target)})})
    elif target is None:
        typer.echo(str(key))
    where = f"Its enrolment key is in {target}" if target else "Above is its enrolment key"
    screen.remark(f"Device {name} may come in. {where}; it works once, until {screen.moment(key.expires)}.")
    screen.remark("Next, on the device:  sudo warren agent enrol --key-file FILE")


@app.command("list", epilog="Example:  `warren device list --json`")
def list_(socket: options.Socket = options.SOCKET, json: options.Json = False) -> None:
    """Show the devices: waiting for their enrolment, or enrolled."""
    devices = Client(socket).get("/v1/devices")
    if json:
        screen.show_json(devices)
        return
    rows = [
        (
            device["name"],
            device["state"],
            device["host"] or "-",
            device["vnet"],
            screen.moment(device["enrolled"]),
            screen.moment(device["seen"]),
            (device["thumbprint"] or "-")[:16],
            device["id"],
        )
        for device in devices
    ]
    nothing = "There are no devices; add one:  warren device add NAME"
    screen.show_table(("NAME", "STATE", "HOST", "VNET", "ENROLLED", "SEEN", "KEY", "ID"), rows, nothing)


@app.command(
    "set",
    epilog="Examples:  `warren device set anns-laptop --vnet lab`   ·   `warren device set anns-laptop --user ann`",
)
def set_(
    which: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the device.")],
    vnet: Annotated[
        str | None, typer.Option("--vnet", metavar="NAME", help="The virtual network whose routes it takes.")
    ] = None,
    choose: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-vnet", metavar="NAME", help="All that its user may choose besides; repeat it. '' for none."
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="NAME", help="Who uses it; '' for nobody.")] = None,
    group: Annotated[
        list[str] | None, typer.Option("--group", metavar="NAME", help="All its groups; repeat it. '' for none.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME", help="All its tags; repeat it. '' for none.")
    ] = None,
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Change a device's virtual network, those that its user may choose, user, groups or tags. What is not named stays.

    A running agent follows at once; flows that are open in the old virtual network go on until they end.
    """
    asked: dict[str, object] = {
        "vnet": vnet,
        "vnets": _labels(choose),
        "user": user,
        "groups": _labels(group),
        "tags": _labels(tag),
    }
    body = {field: value for field, value in asked.items() if value is not None}
    if not body:
        raise ConfigError("nothing to change: give --vnet, --allow-vnet, --user, --group or --tag")
    device = Client(socket).patch("/v1/devices", which, body)
    if json:
        screen.show_json(device)
        return
    choices = ", ".join(device["vnet_choices"])
    said = [f"virtual network {device['vnet']} (its user may choose {choices})", f"user {device['user'] or '-'}"]
    said += [f"{field} {', '.join(device[field]) or '-'}" for field in ("groups", "tags")]
    screen.remark(f"Device {device['name']}: {'; '.join(said)}.")
    if device.get("warning"):
        screen.remark(f"Beware: {device['warning']}.")


def _labels(given: list[str] | None) -> list[str] | None:
    """One empty one stands for none."""
    return given and [label for label in given if label] if given != [""] else []


@app.command(epilog="Example:  `warren device delete anns-laptop`")
def delete(
    which: Annotated[str, typer.Argument(metavar="NAME", help="Name or id of the device.")],
    socket: options.Socket = options.SOCKET,
    json: options.Json = False,
) -> None:
    """Delete a device: nothing that it opens from now on is let through."""
    device = Client(socket).delete("/v1/devices", which)
    if json:
        screen.show_json(device)
    screen.remark(f"Device {device['name']} ({device['id']}) was deleted.")
