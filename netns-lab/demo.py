"""What `make demo` shows: the lab with everything running, and the office as the laptop sees it through Warren.

Each step is one method of `Demo`, in the order of `Demo.run`. Whatever happens, Ctrl-C and SIGTERM included, the lab
is taken down at the end, and nothing of it stays.
"""

from __future__ import annotations

import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.markup import escape

from warren.lab.deployment import Deployment
from warren.lab.host import CommandError, Host
from warren.lab.lab import Lab
from warren.lab.services import DATABASE, DATABASE_PASSWORD, DATABASE_USER, start_services
from warren.lab.state import LabError
from warren.lab.topologies import OFFICE

DEFAULT_NAME = "demo"
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
CURL = ["curl", "--silent", "--show-error", "--max-time", "20"]
CURL_REFUSED = 7  # its exit code for "failed to connect"
FILE_MIB = 16
NC_PORT = 9000


class DemoError(Exception):
    """A step did not show what it should have."""


class Demo:
    """One run. `warren` knows the daemons, so that their logs can be shown when a step fails."""

    def __init__(self, lab: Lab, console: Console) -> None:
        self.lab = lab
        self.warren: Deployment | None = None
        self._console = console
        self._number = 0

    def run(self) -> None:
        self.build()
        self.start_servers()
        self.show_that_nothing_leads_there()
        self.start_edge()
        self.start_connector()
        self.start_agent()
        self.fetch()
        self.log_in()
        self.query()
        self.copy_files()
        self.end_one_side()
        self.ask_for_names()
        self.send_datagrams()
        self.knock_at_a_closed_port()
        self.show_flows()

    # --- the steps

    def build(self) -> None:
        with self._step("A laptop at home, an edge on the internet, an office behind NAT"):
            self.lab.up()
            self.warren = Deployment(self.lab, self._typed)
            self._note(", ".join(self.lab.hosts))

    def start_servers(self) -> None:
        with self._step("Real servers in the office: web, ssh, PostgreSQL, DNS"):
            services = start_services(self.lab)
            services.ssh.give_to(self.lab["laptop"], "payroll.internal")

    def show_that_nothing_leads_there(self) -> None:
        with self._step("Without Warren, nothing leads from the laptop to the office"):
            self._fails("laptop", [*CURL, "http://10.10.0.10/"])
            self._fails("laptop", [*CURL, "http://payroll.internal/"])

    def start_edge(self) -> None:
        with self._step("The edge, with a tunnel and its routes"):
            self._deployment.edge_up()
            self._deployment.make_tunnel()

    def start_connector(self) -> None:
        with self._step("The connector in the office dials out"):
            self._deployment.connector_up()

    def start_agent(self) -> None:
        with self._step("The laptop is enrolled and its agent started"):
            self._deployment.agent_up()

    def fetch(self) -> None:
        with self._step("A web page, by name and by private address"):
            self._shows("laptop", [*CURL, "http://payroll.internal/"], "on time")
            self._shows("laptop", [*CURL, "http://10.10.0.10/"], "on time")

    def log_in(self) -> None:
        with self._step("A shell on a real sshd"):
            self._shows("laptop", ["ssh", "root@payroll.internal", "hostname"], "payroll")

    def query(self) -> None:
        with self._step("A query to a real PostgreSQL"):
            psql = ["psql", "-h", "db.internal", "-U", DATABASE_USER, DATABASE, "-c", "SELECT * FROM salaries"]
            self._shows("laptop", psql, "Radia", {"PGPASSWORD": DATABASE_PASSWORD})

    def copy_files(self) -> None:
        with self._step("Files there and back: scp with a checksum, rsync"):
            self._shows("laptop", ["dd", "if=/dev/urandom", "of=/tmp/sent", "bs=1M", f"count={FILE_MIB}"], "copied")
            checksum = self._shows("laptop", ["sha256sum", "/tmp/sent"], "/tmp/sent").split()[0]
            self._shows("laptop", ["scp", "-q", "/tmp/sent", "root@payroll.internal:/tmp/got"], "")
            self._shows("payroll", ["sha256sum", "/tmp/got"], checksum)
            self._shows("laptop", ["scp", "-q", "root@payroll.internal:/tmp/got", "/tmp/back"], "")
            self._shows("laptop", ["sha256sum", "/tmp/back"], checksum)
            tree = ["rsync", "--archive", "--out-format=%n %l", "/etc/pam.d", "root@payroll.internal:/tmp/tree/"]
            self._shows("laptop", tree, "pam.d/")

    def end_one_side(self) -> None:
        with self._step("nc -N ends its side of a connection, and the other side goes on"):
            listen = ["sh", "-c", f"nc -N -l {NC_PORT} </etc/hostname >/tmp/lines"]
            self._typed(f"payroll$ {listen[-1]}")
            with self.lab["payroll"].start(listen) as server:
                self.lab["payroll"].wait_for_listener(NC_PORT, server)
                self._shows("laptop", ["sh", "-c", f"seq 200000 | nc -N payroll.internal {NC_PORT}"], "payroll")
                server.wait()
            self._shows("payroll", ["wc", "-l", "/tmp/lines"], "200000")

    def ask_for_names(self) -> None:
        with self._step("Names: of the agent over UDP and TCP, and of the office's own server through the tunnel"):
            self._shows("laptop", ["dig", "+short", "payroll.internal"], "100.80.")
            self._shows("laptop", ["dig", "+short", "+tcp", "db.internal"], "100.80.")
            self._shows(
                "laptop", ["dig", "+short", "@10.10.0.53", "text.corp.internal", "TXT"], "hello from the office"
            )
            self._shows("laptop", ["dig", "+short", "www.example.com"], "203.0.113.1")

    def send_datagrams(self) -> None:
        with self._step("Ping, and a datagram that is echoed"):
            self._shows("laptop", ["ping", "-c", "3", "-i", "0.2", "payroll.internal"], "3 received")
            self._shows("laptop", ["sh", "-c", "echo a datagram | nc -u -w 1 10.10.0.10 7"], "a datagram")

    def knock_at_a_closed_port(self) -> None:
        with self._step("A closed port is refused at once, as beside the server"):
            self._fails("laptop", [*CURL, "http://payroll.internal:81/"], CURL_REFUSED)

    def show_flows(self) -> None:
        with self._step("Which flow went where"):
            self._shows("laptop", ["warren", "agent", "status"], "db.internal:5432", {"COLUMNS": "150"})

    # --- how they are shown

    @property
    def _deployment(self) -> Deployment:
        assert self.warren is not None
        return self.warren

    def _typed(self, line: str) -> None:
        host, _, command = line.partition("$ ")
        self._console.print(f"    [green]{host} #[/] {escape(command)}", soft_wrap=True)

    @contextmanager
    def _step(self, title: str) -> Iterator[None]:
        self._number += 1
        self._console.print(f"\n[bold cyan]{self._number:2}[/]  [bold]{escape(title)}[/]")
        began = time.monotonic()
        yield
        self._note(f"{time.monotonic() - began:.2f} s")

    def _note(self, text: str) -> None:
        self._console.print(f"    [dim]{escape(text)}[/]")

    def _shows(self, host: str, argv: Sequence[str], expected: str, env: Mapping[str, str] | None = None) -> str:
        """Run and print it; its output, which must contain `expected`."""
        code, printed = self._try(self.lab[host], argv, env)
        if code != 0 or expected not in printed:
            raise DemoError(f"this should have succeeded and printed {expected!r}")
        return printed

    def _fails(self, host: str, argv: Sequence[str], expected: int | None = None) -> None:
        """Run and print it; it must fail, with the exit code `expected` if one is given."""
        code, _ = self._try(self.lab[host], argv)
        if code == 0 or expected not in (None, code):
            raise DemoError(f"this should have failed{'' if expected is None else f' with exit code {expected}'}")

    def _try(self, host: Host, argv: Sequence[str], env: Mapping[str, str] | None = None) -> tuple[int, str]:
        self._console.print(f"    [green]{host.name} #[/] {escape(shlex.join(argv))}", soft_wrap=True)
        began = time.monotonic()
        result = host.run(argv, check=False, env=env)
        took = time.monotonic() - began
        printed = result.stdout + result.stderr
        for line in printed.splitlines():
            self._console.print(f"      {line}", markup=False, highlight=False, soft_wrap=True)
        self._note(f"{took * 1000:.0f} ms, exit code {result.returncode}")
        return result.returncode, printed


def main(name: str = DEFAULT_NAME) -> int:
    """Run it in a lab of this name; the exit code."""
    console = Console(highlight=False)
    for number in STOPPING:
        signal.signal(number, _stop)
    lab = Lab(OFFICE, name=name)
    demo = Demo(lab, console)
    try:
        demo.run()
    except (DemoError, CommandError, RuntimeError, TimeoutError) as error:
        console.print(f"\n[bold red]The demo failed:[/] {escape(str(error))}")
        _show_logs(demo, console)
        return 1
    except LabError as error:
        console.print(f"[bold red]demo:[/] {escape(str(error))}")
        return 1
    finally:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)  # nothing interrupts the clearing up
        if lab.hosts:
            lab.down()
            console.print("\nThe lab is down; nothing of it is left.")
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _show_logs(demo: Demo, console: Console) -> None:
    daemons = demo.warren.daemons if demo.warren is not None else {}
    for name, process in daemons.items():
        console.print(f"\n[bold]{name}[/] (the end of its log)")
        console.print(process.tail(), markup=False)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
