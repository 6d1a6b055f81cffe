"""systemd units: written, enabled, and taken away again. Nothing here starts systemd, or needs it to write a unit."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from warren.fabric.core.errors import ConfigError

UNITS = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")
"""There while systemd runs the host (sd_booted(3))."""
SOCKETS = Path("/run/warren")
"""Kept by systemd when a daemon stops, since another's socket may be in it."""
SYSTEMCTL_TIME = 120.0
"""Seconds for one systemctl: a connector drains when it is stopped."""
_MARK = "# Written by `warren {role} service install`; `warren {role} service uninstall` takes it away."

UnitDirectory = Annotated[Path, typer.Option("--unit-dir", metavar="DIR", help="Where units live.")]
Print = Annotated[bool, typer.Option("--print", help="Print the unit, and do nothing.")]
TokenFile = Annotated[
    str | None, typer.Option("--token-file", metavar="FILE", help="The tunnel's token; systemd hands it over.")
]
Start = Annotated[bool, typer.Option("--start/--no-start", help="Start it now, and at every start of the host.")]

HARDENED = (
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "ProtectClock=yes",
    "ProtectControlGroups=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "ProtectKernelModules=yes",
    "LockPersonality=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
    "SystemCallErrorNumber=EPERM",
    "UMask=0077",
)
"""For every daemon. AF_NETLINK: the C library looks at addresses through it."""
NO_DEVICES = ("PrivateDevices=yes", "ProtectKernelTunables=yes", "ProtectProc=invisible", "RestrictNamespaces=yes")
"""For daemons that change nothing on the host."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One daemon's unit."""

    role: str
    arguments: tuple[str, ...]
    """Of `warren`."""
    capabilities: tuple[str, ...]
    lines: tuple[str, ...]
    """Further ones in [Service]."""
    writes: tuple[Path, ...] = ()
    """Directories and files that it writes to."""
    log: Path | None = None
    stop_seconds: float = 20.0

    @property
    def name(self) -> str:
        return f"warren-{self.role}.service"

    def text(self) -> str:
        """The file."""
        command = " ".join(quoted(word) for word in (sys.executable, "-m", "warren.cli", *self.arguments))
        bound = " ".join(self.capabilities)
        lines = [
            _MARK.format(role=self.role),
            "[Unit]",
            f"Description=Warren {self.role}",
            "Wants=network-online.target",
            "After=network-online.target systemd-resolved.service",
            "",
            "[Service]",
            "Type=notify",
            f"ExecStart={command}",
            *(["ExecReload=kill -HUP $MAINPID"] if self.log else []),
            "Restart=on-failure",
            "RestartSec=5",
            f"TimeoutStopSec={self.stop_seconds:g}",
            f"CapabilityBoundingSet={bound}",
            f"ProtectHome={'read-only' if _at_home() else 'yes'}",
            *HARDENED,
            *self.lines,
            *_places([*self.writes, *([self.log.parent] if self.log else [])]),
            "",
            "[Install]",
            "WantedBy=multi-user.target",
        ]
        return "\n".join(lines) + "\n"


def run_arguments(*command: str, config: Path | None) -> tuple[str, ...]:
    """`command`, with the file of settings if one was named."""
    return (*command, *(("--config", str(config.absolute())) if config is not None else ()))


def install(unit: Unit, directory: Path, *, start: bool, show: bool) -> None:
    """Writes the unit, and starts it where systemd runs. Raises ConfigError."""
    if show:
        typer.echo(unit.text(), nl=False)
        return
    path = directory / unit.name
    _refuse_foreign(path, unit.role)
    try:
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(unit.text())
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}; use sudo, or --print") from None
    typer.echo(f"{path} is written.", err=True)
    if not _systemd(directory):
        typer.echo(f"systemd does not run here. Where it does:  systemctl enable --now {unit.name}", err=True)
        return
    systemctl("daemon-reload")
    if start:
        systemctl("enable", unit.name)
        systemctl("restart", unit.name)
        typer.echo(f"{unit.name} runs. Its log:  journalctl -u {unit.name}", err=True)


def uninstall(role: str, directory: Path) -> None:
    """Stops it, and removes the unit. Settings and state stay. Raises ConfigError."""
    name = f"warren-{role}.service"
    path = directory / name
    if not path.exists():
        raise ConfigError(f"{path} is not there: no {role} was installed as a service")
    _refuse_foreign(path, role)
    if _systemd(directory):
        systemctl("disable", "--now", name)
    try:
        path.unlink()
    except OSError as error:
        raise ConfigError(f"{path} can't be removed: {error.strerror}; use sudo") from None
    if _systemd(directory):
        systemctl("daemon-reload")
        with contextlib.suppress(OSError):  # another daemon's socket is in it
            SOCKETS.rmdir()
    typer.echo(f"{path} is removed; settings and state are as they were.", err=True)


def systemctl(*words: str) -> None:
    """Raises ConfigError with what it says."""
    try:
        done = subprocess.run(
            ["systemctl", *words], capture_output=True, text=True, timeout=SYSTEMCTL_TIME, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"systemctl {' '.join(words)}: {error}") from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise ConfigError(f"systemctl {' '.join(words)}: {said}")


def quoted(word: str) -> str:
    """One word of a command line in a unit (systemd.service(5), "Command lines")."""
    if not word.isprintable():
        raise ConfigError(f"{word!r} can't stand in a unit: it has a control character")
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"' if escaped != word or set(word) & set(" ';") else word


def path_setting(path: Path) -> str:
    """A path in a setting that is no command."""
    if not str(path).isprintable() or " " in str(path):
        raise ConfigError(f"{str(path)!r} can't stand in a unit: choose a path without spaces")
    return str(path.absolute()).replace("%", "%%")


def _places(writes: Sequence[Path]) -> list[str]:
    """What may be written in a file system that is read-only otherwise; systemd makes what lies in its own places."""
    lines = list[str]()
    for path in dict.fromkeys(writes):
        for setting, parent in (
            ("StateDirectory", "/var/lib"),
            ("RuntimeDirectory", "/run"),
            ("LogsDirectory", "/var/log"),
        ):
            if path.is_relative_to(parent) and path != Path(parent):
                lines.append(f"{setting}={path_setting(path).removeprefix(parent + '/')}")
                lines += ["RuntimeDirectoryMode=0755", "RuntimeDirectoryPreserve=yes"] * (parent == "/run")
                lines += ["StateDirectoryMode=0700"] * (parent == "/var/lib")
                break
        else:
            lines.append(f"ReadWritePaths={path_setting(path)}")
    return list(dict.fromkeys(lines))


def _systemd(directory: Path) -> bool:
    return RUNNING.is_dir() and directory == UNITS and shutil.which("systemctl") is not None


def _refuse_foreign(path: Path, role: str) -> None:
    try:
        if path.exists() and _MARK.format(role=role) not in path.read_text(errors="replace"):
            raise ConfigError(f"{path} was not written by Warren: move it away first")
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}; use sudo") from None


def _at_home() -> bool:
    """Whether Warren is installed below a home directory (pipx, a virtual environment)."""
    prefixes = {os.path.realpath(path) for path in (sys.prefix, sys.executable, __file__)}
    return any(path.startswith(home) for path in prefixes for home in ("/home/", "/root/"))
