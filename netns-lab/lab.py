"""A lab: brought up from a topology, held, found again by its name, and taken down without a trace."""

from __future__ import annotations

import importlib.resources
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Mapping
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
        except BaseException:
            self.down()
            raise

    def release(self) -> None:
        """Leave the lab up when this process ends."""
        self._state.release()

    def down(self) -> None:
        """End every process of every host, and with them the namespaces; then the files. Good for a broken lab, too."""
        found = self._state.hosts().values()
        for first in found:
            if first.is_alive():
                os.kill(first.pid, signal.SIGKILL)
        for host in self.hosts.values():
            for process in host.processes:
                process.wait(GONE_WITHIN)
        wait_until(lambda: not any(map(ProcessId.is_alive, found)), f"the end of lab {self.name}", GONE_WITHIN)
        self.hosts = {}
        self._state.remove()

    def _start_hosts(self) -> dict[str, int]:
        """Every first process, begun at once."""
        begun = {spec.name: self._begin(spec) for spec in self.topology.hosts}
        for name, popen in begun.items():
            assert popen.stdin is not None
            try:
                out, err = popen.communicate(timeout=READY_WITHIN)
            except subprocess.TimeoutExpired:
                popen.kill()
                raise LabError(f"host {name} was not ready within {READY_WITHIN:g} s") from None
            if out.strip() != "ready":
                raise LabError(f"host {name} could not be made: {err.strip() or 'it ended'}")
        return {name: pid.pid for name, pid in self._state.hosts().items()}

    def _begin(self, spec: HostSpec) -> subprocess.Popen[str]:
        program = str(importlib.resources.files("warren.lab") / "host_init.py")
        popen = subprocess.Popen(
            [sys.executable, "-I", "-S", program, self.name, spec.name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            text=True,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
        assert popen.stdin is not None
        popen.stdin.write(json.dumps(self._what_it_is_like(spec)))
        popen.stdin.flush()
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
