"""One archive for whoever is to find out what is wrong: versions, settings, status, the host's network, the log.

No secret is in it: key and token files are never opened, and whatever looks like a key or a token in what is taken is
left out. Names and addresses are in it.
"""

from __future__ import annotations

import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from warren.fabric.core.errors import ConfigError
from warren.fabric.daemon.service import RUNNING
from warren.fabric.daemon.settings import Endpoint, LogSettings, plain

PART_LIMIT = 2 << 20
"""Bytes of one part; of a log, its end."""
TIME_LIMIT = 10.0
"""Seconds for one program or answer."""
JOURNAL_LINES = 5_000

LEFT_OUT = "(left out)"
_PEM = re.compile(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.*?(-----END \1-----|\Z)", re.DOTALL)
_TOKEN = re.compile(r"warren-(enrol|tunnel)-[\w-]*(?:\s+[\w-]{16,})*")
"""White space may be in one: a paste that was wrapped."""
_HEX = re.compile(r"\b([0-9a-fA-F]{8})[0-9a-fA-F]{56,}\b")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{40,}={0,2}")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A new file, a .tar.gz; it is made with mode 0600.")]
Part = Callable[[], str]
"""Its text. May raise: then the error is what is in the archive."""

HOST: Mapping[str, tuple[str, ...]] = {
    "host/addresses.txt": ("ip", "addr"),
    "host/routes.txt": ("ip", "route", "show", "table", "all"),
    "host/routes6.txt": ("ip", "-6", "route", "show", "table", "all"),
    "host/rules.txt": ("ip", "rule"),
    "host/rules6.txt": ("ip", "-6", "rule"),
    "host/sockets.txt": ("ss", "-lntu"),
    "host/resolved.txt": ("resolvectl", "status", "--no-pager"),
}


def write(file: Path, role: str, settings: msgspec.Struct, parts: Mapping[str, Part]) -> None:
    """Writes the archive: `parts` of the role by name, and what every daemon has. Raises ConfigError."""
    log: LogSettings = settings.log  # type: ignore[attr-defined]
    metrics: Endpoint | None = getattr(settings, "metrics", None)
    every: dict[str, Part] = {
        "versions.txt": versions,
        "settings.json": lambda: json.dumps(plain(settings), indent=2),
        **parts,
        **{name: _output(words) for name, words in HOST.items()},
        "host/resolv.conf": lambda: Path("/etc/resolv.conf").read_text(),
        "host/udp.txt": lambda: Path("/proc/net/snmp").read_text(),
        **_log(role, log),
    }
    if metrics is not None:
        every["ready.json"] = lambda: fetch(f"http://{reachable(metrics)}/ready")
        every["metrics.txt"] = lambda: fetch(f"http://{reachable(metrics)}/metrics")
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise ConfigError(f"{file} is there already: name another file") from None
    except OSError as error:
        raise ConfigError(f"{file} can't be written: {error.strerror}") from None
    stem = f"warren-{role}-{time.strftime('%Y%m%d-%H%M%S')}"
    with open(descriptor, "wb") as opened, tarfile.open(fileobj=opened, mode="w:gz") as archive:
        for name, part in every.items():
            _add(archive, f"{stem}/{name}", _taken(part))
    typer.echo(f"{file} is written: look through it before you pass it on. Keys and tokens are not in it;", err=True)
    typer.echo("names and addresses are.", err=True)


def scrubbed(text: str) -> str:
    """Without what looks like a key or a token. Of long hexadecimal ids, eight digits stay."""
    text = _PEM.sub(LEFT_OUT, text)
    text = _TOKEN.sub(lambda found: f"warren-{found[1]}-{LEFT_OUT}", text)
    text = _HEX.sub(lambda found: f"{found[1]}{LEFT_OUT}", text)
    return _BASE64.sub(lambda found: LEFT_OUT if _looks_random(found[0]) else found[0], text)


def _looks_random(word: str) -> bool:
    return word.endswith("=") or bool(re.search("[A-Z]", word) and re.search("[0-9+]", word))


def versions() -> str:
    names = (
        "warren",
        "aioquic",
        "warren-quic",
        "cryptography",
        "msgspec",
        "pyroute2",
        "uvloop",
        "structlog",
        "sqlalchemy",
        "uvicorn",
    )
    lines = [
        f"{time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"python {sys.version.split()[0]}",
        f"{platform.system()} {platform.release()} {platform.machine()}",
        *(f"{name} {_version(name)}" for name in names),
    ]
    return "\n".join(lines) + "\n"


def fetch(url: str) -> str:
    """What the daemon's own page says, whatever the status."""
    try:
        with urllib.request.urlopen(url, timeout=TIME_LIMIT) as answer:  # noqa: S310 (our own address)
            return str(answer.read(PART_LIMIT).decode())
    except urllib.error.HTTPError as error:
        return error.read(PART_LIMIT).decode()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def reachable(address: Endpoint) -> Endpoint:
    """Where to ask a daemon of this host that listens there."""
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
    return Endpoint(here.get(address.host, address.host), address.port)


def _output(words: Iterable[str]) -> Part:
    def run() -> str:
        done = subprocess.run(list(words), capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
        return done.stdout + done.stderr

    return run


def _log(role: str, log: LogSettings) -> dict[str, Part]:
    unit = f"warren-{role}.service"
    if log.file is not None:
        file = log.file
        return {"log.txt": lambda: _end(file)}
    if RUNNING.is_dir():
        journal = ("journalctl", "--no-pager", "--unit", unit, "--lines", str(JOURNAL_LINES))
        return {"log.txt": _output(journal), "service.txt": _output(("systemctl", "--no-pager", "status", unit))}
    return {}


def _end(file: Path) -> str:
    with file.open("rb") as opened:
        size = opened.seek(0, os.SEEK_END)
        opened.seek(max(0, size - PART_LIMIT))
        if size > PART_LIMIT:
            opened.readline()  # half a line, and half a token is not known for one
        return opened.read(PART_LIMIT).decode(errors="replace")


def _taken(part: Part) -> bytes:
    try:
        text = part()
    except Exception as error:  # what can't be had is a finding, and keeps nothing else out
        text = f"could not be had: {type(error).__name__}: {error}\n"
    return scrubbed(text[-PART_LIMIT:]).encode(errors="replace")


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mtime, entry.mode = len(data), int(time.time()), 0o600
    archive.addfile(entry, io.BytesIO(data))


def as_json(value: Any) -> str:
    return json.dumps(value, indent=2)
