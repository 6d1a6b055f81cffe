"""A lab: brought up from a topology, held, found again by its name, and taken down without a trace."""

from __future__ import annotations

import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from warren.lab.host import Host
from warren.lab.state import LabError, LabState, ProcessId
from warren.lab.topologies import OFFICE, TOPOLOGIES
from warren.lab.topology import HostSpec, Topology
from warren.lab.waiting import wait_until
from warren.lab.wiring import wire

READY_WITHIN = 15.0  # seconds for all first processes together; half a second is usual
GONE_WITHIN = 10.0  # seconds for the kernel to end a host's processes


class Lab:
    """`with Lab(OFFICE) as lab: lab["laptop"].run([...])`; down at the end, however it ends.

    `name` keeps labs apart that are up at once; without one it is random. If the process dies, `lab down --name NAME`
    or the next lab of that name clears up.
    """

    def __init__(self, topology: Topology = OFFICE, *, name: str | None = None) -> None:
        self.topology = topology
        self.name = name or f"lab-{secrets.token_hex(4)}"
        self.hosts: Mapping[str, Host] = {}
        self._state = LabState(self.name)
        self._begun: list[subprocess.Popen[bytes]] = []  # the parents of the hosts' first processes

    @classmethod
    def attach(cls, name: str) -> Lab:
        """A lab that somebody else brought up; LabError if it is not up."""
        state = LabState(name)
        if not state.exists():
            raise LabError(f"no lab {name!r} is up: bring it up with `lab up --name {name}`")
        if state.is_stale():
            raise LabError(
                f"lab {name!r} is broken (whoever made it has died): clear it up with `lab down --name {name}`"
            )
        lab = cls(TOPOLOGIES[state.topology()], name=name)
        lab.hosts = {
            spec.name: Host(spec, pid.pid, state.logs)
            for spec in lab.topology.hosts
            if (pid := state.hosts().get(spec.name)) is not None
        }
        return lab

    def __enter__(self) -> Lab:
        self.up()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.down()

    def __getitem__(self, host: str) -> Host:
        return self.hosts[host]

    @property
    def directory(self) -> Path:
        """Of this lab, outside; gone when it is down. Logs are in `logs`."""
        return self._state.directory

    @property
    def logs(self) -> Path:
        return self._state.logs

    def up(self) -> None:
        """All hosts, wired; nothing left if that fails. LabError if a lab of the name is up or this is not root."""
        if os.geteuid() != 0:
            raise LabError("the lab makes network namespaces: run it as root")
        if self._state.exists():
            if not self._state.is_stale():
                raise LabError(f"lab {self.name!r} is up already: take it down with `lab down --name {self.name}`")
            self.down()
        try:
            self._state.create(self.topology.name, [spec.name for spec in self.topology.hosts])
            pids = self._start_hosts()
            wire(self.topology, pids)
            self.hosts = {spec.name: Host(spec, pids[spec.name], self.logs) for spec in self.topology.hosts}
        except FileExistsError:
            raise LabError(f"lab {self.name!r} is being brought up by somebody else") from None
        except BaseException:  # also a signal that came while the state was being written
            self.down()
            raise

    def release(self) -> None:
        """Leave the lab up when this process ends."""
        self._state.release()

    def down(self) -> None:
        """End every process of every host, and with them the namespaces; then the files. Good for a broken lab, too.

        LabError if another process holds the lab: what it started in the hosts, only it can wait for.
        """
        owner = self._state.owner()
        if owner is not None and owner.pid != os.getpid() and owner.is_alive():
            raise LabError(f"lab {self.name!r} is held by process {owner.pid}: end that one first")
        self._state.close()
        alive = [first for first in self._state.hosts().values() if first.is_alive()]
        processes = {os.readlink(f"/proc/{first.pid}/ns/pid") for first in alive}
        for first in alive:
            os.kill(first.pid, signal.SIGKILL)
        for host in self.hosts.values():
            for process in host.processes:
                process.wait(GONE_WITHIN)

        def gone() -> bool:
            _reap_children_in(processes)
            return not any(map(ProcessId.is_alive, alive))

        wait_until(gone, f"the end of lab {self.name}", GONE_WITHIN)
        for parent in self._begun:
            parent.wait(GONE_WITHIN)
        self._begun.clear()
        self.hosts = {}
        self._state.remove()

    def _start_hosts(self) -> dict[str, int]:
        """Every first process, begun at once."""
        for spec in self.topology.hosts:
            self._begun.append(self._begin(spec))
        deadline = time.monotonic() + READY_WITHIN
        for spec, popen in zip(self.topology.hosts, self._begun, strict=True):
            said = _read_all(popen, deadline)
            if said.strip() != "ready":
                raise LabError(f"host {spec.name} could not be made: {said.strip() or 'it is not ready in time'}")
        return {name: pid.pid for name, pid in self._state.hosts().items()}

    def _begin(self, spec: HostSpec) -> subprocess.Popen[bytes]:
        program = str(Path(__file__).parent / "host_init.py")
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", program, self.name, spec.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={"PATH": os.defpath},
        )
        assert popen.stdin is not None
        with popen.stdin:
            popen.stdin.write(json.dumps(self._what_it_is_like(spec)).encode())
        return popen

    def _what_it_is_like(self, spec: HostSpec) -> dict[str, object]:
        return {
            "name": spec.name,
            "record": str(self._state.record(spec.name)),
            "directory": str(self._state.mounts(spec.name)),
            "keep": _needed_folders(),
            "files": _files(spec),
            "sysctls": spec.all_sysctls(),
        }


def _read_all(popen: subprocess.Popen[bytes], deadline: float) -> str:
    """What it prints until it lets go of its output, or until the deadline."""
    assert popen.stdout is not None
    parts: list[bytes] = []
    with popen.stdout as stream:
        while select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
            part = os.read(stream.fileno(), 65536)
            if not part:
                break
            parts.append(part)
    return b"".join(parts).decode(errors="replace")


def _reap_children_in(namespaces: set[str]) -> None:
    """Children of ours that nobody waits for, because a signal came while they were started.

    The first process of a PID namespace does not end before the last zombie in it is gone.
    """
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(process / "ns" / "pid") in namespaces:
                os.waitpid(int(process.name), os.WNOHANG)  # ChildProcessError if it is not ours


def _needed_folders() -> list[str]:
    """This clone, its interpreter and what PYTHONPATH names: some may lie where a host has nothing."""
    clone = Path(__file__).resolve().parents[1]
    named = [path for path in os.environ.get("PYTHONPATH", "").split(":") if path]
    paths = {Path(path).resolve() for path in (str(clone), sys.prefix, sys.base_prefix, *named)}
    folders = {path for path in paths if path.is_dir()}
    return sorted(str(path) for path in folders if not folders & set(path.parents))


def _files(spec: HostSpec) -> dict[str, str]:
    resolver = "".join(
        [f"search {spec.search}\n" if spec.search else "", f"nameserver {spec.nameserver}\n" if spec.nameserver else ""]
    )
    return {
        "/etc/hostname": f"{spec.name}\n",
        "/etc/hosts": f"127.0.0.1 localhost\n{spec.address} {spec.name}\n",
        "/etc/resolv.conf": resolver,
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n",
        "/etc/machine-id": f"{secrets.token_hex(16)}\n",
    }
