"""Real servers in a lab's hosts. Each function returns when its server answers; the lab's end is theirs, too."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from warren.lab.host import Host
from warren.lab.lab import Lab
from warren.lab.process import Process
from warren.lab.state import LabError
from warren.lab.topology import ServiceName

HTTP_PORT, SSH_PORT, POSTGRES_PORT, IPERF_PORT, DNS_PORT, ECHO_PORT = 80, 22, 5432, 5201, 53, 7
PAGE = "Payroll: everybody is paid on time.\n"

DATABASE, DATABASE_USER, DATABASE_PASSWORD = "payroll", "clerk", "a-password-for-the-lab"
DATABASE_ROWS = (("Ada", 4100), ("Grace", 4200), ("Radia", 4300))


@dataclass(frozen=True, slots=True)
class Services:
    """What `start_services` started, and the key that opens the ssh server."""

    processes: Mapping[str, Process]
    ssh: SshKeys


@dataclass(frozen=True, slots=True)
class SshKeys:
    """`private` logs in as root at a server that shows `host_public`."""

    private: str
    host_public: str

    def give_to(self, host: Host, *servers: str) -> None:
        """`ssh root@SERVER` works from this host without a question, and knows the server by each of the names."""
        host.write("/root/.ssh/id_ed25519", self.private, 0o600)
        host.write("/root/.ssh/known_hosts", "".join(f"{server} {self.host_public}\n" for server in servers))


def start_services(lab: Lab) -> Services:
    """What the topology says that its hosts serve: name servers first. All ssh servers are opened by one key."""
    processes: dict[str, Process] = {}
    for host in lab.hosts.values():
        if host.spec.names:
            processes[f"{host.name}-dns"] = serve_names(host, host.spec.names, host.spec.names_on, zone=host.spec.zone)
    keys: SshKeys | None = None
    for host in lab.hosts.values():
        for service in host.spec.services:
            if service == "ssh":
                processes[f"{host.name}-ssh"], keys = serve_ssh(host)
            else:
                processes[f"{host.name}-{service}"] = STARTERS[service](host)
    return Services(processes, keys or SshKeys("", ""))


def serve_names(host: Host, names: Mapping[str, str], address: str | None = None, *, zone: str = "") -> Process:
    """A name server on port 53 of `address` (the host's first one by default). `zone`: more records, as in a file."""
    pairs = [f"{name}={target}" for name, target in names.items()]
    listen = ["--listen", address or host.address]
    if zone:
        host.write("/etc/lab-zone", zone)
        listen += ["--zone", "/etc/lab-zone"]
    process = host.start([sys.executable, "-m", "warren.lab.nameserver", *listen, *pairs], log=f"{host.name}-dns")
    process.wait_for_output("^answering")
    return process


def serve_http(host: Host, port: int = HTTP_PORT, files: Mapping[str, str | bytes] | None = None) -> Process:
    """Serve `files` (path below / → content); by default one page, `page_of(host)`. The log shows each request."""
    root = f"/srv-{port}"
    for name, content in (files or {"index.html": page_of(host)}).items():
        host.write(f"/var/lib{root}/{name}", content)
    serve = [
        sys.executable,
        "-u",
        "-m",
        "http.server",
        str(port),
        "--bind",
        "::" if ":" in host.address else "0.0.0.0",
        "--directory",
        f"/var/lib{root}",
    ]
    process = host.start(serve, log=f"{host.name}-http-{port}")
    host.wait_for_listener(port, process)
    return process


def page_of(host: Host) -> str:
    """`PAGE` on payroll; the others' pages say whose they are."""
    return PAGE if host.name == "payroll" else f"{host.name}: {PAGE}"


def serve_echo(host: Host, port: int = ECHO_PORT) -> Process:
    """What comes goes back, over UDP (datagram by datagram) and TCP (until the other side ends)."""
    argv = [sys.executable, "-m", "warren.lab.echo", "--listen", host.address, "--port", str(port)]
    process = host.start(argv, log=f"{host.name}-echo-{port}")
    process.wait_for_output("^echoing")
    return process


def serve_ssh(host: Host, port: int = SSH_PORT) -> tuple[Process, SshKeys]:
    """An sshd of its own configuration, with new keys; root logs in with the key only."""
    for kind in ("host", "user"):
        host.path("/etc/ssh-lab").mkdir(mode=0o700, exist_ok=True)
        host.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"lab-{kind}", "-f", f"/etc/ssh-lab/{kind}"])
    host.path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host.write(
        "/etc/ssh-lab/config",
        f"Port {port}\nListenAddress 0.0.0.0\nHostKey /etc/ssh-lab/host\nAuthorizedKeysFile /etc/ssh-lab/user.pub\n"
        "PermitRootLogin prohibit-password\nPasswordAuthentication no\nUsePAM no\nUseDNS no\nPidFile none\n"
        "Subsystem sftp internal-sftp\n",
    )
    process = host.start(["/usr/sbin/sshd", "-D", "-e", "-f", "/etc/ssh-lab/config"], log=f"{host.name}-sshd")
    host.wait_for_listener(port, process)
    return process, SshKeys(host.read("/etc/ssh-lab/user"), host.read("/etc/ssh-lab/host.pub").strip())


def serve_iperf(host: Host, port: int = IPERF_PORT) -> Process:
    process = host.start(["iperf3", "--server", "--port", str(port), "--forceflush"], log=f"{host.name}-iperf3-{port}")
    host.wait_for_listener(port, process)
    return process


def serve_postgres(host: Host, port: int = POSTGRES_PORT) -> Process:
    """A new cluster with the database `DATABASE`, its table `salaries` and its user, who comes in with a password.

    From outside: `psql postgresql://clerk@db.internal/payroll` with PGPASSWORD.
    """
    programs = _postgres_programs()
    data = "/var/lib/lab-postgres"
    host.run(["install", "-d", "-o", "postgres", "-g", "postgres", data, "/run/postgresql"])
    quick = ["--no-sync", "--encoding=UTF8", "--locale=C", "--auth-local=trust", "--auth-host=scram-sha-256"]
    host.run([programs / "initdb", *quick, "-D", data], user="postgres", timeout=120)
    with host.path(f"{data}/pg_hba.conf").open("a") as rules:
        rules.write("host all all 0.0.0.0/0 scram-sha-256\n")
    settings = {"port": port, "listen_addresses": "*", "fsync": "off", "shared_buffers": "16MB", "max_connections": 32}
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    serve: list[str | Path] = [programs / "postgres", "-D", data, "-k", "/run/postgresql", *options]
    process = host.start(serve, log=f"{host.name}-postgres", user="postgres")
    process.wait_for_output("ready to accept connections", timeout=60)
    _fill_database(host, port)
    return process


def _fill_database(host: Host, port: int) -> None:
    rows = ", ".join(f"('{name}', {amount})" for name, amount in DATABASE_ROWS)
    psql = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql", "-p", str(port)]
    login = f"CREATE ROLE {DATABASE_USER} LOGIN PASSWORD '{DATABASE_PASSWORD}';"
    owned = f"CREATE DATABASE {DATABASE} OWNER {DATABASE_USER};"
    host.run([*psql, "postgres"], input=f"{login}\n{owned}\n", user="postgres")
    table = f"CREATE TABLE salaries (name text, euros integer); INSERT INTO salaries VALUES {rows};"
    host.run([*psql, "-U", DATABASE_USER, DATABASE], input=table, user="postgres")


def _postgres_programs() -> Path:
    """Debian keeps them out of the PATH, by version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("postgres")
    if elsewhere is None:
        raise LabError("PostgreSQL is not installed: run tools/bootstrap.sh")
    return Path(elsewhere).resolve().parent


STARTERS: Mapping[ServiceName, Callable[[Host], Process]] = {
    "http": serve_http,
    "iperf3": serve_iperf,
    "postgres": serve_postgres,
    "echo": serve_echo,
}
"""Of every service but ssh, which brings keys."""
