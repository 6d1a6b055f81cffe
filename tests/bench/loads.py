"""Load and questions from the laptop to the origin: iperf3, and `probe.py` for what iperf3 can't tell."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from warren.lab import Lab, wait_until
from warren.lab.host import CommandError
from warren.lab.process import Process
from warren.lab.services import ECHO_PORT, serve_echo, serve_iperf

PROBE = Path(__file__).with_name("probe.py")
ORIGIN = "10.10.0.10"
OMIT = 1
"""Seconds at the start that iperf3 leaves out: slow start."""
SLACK = 30.0
"""Seconds beyond its own time after which a program is given up."""
SETTLES = 10.0
"""Seconds that iperf3's server gets to be free again."""
DATAGRAM = 1200
"""Bytes of payload: they fit through every tunnel without fragments."""
OFFERED = (50, 100, 200, 400, 800, 1200, 1600, 2400)
"""Mbit/s of UDP, one after the other until twice too much is lost."""
TOLERATED = 0.01
"""Share of UDP that may be lost."""

Way = Literal["up", "down"]


class Carried(NamedTuple):
    """`rate`: Gbit/s received, without the start; `gbits`: all that was carried, the start included."""

    rate: float
    gbits: float


class Failed(Exception):
    """A measurement gave nothing; the text is a line for the table."""


class Loads:
    """The origin's servers, and what the laptop asks of them. Every method raises `Failed`."""

    def __init__(self, lab: Lab) -> None:
        self._lab, self._laptop = lab, lab["laptop"]
        self._server = serve_iperf(lab["payroll"])
        serve_echo(lab["payroll"])

    def reachable(self) -> bool:
        """One byte there and back."""
        try:
            self._probe("tcp", 1)
        except Failed:
            return False
        return True

    def stream(
        self, way: Way, seconds: int, *, streams: int = 1, congestion: str = "cubic", omit: int = OMIT
    ) -> Carried:
        """TCP streams, `seconds` long after `omit` of them; the sender's congestion control is the one named."""
        said = self._iperf(way, seconds, "-P", str(streams), "-C", congestion, "-O", str(omit))
        used = said["end"].get("sender_tcp_congestion")
        if used != congestion:
            raise Failed(f"the sender's congestion control is {used}, and should be {congestion}")
        rate = float(said["end"]["sum_received"]["bits_per_second"]) / 1e9
        return Carried(rate, sum(part["sum"]["bytes"] for part in said["intervals"]) * 8e-9)

    def udp(self, way: Way, seconds: int) -> dict[str, float]:
        """The most UDP that was delivered with at most `TOLERATED` lost: Gbit/s, the loss, and the loss beyond it."""
        best = {"gbit": 0.0, "lost": 0.0, "beyond": 0.0}
        failed = 0
        for rate in OFFERED:
            said = self._iperf(way, seconds, "-u", "-b", f"{rate}M", "-l", str(DATAGRAM))["end"]["sum"]
            lost = float(said["lost_percent"]) / 100
            delivered = float(said["bits_per_second"]) / 1e9 * (1 - lost)
            if lost <= TOLERATED and delivered > best["gbit"]:
                best, failed = {"gbit": delivered, "lost": lost, "beyond": 0.0}, 0
                continue
            best["beyond"] = lost
            failed += 1
            if failed == 2:
                break
        return best

    def round_trip(self, count: int) -> dict[str, float]:
        """Milliseconds over one TCP connection, nothing else going on: p50, p99."""
        said: dict[str, float] = self._probe("tcp", count)
        return said

    def datagrams(self, count: int, rate: int) -> dict[str, float]:
        """Milliseconds of datagrams of 200 bytes: p50, p99; the share that was lost."""
        said: dict[str, float] = self._probe("udp", count, rate)
        return said

    def connections(self, seconds: int) -> dict[str, float]:
        """New TCP connections a second, each with a byte there and back; how many failed."""
        said: dict[str, float] = self._probe("connections", seconds)
        return said

    @contextmanager
    def background(self, way: Way, seconds: int) -> Iterator[None]:
        """One TCP stream meanwhile; it has moved bytes when the body begins, and still runs when it ends."""
        process = self._begin(way, seconds) or self._begin(way, seconds)
        if process is None:
            raise Failed("the TCP load did not begin")
        try:
            yield
        finally:
            ran = process.running
            process.stop()
            self._settle()
        if not ran:
            raise Failed(f"the TCP load ended too early: {process.tail().splitlines()[-1]}")

    def _begin(self, way: Way, seconds: int) -> Process | None:
        """None where it has not moved bytes, as while the server is still busy with the test before."""
        process = self._laptop.start([*self._words(way, seconds, "-C", "cubic", "--forceflush")])
        try:
            process.wait_for_output(r"sec\s+[1-9]", SLACK)
        except (RuntimeError, TimeoutError):
            process.stop()
            self._settle()
            return None
        return process

    def _settle(self) -> None:
        """The server takes one test at a time: wait until it takes the next one, or have another server."""
        one_byte = ["iperf3", "-c", ORIGIN, "-n", "1"]

        def free() -> bool:
            return self._laptop.run(one_byte, check=False, timeout=SLACK).returncode == 0

        try:
            wait_until(free, "the iperf3 server", SETTLES)
        except (TimeoutError, CommandError):
            self._server.kill()
            self._server = serve_iperf(self._lab["payroll"])

    def _words(self, way: Way, seconds: int, *more: str) -> list[str]:
        return ["iperf3", "-c", ORIGIN, "-t", str(seconds), *more, *(["-R"] if way == "down" else [])]

    def _iperf(self, way: Way, seconds: int, *more: str) -> Any:
        """Once more where it fails: the server may still be busy with the test before."""
        words = self._words(way, seconds, "-J", *more)
        try:
            return self._run(words, seconds)
        except Failed:
            self._settle()
            return self._run(words, seconds)

    def _run(self, words: list[str], seconds: int) -> Any:
        try:
            said = json.loads(self._laptop.run(words, timeout=seconds + SLACK).stdout)
        except CommandError as error:
            raise Failed(f"iperf3: {_reason(error)}") from None
        if not {"sum", "sum_received"} & set(said.get("end", {})):
            raise Failed(f"iperf3: {said.get('error', 'no figures')}")
        return said

    def _probe(self, kind: str, *numbers: float) -> Any:
        words = [sys.executable, str(PROBE), kind, ORIGIN, str(ECHO_PORT), *map(str, numbers)]
        try:
            return json.loads(self._laptop.run(words, timeout=60 + SLACK).stdout)
        except CommandError as error:
            raise Failed(f"{kind}: {_reason(error)}") from None


def _reason(error: CommandError) -> str:
    """The last line that says something, or iperf3's own word."""
    text = str(error)
    try:
        said: str = json.loads(text[text.index("\n") :])["error"]
        return said
    except (ValueError, KeyError):
        return text.strip().splitlines()[-1][:200]
