"""Networks of a lab that is up, made worse and mended: impaired (kernel and emulator), or cut.

A packet meets, in this order: the emulator and the limited rate where it is sent; cut and loss where it arrives. Each
card has three things of ours then, and loses them when the network is cleared:

    at egress   nft table `netdev impair_CARD`: forward into the emulator's TAP what it has not sent itself
    queue       TBF
    at ingress  the same table: count, lose by chance; nft table `netdev cut_CARD`: drop; `narrow_CARD`: what is
                too large

All devices of an impaired network get gso_max_segs 1, so that one packet is one frame of the wire and not 64 KiB.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from warren.lab.emulator import MARK, counted
from warren.lab.entering import enter_network, in_processes_of
from warren.lab.host import Host, environment
from warren.lab.impairment import Impairment, Report
from warren.lab.process import Process
from warren.lab.state import LabError, LabState, ProcessId, processor_seconds
from warren.lab.topology import Interface, Topology
from warren.lab.waiting import wait_until
from warren.lab.wiring import batch, ports_of, run_with

ONE_IN = 1_000_000  # resolution of a loss
KERNELS_OWN_SEGMENTS = 65_535
LEAST_BURST = 16_384  # bytes that a limited rate lets go at once
BURST_SECONDS = 0.002
NEIGHBOURS = "ether type arp accept; icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;"
GONE_WITHIN = 5.0


@dataclass(frozen=True, slots=True)
class Card:
    """One host's card in a network; `tap` is the emulator's door, beside it."""

    host: Host
    card: Interface

    @property
    def name(self) -> str:
        return self.card.name

    @property
    def tap(self) -> str:
        return f"{self.name}w"

    def nft(self, ruleset: str) -> None:
        run_with([*enter_network(self.host.pid), "nft", "-f", "-"], ruleset)

    def forget(self, table: str) -> None:
        """Delete a table of ours; there may be none."""
        name = f"netdev {table}_{self.name}"
        self.nft(f"table {name}\ndelete table {name}\n")


class Links:
    """The networks of one lab. Methods raise LabError for what a topology cannot do."""

    def __init__(self, topology: Topology, hosts: Mapping[str, Host], state: LabState) -> None:
        self._topology, self._hosts, self._state = topology, hosts, state

    # ---- impairing

    def impair(self, network: str, impairment: Impairment, towards: str | None = None) -> None:
        """Instead of what was before. `towards`: only what goes to that host (of two, joined by a cable)."""
        receiving = self._cards(network, towards)
        sending = self._cards(network) if towards is None else self._others(network, towards)
        self.clear(network)
        self._limit_segments(network, 1)
        self._record(network).parent.mkdir(exist_ok=True)
        try:
            emulator = self._emulate(network, impairment, sending) if impairment.emulated else None
            self._write_down(network, impairment, emulator)
            for card in receiving:
                card.nft(_arriving(card, impairment.loss))
            for card in sending:
                if impairment.rate:
                    _tc(card, "add", *_bucket(impairment))
                if emulator is not None:
                    card.nft(_leaving(card))
        except BaseException:
            self.clear(network)
            raise

    def clear(self, network: str) -> Report | None:
        """As it was at the beginning; how it has fared, if it was impaired."""
        report = self.report(network)
        cards = self._cards(network)
        for card in cards:
            card.forget("impair")
        self._end_emulator(network)
        for card in cards:
            _tc(card, "del", check=False)
        segments = self._topology.network(network).gso_max_segs
        self._limit_segments(network, segments or KERNELS_OWN_SEGMENTS)
        self._record(network).unlink(missing_ok=True)
        self._counters(network).unlink(missing_ok=True)
        return report

    def report(self, network: str) -> Report | None:
        """None if it is not impaired."""
        self._cards(network)
        with suppress(FileNotFoundError):
            said = json.loads(self._record(network).read_text())
            return self._report(network, Impairment(**said["impairment"]), said["emulator"])
        return None

    def _report(self, network: str, impairment: Impairment, emulator: dict[str, int] | None) -> Report:
        arrived, lost = map(sum, zip(*map(_losses, self._cards(network)), strict=True))
        if emulator is None:
            return Report(network, impairment, arrived, lost)
        held, reordered, duplicated, overflowed = counted(self._counters(network))
        used, ran = processor_seconds(emulator["pid"]) or (0.0, 0.0)
        overflowed += sum(map(_too_fast, self._cards(network)))
        return Report(network, impairment, arrived, lost, held, reordered, duplicated, overflowed, used, ran)

    # ---- cutting

    def cut(self, network: str, towards: str | None = None) -> None:
        """What is sent to the network's hosts, or to one of them, vanishes silently; their cards stay up.

        Neighbours are found all the same, as if the cut were farther away: a kernel that has just lost one asks once a
        second only, and keeps for it meanwhile what it delivers in a burst at the return."""
        for card in self._cards(network, towards):
            card.forget("cut")
            hook = f'type filter hook ingress device "{card.name}" priority -300; policy drop;'
            card.nft(f"table netdev cut_{card.name} {{\n chain in {{\n {hook}\n {NEIGHBOURS}\n }}\n}}\n")

    def narrow(self, network: str, size: int) -> None:
        """Packets of more than `size` bytes vanish, and nobody is told: a small path MTU where ICMP is filtered."""
        self._limit_segments(network, 1)
        for card in self._cards(network):
            card.forget("narrow")
            hook = f'type filter hook ingress device "{card.name}" priority -300; policy accept;'
            rule = f"meta length > {size} drop"
            card.nft(f"table netdev narrow_{card.name} {{\n chain in {{\n {hook}\n {rule}\n }}\n}}\n")

    def mend(self, network: str) -> None:
        """The end of every cut of it, and of its being narrow."""
        for card in self._cards(network):
            card.forget("cut")
            card.forget("narrow")
        if self.report(network) is None:
            self._limit_segments(network, self._topology.network(network).gso_max_segs or KERNELS_OWN_SEGMENTS)

    # ---- cards

    def _cards(self, network: str, only: str | None = None) -> list[Card]:
        names = [each.name for each in self._topology.networks]
        if network not in names:
            raise LabError(f"no network {network!r} in this lab: there is {', '.join(names)}")
        members = self._topology.members(network)
        if only is not None and only not in [host.name for host, _ in members]:
            raise LabError(f"{only!r} is not in {network}: there is {', '.join(host.name for host, _ in members)}")
        return [Card(self._hosts[host.name], card) for host, card in members if only in (None, host.name)]

    def _others(self, network: str, host: str) -> list[Card]:
        if self._topology.network(network).switch is not None:
            raise LabError(f"{network} has a switch: it can be impaired one way only between two hosts on a cable")
        return [card for card in self._cards(network) if card.host.name != host]

    def _limit_segments(self, name: str, segments: int) -> None:
        network = self._topology.network(name)
        for card in self._cards(name):
            batch(card.host.pid, [f"link set {card.name} gso_max_segs {segments}"])
        if network.switch is not None:
            ports = ports_of(self._topology, network)
            batch(self._hosts[network.switch].pid, [f"link set {port} gso_max_segs {segments}" for port in ports])

    # ---- the emulator's process

    def _emulate(self, network: str, impairment: Impairment, sending: list[Card]) -> Process:
        """It is born into the PID namespace of one of the hosts, and so ends with the lab at the latest."""
        cards = [(card.host.pid, card.name, card.tap, f"{card.host.name} {card.name}") for card in sending]
        settings = json.dumps({"cards": cards, **asdict(impairment)})
        argv = [sys.executable, "-m", "warren.lab.emulator", str(self._counters(network)), settings]
        log = self._state.logs / f"link-{network}.log"
        home = self._home(network)
        with open(log, "ab") as output, in_processes_of(home.pid):
            begin = output.tell()
            popen = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        process = Process(popen, argv, home.name, log, begin)
        home.processes.append(process)
        process.wait_for_output("^holding packets")
        for card in sending:
            up = f"link set {card.tap} addrgenmode none txqueuelen 10000 mtu {self._topology.network(network).mtu} up"
            batch(card.host.pid, [up])
        return process

    def _home(self, network: str) -> Host:
        switch = self._topology.network(network).switch
        return self._hosts[switch] if switch is not None else self._cards(network)[0].host

    def _end_emulator(self, network: str) -> None:
        with suppress(FileNotFoundError):
            said = json.loads(self._record(network).read_text())["emulator"]
            if said is not None and (emulator := ProcessId(**said)).is_alive():
                os.kill(emulator.pid, signal.SIGTERM)
                wait_until(lambda: not emulator.is_alive(), f"the end of the emulator of {network}", GONE_WITHIN)
        # Of one that could not be written down we are the parent.
        for process in self._home(network).processes:
            if process.argv[3:4] == [str(self._counters(network))]:
                process.stop()

    def _write_down(self, network: str, impairment: Impairment, emulator: Process | None) -> None:
        number = None if emulator is None else asdict(ProcessId.of(emulator.pid))
        self._record(network).write_text(json.dumps({"impairment": asdict(impairment), "emulator": number}))

    def _record(self, network: str) -> Path:
        return self._state.links / f"{network}.json"

    def _counters(self, network: str) -> Path:
        return self._state.links / f"{network}.counters"


def _arriving(card: Card, loss: float) -> str:
    lose = f"numgen random mod {ONE_IN} < {round(loss * ONE_IN)} counter name lost drop" if loss else ""
    return f"""
table netdev impair_{card.name} {{
    counter arrived {{
    }}
    counter lost {{
    }}
    chain in {{
        type filter hook ingress device "{card.name}" priority 0; policy accept;
        counter name arrived
        {lose}
    }}
}}
"""


def _leaving(card: Card) -> str:
    return f"""
table netdev impair_{card.name} {{
    chain out {{
        type filter hook egress device "{card.name}" priority 0; policy accept;
        meta mark {MARK} accept
        fwd to "{card.tap}"
    }}
}}
"""


def _losses(card: Card) -> tuple[int, int]:
    """Packets arrived and lost."""
    list_counters = ["nft", "list", "counters", "netdev"]
    printed = subprocess.run(
        [*enter_network(card.host.pid), *list_counters], capture_output=True, text=True, check=True, timeout=30
    ).stdout
    table = re.search(rf"table netdev impair_{card.name} \{{(.*?)\n\}}", printed, re.DOTALL)
    if table is None:
        return 0, 0
    found = dict(re.findall(r"counter (\w+) \{\s*packets (\d+)", table[1]))
    return int(found["arrived"]), int(found["lost"])


def _too_fast(card: Card) -> int:
    """Packets that the emulator has not fetched from its TAP in time: the processor was not enough."""
    show = ["ip", "-json", "-stats", "link", "show", "dev", card.tap]
    printed = subprocess.run([*enter_network(card.host.pid), *show], capture_output=True, text=True, timeout=30).stdout
    return sum(link["stats64"]["tx"]["dropped"] for link in json.loads(printed or "[]"))


def _bucket(impairment: Impairment) -> list[str]:
    burst = max(LEAST_BURST, round(impairment.rate / 8 * BURST_SECONDS))
    latency = f"{round(impairment.queue * 1e6)}us"
    return ["tbf", "rate", f"{impairment.rate}bit", "burst", str(burst), "latency", latency]


def _tc(card: Card, verb: str, *words: str, check: bool = True) -> None:
    argv = [*enter_network(card.host.pid), "tc", "qdisc", verb, "dev", card.name, "root", *words]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    if check and done.returncode != 0:
        raise LabError(f"{card.host.name}: tc qdisc {verb} {' '.join(words)}: {done.stderr.strip()}")
