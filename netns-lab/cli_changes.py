"""`lab` commands that change a lab while it is up, each with the one that undoes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console

from warren.lab import breaking
from warren.lab.host import Host
from warren.lab.impairment import Impairment, Report, bits, seconds, share
from warren.lab.lab import Lab
from warren.lab.state import LabError

T = TypeVar("T")
DEFAULT_NAME = "lab"
NameOption = Annotated[str, typer.Option("--name", "-n", help="Which lab; several can be up at once.")]
NetworkArgument = Annotated[str, typer.Argument(help="Name of a network of the topology, such as home-line.")]
HostArgument = Annotated[str, typer.Argument(help="Name of a host, as `lab status` shows them.")]
ProgramArgument = Annotated[str, typer.Argument(help="Part of its command line, or a regular expression for it.")]
TowardsOption = Annotated[str | None, typer.Option(help="Only what goes to this host of the network.")]


def register(app: typer.Typer) -> None:
    for command in (link, cut, mend, address, rebind, freeze, thaw, kill):
        app.command()(command)


def link(
    network: NetworkArgument,
    loss: Annotated[str, typer.Option(help="Share of packets that vanish, like 1%.")] = "0%",
    rate: Annotated[str, typer.Option(help="What each card may send, like 100mbit.")] = "0bit",
    queue: Annotated[str, typer.Option(help="How long a packet may wait for that rate; the rest is dropped.")] = "50ms",
    delay: Annotated[str, typer.Option(help="What each packet takes, one way, like 25ms.")] = "0ms",
    jitter: Annotated[str, typer.Option(help="How much the delay varies, up and down.")] = "0ms",
    reorder: Annotated[str, typer.Option(help="Share of packets that others overtake.")] = "0%",
    duplicate: Annotated[str, typer.Option(help="Share of packets that come twice.")] = "0%",
    seed: Annotated[int, typer.Option(help="Of delays, reordering and duplication.")] = 1,
    towards: TowardsOption = None,
    clear: Annotated[bool, typer.Option("--clear", help="Make it a good network again.")] = False,
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Impair a network; without options, say how it fares.    lab link home-line --loss 1% --delay 25ms"""
    links = Lab.attach(name).links
    wanted = Impairment(
        loss=_read(share, loss, "--loss"),
        rate=_read(bits, rate, "--rate"),
        queue=_read(seconds, queue, "--queue"),
        delay=_read(seconds, delay, "--delay"),
        jitter=_read(seconds, jitter, "--jitter"),
        reorder=_read(share, reorder, "--reorder"),
        duplicate=_read(share, duplicate, "--duplicate"),
        seed=seed,
    )
    if clear:
        _print(network, links.clear(network))
    elif str(wanted) == "none":
        _print(network, links.report(network))
    else:
        links.impair(network, wanted, towards)
        Console().print(f"{network}: {wanted}", highlight=False)


def cut(network: NetworkArgument, towards: TowardsOption = None, name: NameOption = DEFAULT_NAME) -> None:
    """Cut a network silently, both ways or one; `lab mend NETWORK` undoes it."""
    Lab.attach(name).links.cut(network, towards)


def mend(network: NetworkArgument, name: NameOption = DEFAULT_NAME) -> None:
    """End every cut of a network."""
    Lab.attach(name).links.mend(network)


def address(
    host: HostArgument,
    new: Annotated[str, typer.Argument(help="Address with prefix, like 192.168.77.11/24, of the same network.")],
    card: Annotated[str | None, typer.Option(help="Which card; the first one by default.")] = None,
    name: NameOption = DEFAULT_NAME,
) -> None:
    """Give a host another address; prints the command that undoes it."""
    before = breaking.readdress(host_of(Lab.attach(name), host), new, card)
    Console().print(f"undo: lab address {host} {before}{f' --card {card}' if card else ''}", highlight=False)


def rebind(host: HostArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Make a NAT router forget its connections; those that go on have other ports.    lab rebind home"""
    breaking.rebind(host_of(Lab.attach(name), host))


def freeze(host: HostArgument, program: ProgramArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Stop programs of a host where they are; `lab thaw` undoes it.    lab freeze connector 'connector run'"""
    _print_pids(breaking.freeze(host_of(Lab.attach(name), host), program))


def thaw(host: HostArgument, program: ProgramArgument, name: NameOption = DEFAULT_NAME) -> None:
    """Let programs go on that were frozen."""
    _print_pids(breaking.thaw(host_of(Lab.attach(name), host), program))


def kill(host: HostArgument, program: ProgramArgument, name: NameOption = DEFAULT_NAME) -> None:
    """End programs of a host by SIGKILL; start them again with `lab exec`."""
    _print_pids(breaking.kill(host_of(Lab.attach(name), host), program))


def host_of(lab: Lab, name: str) -> Host:
    if name not in lab.hosts:
        raise LabError(f"no host {name!r} in lab {lab.name!r}: there is {', '.join(lab.hosts)}")
    return lab[name]


def _print_pids(pids: list[int]) -> None:
    Console().print(f"processes {', '.join(map(str, pids))}", highlight=False)


def _read(reader: Callable[[str], T], text: str, option: str) -> T:
    try:
        return reader(text)
    except ValueError as error:
        raise LabError(f"{option}: {error}") from None


def _print(network: str, report: Report | None) -> None:
    console = Console(highlight=False)
    if report is None:
        console.print(f"{network}: not impaired")
        return
    console.print(f"{network}: {report.impairment}")
    console.print(f"  packets: {report.arrived} arrived, {report.lost} of them lost by chance")
    if report.impairment.emulated:
        console.print(
            f"  emulator: {report.held} held, {report.reordered} reordered, {report.duplicated} duplicated, "
            f"{report.overflowed} too many; {report.processor:.2f} s of processor time in {report.seconds:.0f} s",
            soft_wrap=True,
        )
